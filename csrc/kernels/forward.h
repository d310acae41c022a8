// The forward sweep: inputs projected chunk by chunk, then products and pointwise work step by step.
#pragma once

#include "kernels/batch.h"
#include "kernels/chunks.h"
#include "kernels/forward_matrices.h"
#include "kernels/rounds.h"
#include "kernels/state_buffers.h"

namespace unrolled {
namespace UNROLLED_BUILD {

constexpr Index kProjected = 96;  // the most tokens whose inputs are projected at once

// Threads that share the sequences divide the steps into at least so many chunks: one with fewer sequences
// projects chunks for another.
constexpr Index kMinChunks = 6;

template <class T>
class Forward {
public:
    // On at most `limit` threads. Matrices are packed here unless `packed_matrices` has them. Inputs are
    // projected for up to `ahead` tokens at once; 1 for single steps.
    Forward(const Call<T>& call, Index limit, PackedMatrices<T>* packed_matrices = nullptr,
            Index ahead = kProjected)
        : batch_(call, limit),
          call_(call),
          p_(*call.program),
          threads_(ahead > 1 ? batch_.threads(p_.forward_schedule) : batch_.threads_of_a_step()),
          units_(batch_.by_units(p_.forward_schedule, threads_)),
          persistent_(p_, p_.forward_schedule, call),
          matrices_(call),
          states_(call),
          rounds_(limit_threads(), units_, call.cancel) {
        batch_.divide_rows(threads_);
        rows_ = units_ ? call.N : batch_.max_rows();
        steps_ = min(call.T_steps, max<Index>(1, ahead / max<Index>(1, rows_)));
        if (!units_ && threads_ > 1) steps_ = min(steps_, divide_up(call.T_steps, kMinChunks));
        ldx_ = p_.x_parts * pitch(p_.x_width);
        inputs_ = Buffer<T>((units_ ? 1 : threads_) * steps_ * rows_ * ldx_);
        pointers_ = Buffer<const T*>(threads_ * steps_ * rows_);
        if (call.tokens.half) row_buffers_ = Buffer<T>(threads_ * steps_ * rows_ * call.I);
        if (!units_ && threads_ > 1 && ahead > 1) divide_steps();
        matrices_.make(packed_matrices, rows_, steps_ * rows_);
        // No memory is allocated inside a parallel region.
        if (packed_matrices) matrices_.find_packed(units_ ? threads_ : 1);
        workspace_size_ = matrices_.workspace(steps_ * rows_);
        if (workspace_size_ > 0) workspaces_ = Buffer<T>(threads_ * workspace_size_);
        make_results();
        assign_output_slots();
        interpreters_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            interpreters_.emplace_back(p_, p_.forward_schedule);
            interpreters_[k].set_nodes(persistent_.node_rows());
            locate_products(interpreters_[k]);
        }
        positions_ = Buffer<Position<T>>(threads_);
        reset_positions();
    }

    // Makes the sweep ready to run again on new arrays of the call, of the same sizes. Nothing is packed.
    void read_call() {
        if (!p_.vectors.empty()) persistent_.read_vectors(p_, p_.forward_schedule, call_);
        matrices_.read_parameters();
        states_.read_initial();
        reset_positions();
    }

    void run() {
        rounds_.run([this](Index part) { return sweep(part); },
                    [this](Index thread) {
                        for (Index k = 1; !chunks_.empty() && k < threads_; ++k)
                            project_for((thread + k) % threads_, thread, call_.T_steps);
                    });
    }

    // Step t of all sequences, from the call's tokens to its output. The work is divided into `threads_`
    // parts, as the matrices were packed, also where one thread does all of it.
    void advance(Index t) {
        if (trusted_threads() >= threads_)
            return rounds_.run([this, t](Index part) { return step(t, part); }, [](Index) {});
        run_threads(1, [this, t](Index, Index) {
            for (bool more = true; more;)
                for (Index k = 0; k < threads_; ++k) more = step(t, k);
        });
    }

    // The state before step t.
    NodeRows<T> state_before(std::size_t k, Index t) {
        if (t > 0) return state_after(k, t - 1);
        return states_.initial(k);
    }

private:
    // The number of threads that have something to do.
    Index limit_threads() {
        threads_ = min(threads_, units_ ? blocks() : max<Index>(1, call_.N / kMinRows));
        return threads_;
    }

    // Cache lines of the widest part; no two threads share one.
    Index blocks() const {
        Index widest = p_.x_width;
        for (const Product& q : p_.products) widest = max(widest, q.width);
        return divide_up(widest, pitch(1));
    }

    void reset_positions() {
        for (Index k = 0; k < threads_; ++k) positions_[k] = {InterruptPoller(call_.cancel, batch_.work())};
    }

    void divide_steps() {
        chunks_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            Index steps = call_.T_steps;
            while (steps > 0 && call_.size(steps - 1) <= batch_.part(false, k, threads_).first) --steps;
            chunks_.emplace_back(divide_up(steps, steps_), steps_ * rows_ * ldx_);
        }
    }

    void make_results() {
        results_ = std::vector<Buffer<T>>(p_.products.size());
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            const Product& q = p_.products[k];
            results_[k] = Buffer<T>(call_.N * q.parts * pitch(q.width));
        }
    }

    // Decides which new states are computed directly in the buffer of their state, and which are copied
    // there.
    void assign_output_slots() {
        const std::size_t count = p_.nodes.size();
        output_slot_ = Buffer<int>(static_cast<Index>(count));
        for (std::size_t k = 0; k < count; ++k) output_slot_[k] = -1;
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const int node = p_.forward[k];
            if (can_write_in_place(node, p_.states[k]) && output_slot_[node] < 0)
                output_slot_[node] = static_cast<int>(k);
        }
        for (const Phase& phase : p_.forward_schedule.phases)
            for (const Instruction& i : phase.work)
                if (p_.forward_schedule.slot[i.result] < 0 && output_slot_[i.result] < 0)
                    persistent_.allocate(i.result, call_.N, p_.nodes[i.result].width);
        moving_ = Buffer<int>(static_cast<Index>(count));
        for (std::size_t k = 0; k < count; ++k) {
            const NodeKind kind = p_.nodes[k].kind;
            if (kind == NodeKind::input || kind == NodeKind::state || p_.accumulator_of[k] >= 0 ||
                output_slot_[k] >= 0)
                moving_[moving_count_++] = static_cast<int>(k);
        }
    }

    void locate_products(Interpreter<T>& interpreter) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (node.kind != NodeKind::product) continue;
            const Product& q = p_.products[node.index];
            interpreter.node(static_cast<int>(k)) = {
                results_[node.index].data() + node.blocks[0] * pitch(q.width), q.parts * pitch(q.width),
                node.width == 1};
        }
    }

    bool can_write_in_place(int node, Index width) const {
        return p_.nodes[node].kind == NodeKind::operation && p_.accumulator_of[node] < 0 &&
               p_.nodes[node].width == width && !persistent_.node_rows()[node].base;
    }

    NodeRows<T> state_after(std::size_t k, Index t) {
        if (k == 0 || !call_.saved) return states_.after(k, t);
        return {saved(t, p_.stored.size() + k - 1), p_.saved_pitch, p_.states[k] == 1};
    }

    T* saved(Index t, std::size_t column) const {
        return call_.saved + batch_.offset(t) * p_.saved_pitch + p_.saved_columns[column];
    }

    // Part k, up to where it needs results of other parts; false at its end. Threads that share the units
    // pack for themselves only.
    bool sweep(Index k) {
        Position<T>& at = positions_[k];
        const Part all = batch_.part(units_, k, threads_);
        if (!at.begun) {
            at.begun = true;
            if (!matrices_.packed_before()) {
                matrices_.pack(units_, k, threads_);
                if (!units_ && threads_ > 1) return true;
            }
        }
        if (at.t == 0 && !at.stepping) {
            project_surplus(k);
            save_final_states(all, 0, min(all.last, max(all.first, call_.size(0))));
        }
        for (;;) {
            if (!at.stepping && !begin_step(at, all, k)) return false;
            const Part part{all.first, all.first + at.rows, all.thread, all.count};
            if (!run_phases(at, part, at.t > 0, k)) return true;
            finish_step(interpreters_[k], part, at.t++);
            at.x += at.rows * ldx_;
        }
    }

    // Projects inputs where the last ones are used up. False if there are no more steps.
    bool begin_step(Position<T>& at, const Part& part, Index k) {
        if (at.t == call_.T_steps) return false;
        at.rows = min(part.last, call_.size(at.t)) - part.first;
        if (at.rows <= 0) return false;
        if (at.t == at.projected) {
            const Index end = min(call_.T_steps, at.t + steps_), chunk = at.t / steps_;
            const bool helped = !chunks_.empty() && !chunks_[k].claim(chunk);
            at.x = helped ? chunks_[k].wait(chunk, call_.cancel) : projected_inputs(k);
            if (!at.x) return false;
            if (!helped) project(part, at.t, end, k, at.x);
            at.projected = end;
        }
        if (at.poller.cancelled_after(at.rows)) return false;
        locate_nodes(interpreters_[k], part, at.t, at.x);
        at.stepping = true;
        return true;
    }

    // Before a thread sweeps fewer sequences than others have, it projects so many chunks for them that all
    // end at the same time.
    void project_surplus(Index k) {
        if (chunks_.empty() || call_.sizes) return;
        for (Index other = 0; other < threads_; ++other)
            project_for(other, k, batch_.chunks_to_give(other, k, chunks_[other].count()));
    }

    // Projects inputs for another thread, at most so many chunks from the last one back, until all are
    // claimed.
    void project_for(Index other, Index thread, Index most) {
        ProjectedChunks<T>& chunks = chunks_[other];
        for (Index c = chunks.count() - 1; c >= max(chunks.first(), chunks.count() - most); --c) {
            if (is_cancelled(call_.cancel) || !chunks.claim(c)) return;
            project(batch_.part(false, other, threads_), c * steps_, min(call_.T_steps, (c + 1) * steps_),
                    thread, chunks.buffer(c));
            chunks.publish(c);
        }
    }

    // The input product for the tokens of some steps.
    void project(const Part& part, Index start, Index end, Index thread, T* inputs) {
        const T** pointers = pointers_.data() + thread * steps_ * rows_;
        T* const row_buffer = row_buffers_.part(thread * steps_ * rows_ * call_.I);
        Index count = 0;
        for (Index t = start; t < end; ++t)
            for (Index n = part.first; n < min(part.last, call_.size(t)); ++n, ++count)
                pointers[count] =
                    native_row(call_.tokens, batch_.row(t, n) * call_.I, call_.I, row_buffer, count, call_.I);
        const GroupRange range = groups_of_thread<T>(p_.x_width, part.thread, part.count);
        multiply(pointers, count, matrices_.input(), range,
                 Target<T>{nullptr, 0, inputs, ldx_, matrices_.input_bias()},
                 workspaces_.part(thread * workspace_size_));
    }

    // The phases of a step; false where one needs results of other parts first.
    bool run_phases(Position<T>& at, const Part& part, bool first_meets, Index k) {
        for (; at.phase < p_.forward_schedule.phases.size(); ++at.phase) {
            const bool meets =
                at.phase > 0 ? reads_other_parts(at.phase) : first_meets && !p_.products.empty();
            if (meets && part.count > 1 && !at.met) {
                at.met = true;
                return false;
            }
            at.met = false;
            run_phase(interpreters_[k], part, at.phase, at.x, pointers_.data() + k * steps_ * rows_,
                      workspaces_.part(k * workspace_size_));
        }
        at.phase = 0;
        at.stepping = false;
        return true;
    }

    // Whether a phase reads results of all parts.
    bool reads_other_parts(std::size_t f) const { return !p_.forward_schedule.phases[f].products.empty(); }

    void run_phase(Interpreter<T>& interpreter, const Part& part, std::size_t f, T* x, const T** pointers,
                   T* workspace) {
        for (int key : p_.forward_schedule.phases[f].products) {
            const NodeRows<T>& source = interpreter.node(p_.products[key].source_node);
            for (Index r = part.first; r < part.last; ++r) pointers[r - part.first] = source.row(r);
            const Product& q = p_.products[key];
            const Index ld = q.parts * pitch(q.width);
            const GroupRange range = groups_of_thread<T>(q.width, part.thread, part.count);
            multiply(pointers, part.last - part.first, matrices_.product(key), range,
                     Target<T>{x, ldx_, results_[key].data() + part.first * ld, ld, matrices_.bias(key)},
                     workspace);
        }
        interpreter.run(f, part);
    }

    // Part k of one step, up to where it needs results of other parts; false at its end.
    bool step(Index t, Index k) {
        Position<T>& at = positions_[k];
        const Part part = batch_.part(units_, k, threads_);
        if (!at.stepping) {
            at.x = projected_inputs(k);
            project(part, t, t + 1, k, at.x);
            locate_nodes(interpreters_[k], part, t, at.x);
            at.stepping = true;
        }
        if (!run_phases(at, part, false, k)) return true;
        finish_step(interpreters_[k], part, t);
        return false;
    }

    // The buffer of the projected inputs of part k.
    T* projected_inputs(Index k) { return inputs_.data() + (units_ ? 0 : k * steps_ * rows_ * ldx_); }

    // Sets the locations of the vectors of this step; rows are counted from the first of the batch.
    void locate_nodes(Interpreter<T>& interpreter, const Part& part, Index t, T* x) {
        for (Index k = 0; k < moving_count_; ++k) {
            const int number = moving_[k];
            const Node& node = p_.nodes[number];
            const int block = node.kind == NodeKind::input ? node.index : p_.accumulator_of[number];
            if (block >= 0) {
                interpreter.node(number) = {x + block * pitch(p_.x_width) - part.first * ldx_, ldx_,
                                            node.width == 1};
            } else if (node.kind == NodeKind::state) {
                interpreter.node(number) = state_before(node.index, t);
            } else {
                interpreter.node(number) = state_after(output_slot_[number], t);
            }
        }
        if (!call_.saved) return;
        for (std::size_t k = 0; k < p_.stored.size(); ++k) {
            const int node = p_.stored[k];
            if (can_store(node))
                interpreter.node(node) = {saved(t, k), p_.saved_pitch, p_.nodes[node].width == 1};
        }
    }

    bool can_store(int node) const {
        return p_.nodes[node].kind == NodeKind::operation && p_.accumulator_of[node] < 0 &&
               output_slot_[node] < 0 && p_.forward_schedule.slot[node] < 0 &&
               persistent_.node_rows()[node].stride > 0;
    }

    // Copies what was not computed in place, writes the output, and saves the final states of ended
    // sequences.
    void finish_step(Interpreter<T>& interpreter, const Part& part, Index t) {
        if (call_.saved)
            for (std::size_t k = 0; k < p_.stored.size(); ++k) {
                const int node = p_.stored[k];
                if (!can_store(node))
                    copy_rows(interpreter.node(node), part, p_.nodes[node].width, saved(t, k),
                              p_.saved_pitch);
            }
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const NodeRows<T> to = state_after(k, t);
            copy_rows(interpreter.node(p_.forward[k]), part, p_.states[k], to.base, to.stride);
            if (k == 0) write_output(part, t, to);
        }
        const Index next = t + 1 < call_.T_steps ? call_.size(t + 1) : 0;
        save_final_states(part, t + 1, max(part.first, min(part.last, next)));
    }

    void write_output(const Part& part, Index t, const NodeRows<T>& from) {
        const Index width = p_.states[0];
        const GroupRange range = groups_of_thread<T>(width, part.thread, part.count);
        const Index a = range.first * lanes<T>, b = min(width, range.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n)
            write(call_.output, batch_.row(t, n) * width + a, from.row(n) + a, b - a);
    }

    // The states of the rows from `first` on, whose sequences end before step t, are final.
    void save_final_states(const Part& part, Index t, Index first) {
        if (first >= part.last) return;
        const Part ended{first, part.last, part.thread, part.count};
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            copy_rows(state_before(k, t), ended, p_.states[k], call_.final[k], p_.states[k]);
    }

    Batch<T> batch_;
    const Call<T>& call_;
    const Program& p_;
    Index threads_;
    bool units_;
    PersistentBuffers<T> persistent_;
    Index rows_ = 0, steps_ = 0, ldx_ = 0;
    ForwardMatrices<T> matrices_;
    StateBuffers<T> states_;
    Rounds rounds_;
    Buffer<Position<T>> positions_;  // by part
    std::vector<Buffer<T>> results_;
    Buffer<T> inputs_, row_buffers_;          // row_buffers_: rows of tokens in bfloat16, converted
    std::vector<ProjectedChunks<T>> chunks_;  // by thread, where threads share the sequences
    Buffer<T> workspaces_;                    // by thread, for products with bfloat16
    Index workspace_size_ = 0;
    Buffer<const T*> pointers_;
    Buffer<int> output_slot_;  // by node: the state that it computes in place, or -1
    Buffer<int> moving_;       // nodes whose location changes from step to step
    Index moving_count_ = 0;
    std::vector<Interpreter<T>> interpreters_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
