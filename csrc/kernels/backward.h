// The backward sweep: the derived program, from the last step to the first.
#pragma once

#include "kernels/backward_nodes.h"
#include "kernels/rounds.h"

namespace unrolled {
namespace UNROLLED_BUILD {

template <class T>
class Backward {
public:
    // On at most `limit` threads.
    Backward(const Gradients<T>& g, Index limit)
        : g_(g),
          call_(*g.call),
          batch_(call_, limit),
          p_(*call_.program),
          threads_(batch_.threads(p_.backward_schedule)),
          units_(batch_.by_units(p_.backward_schedule, threads_)),
          persistent_(p_, p_.backward_schedule, call_),
          nodes_(p_, persistent_),
          rounds_(limit_threads(), units_, call_.cancel),
          parameter_gradients_(g, batch_) {
        batch_.divide_rows(threads_);
        steps_ = min(call_.T_steps, chunk_steps());
        ld_ = p_.product_gradient_pitch + 16;  // an odd number of cache lines: columns are read, too
        product_gradients_ = zeros<T>(steps_ * call_.N * ld_);
        make_matrices();
        make_states();
        nodes_.plan(call_.N, sources_);
        parameter_gradients_.begin(threads_, steps_, product_gradients_.data(), ld_, initial_states_,
                                   sources_);
        pointers_ = Buffer<const T*>(threads_ * call_.N);
        if (multiplies_bf16(call_)) {
            workspace_size_ = round_up(bf16_workspace<T>(tile_rows(), p_.product_gradient_pitch), 16);
            workspaces_ = Buffer<T>(threads_ * workspace_size_);
        }
        interpreters_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            interpreters_.emplace_back(p_, p_.backward_schedule);
            interpreters_[k].set_nodes(persistent_.node_rows());
            locate_products(interpreters_[k]);
        }
        positions_ = Buffer<Position>(threads_);
        for (Index k = 0; k < threads_; ++k)
            positions_[k] = {InterruptPoller(call_.cancel, batch_.work()), divide_up(call_.T_steps, steps_)};
    }

    void run() {
        rounds_.run([this](Index part) { return sweep(part); }, [](Index) {});
        for (std::size_t k = 0; k < p_.vectors.size(); ++k) write_vector_gradient(k);
    }

private:
    static constexpr Index kMaxTokens = 8192;  // of a chunk, with groups

    Index limit_threads() {
        if (!units_) threads_ = min(threads_, max<Index>(1, call_.N / kMinRows));
        return threads_;
    }

    // The steps of a chunk. With groups a chunk should have kChunk tokens of each.
    Index chunk_steps() const {
        const Index N = max<Index>(1, call_.N), one = max<Index>(1, kChunk / N);
        if (g_.groups == 1) return one;
        const Index own = kChunk / max<Index>(1, N / g_.groups);
        return max(one, min(own, kMaxTokens / N));
    }

    void make_matrices() {
        matrices_ = std::vector<Matrix<T>>(p_.products.size());
        results_ = std::vector<Buffer<T>>(p_.products.size());
        sources_ = std::vector<Buffer<T>>(p_.products.size());
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            const Product& q = p_.products[k];
            matrices_[k] = transposed(call_, call_.products[k].weight, p_.grad_products[k], q.width, q.source,
                                      q.diagonal_blocks, tile_rows());
            results_[k] = zeros<T>(call_.N * pitch(q.source));
            if (!source_is_state(p_, k) && g_.grad_weights[k + 1])
                sources_[k] = zeros<T>(steps_ * call_.N * pitch(q.source));
            zero_width_ = max(zero_width_, q.source);
        }
        zeros_ = zeros<T>(pitch(zero_width_));  // at least one number, for gradients that do not exist
    }

    Index tile_rows() const { return units_ ? call_.N : batch_.max_rows(); }

    // Gradients of states start as those of the final states. Initial states are padded rows. Output rows
    // are padded to whole vectors.
    void make_states() {
        state_gradients_ = std::vector<Buffer<T>>(p_.states.size());
        new_state_gradients_ = std::vector<Buffer<T>>(p_.states.size());
        initial_states_ = std::vector<Buffer<T>>(p_.states.size());
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Index w = p_.states[k], ld = pitch(w);
            state_gradients_[k] = zeros<T>(call_.N * ld);
            new_state_gradients_[k] = zeros<T>(call_.N * ld);
            initial_states_[k] = zeros<T>(call_.N * ld);
            for (Index n = 0; n < call_.N; ++n) {
                if (g_.grad_final[k]) copy(state_gradients_[k].data() + n * ld, g_.grad_final[k] + n * w, w);
                if (call_.initial[k]) copy(initial_states_[k].data() + n * ld, call_.initial[k] + n * w, w);
            }
        }
        output_rows_ = zeros<T>(2 * call_.N * pitch(p_.states[0]));
        vector_gradients_ = std::vector<Buffer<T>>(p_.vectors.size());
        for (std::size_t k = 0; k < p_.vectors.size(); ++k)
            vector_gradients_[k] = zeros<T>(call_.N * pitch(p_.vectors[k]));
    }

    enum class Stage { pack, steps, gradients };

    // Where a part stands.
    struct alignas(64) Position {
        InterruptPoller poller;
        Index chunk;      // from the last one to the first; that before begins next
        Index start = 0;  // the first step of the chunk
        Index t = -1;     // before `start`: the chunk has no more steps
        Index rows = 0;   // of the step
        std::size_t phase = 0;
        Stage stage = Stage::pack;
        bool stepping = false, met = false;
    };

    // Part k, up to where it needs results of other parts; false at its end.
    bool sweep(Index k) {
        Position& at = positions_[k];
        if (at.stage == Stage::steps) {
            if (run_steps(at, k)) at.stage = Stage::gradients;
            return !is_cancelled(call_.cancel);
        }
        if (at.stage == Stage::pack) {
            pack_matrices(k);
        } else {
            const Index end = min(call_.T_steps, at.start + steps_);
            parameter_gradients_.add(k, threads_, at.start, end, end == call_.T_steps);
        }
        if (at.chunk == 0 && k == 0) write_initial_gradients();
        if (at.chunk == 0 || is_cancelled(call_.cancel)) return false;
        at.start = --at.chunk * steps_;
        at.t = min(call_.T_steps, at.start + steps_) - 1;
        at.stage = Stage::steps;
        return true;
    }

    void write_initial_gradients() {
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            if (g_.grad_initial[k])
                copy_rows({state_gradients_[k].data(), pitch(p_.states[k]), false}, {0, call_.N, 0, 1},
                          p_.states[k], g_.grad_initial[k], p_.states[k]);
    }

    void pack_matrices(Index part) {
        for (std::size_t k = 0; k < matrices_.size(); ++k)
            divide(matrices_[k], units_, part, threads_,
                   [&](Index a, Index b) { pack_transposed(matrices_[k], call_.products[k].weight, a, b); });
        parameter_gradients_.pack_matrices(part, threads_);
    }

    // Steps of a chunk, up to where part k needs results of other parts; true at the end of the chunk.
    bool run_steps(Position& at, Index k) {
        const Part all = batch_.part(units_, k, threads_);
        for (; at.t >= at.start; --at.t) {
            if (!at.stepping) {
                at.rows = max<Index>(0, min(all.last, call_.size(at.t)) - all.first);
                if (at.poller.cancelled_after(at.rows)) return false;
                if (at.rows == 0) continue;
            }
            if (!step(at, {all.first, all.first + at.rows, all.thread, all.count}, k)) return false;
        }
        return true;
    }

    T* gradient_rows(Index t, Index start) {
        return product_gradients_.data() + (batch_.offset(t) - batch_.offset(start)) * ld_;
    }

    // Part k of a step, from where it stands; false where it needs results of other parts.
    bool step(Position& at, const Part& part, Index k) {
        Interpreter<T>& interpreter = interpreters_[k];
        if (!at.stepping) {
            for (std::size_t s = 0; s < p_.states.size(); ++s) add_output_gradient(part, s, at.t);
            locate_nodes(interpreter, part, at.t, at.start);
            at.phase = 0;
            at.stepping = true;
        }
        T* const rows = gradient_rows(at.t, at.start);
        for (; at.phase < p_.backward_schedule.phases.size(); ++at.phase) {
            const bool reads_other_parts = !p_.backward_schedule.phases[at.phase].products.empty();
            if (reads_other_parts && part.count > 1 && !at.met) {
                at.met = true;
                return false;
            }
            at.met = false;
            run_phase(interpreter, part, at.phase, k, rows);
        }
        finish_step(interpreter, part, at.t, at.start);
        at.stepping = false;
        return true;
    }

    void run_phase(Interpreter<T>& interpreter, const Part& part, std::size_t f, Index k, T* rows) {
        const T** pointers = pointers_.data() + k * call_.N;
        for (int number : p_.backward_schedule.phases[f].products) {
            const int key = p_.nodes[number].index;
            for (Index r = part.first; r < part.last; ++r) pointers[r - part.first] = rows + r * ld_;
            const Index width = p_.products[key].source, ld = pitch(width);
            multiply(pointers, part.last - part.first, matrices_[key],
                     groups_of_thread<T>(width, part.thread, part.count),
                     Target<T>{nullptr, 0, results_[key].data() + part.first * ld, ld, zeros_.data()},
                     workspaces_.part(k * workspace_size_));
        }
        interpreter.run(f, part);
        copy_product_gradients(interpreter, part, f, rows);
    }

    // The gradient of the new state k: from later steps and, for the output, from the caller.
    void add_output_gradient(const Part& part, std::size_t k, Index t) {
        const Index w = p_.states[k], ld = pitch(w);
        const GroupRange range = groups_of_thread<T>(w, part.thread, part.count);
        const Index a = range.first * lanes<T>, b = min(w, range.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n) {
            T* to = new_state_gradients_[k].data() + n * ld;
            const T* later = state_gradients_[k].data() + n * ld;
            if (k > 0 || !g_.grad_output) {
                copy(to + a, later + a, b - a);
                continue;
            }
            read(g_.grad_output, batch_.row(t, n) * w + a, to + a, b - a);
            for (Index u = a; u < b; ++u) to[u] += later[u];
        }
    }

    // Padded rows of the output at t, copied from the caller's array, into the first or second (`half`)
    // half of a buffer.
    NodeRows<T> output_rows(const Part& part, Index t, Index half) {
        const Index w = p_.states[0], ld = pitch(w);
        T* to = output_rows_.data() + half * call_.N * ld;
        const GroupRange range = groups_of_thread<T>(w, part.thread, part.count);
        const Index a = range.first * lanes<T>, b = min(w, range.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n)
            read({call_.output.native, call_.output.half}, batch_.row(t, n) * w + a, to + n * ld + a, b - a);
        return {to, ld, w == 1};
    }

    NodeRows<T> state_before(const Part& part, std::size_t k, Index t) {
        if (t == 0) return {initial_states_[k].data(), pitch(p_.states[k]), p_.states[k] == 1};
        if (k == 0) return output_rows(part, t - 1, 0);
        return saved(t - 1, static_cast<int>(p_.stored.size() + k - 1), p_.states[k]);
    }

    NodeRows<T> saved(Index t, int column, Index width) {
        return {call_.saved + batch_.offset(t) * p_.saved_pitch + p_.saved_columns[column], p_.saved_pitch,
                width == 1};
    }

    void locate_nodes(Interpreter<T>& interpreter, const Part& part, Index t, Index start) {
        for (Index i = 0; i < nodes_.moving_count(); ++i) {
            const int number = nodes_.moving(i);
            const Node& node = p_.nodes[number];
            const bool one = node.width == 1;
            NodeRows<T>& place = interpreter.node(number);
            if (nodes_.saved_column(number) == BackwardNodes<T>::kOutput) place = output_rows(part, t, 1);
            else if (nodes_.saved_column(number) >= 0)
                place = saved(t, nodes_.saved_column(number), node.width);
            else if (nodes_.gradient_column(number) >= 0)
                place = {gradient_rows(t, start) + nodes_.gradient_column(number), ld_, one};
            else if (nodes_.state_gradient_of(number) >= 0)
                place = {state_gradients_[nodes_.state_gradient_of(number)].data(),
                         pitch(p_.states[nodes_.state_gradient_of(number)]), one};
            else if (node.kind == NodeKind::state) place = state_before(part, node.index, t);
            else place = {new_state_gradients_[node.index].data(), pitch(p_.states[node.index]), one};
        }
    }

    // Results of transposed products have the same buffer at every step.
    void locate_products(Interpreter<T>& interpreter) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (node.kind == NodeKind::transposed)
                interpreter.node(static_cast<int>(k)) = {results_[node.index].data(), pitch(node.width),
                                                         node.width == 1};
        }
    }

    void copy_product_gradients(Interpreter<T>& interpreter, const Part& part, std::size_t phase, T* rows) {
        for (std::size_t k = 0; k < p_.product_gradients.size(); ++k) {
            if (nodes_.copied_in_phase(k) != static_cast<Index>(phase)) continue;
            const int node = p_.product_gradients[k];
            copy_rows(interpreter.node(node), part, nodes_.product_gradient_width(node),
                      rows + p_.product_gradient_columns[k], ld_);
        }
    }

    void finish_step(Interpreter<T>& interpreter, const Part& part, Index t, Index start) {
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            if (!sources_[k].count()) continue;
            const Index ld = pitch(p_.products[k].source);
            T* to = sources_[k].data() + (batch_.offset(t) - batch_.offset(start)) * ld;
            copy_rows(interpreter.node(p_.sources[k]), part, p_.products[k].source, to, ld);
        }
        for (std::size_t k = 0; k < p_.vectors.size(); ++k) {
            if (p_.grad_vectors[k] < 0 || !g_.grad_vectors[k]) continue;
            accumulate_rows(interpreter.node(p_.grad_vectors[k]), part, p_.vectors[k],
                            vector_gradients_[k].data());
        }
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Index w = p_.states[k];
            const int node = p_.grad_states[k];
            const NodeRows<T> none{zeros_.data(), 0, true};
            copy_rows(node >= 0 ? interpreter.node(node) : none, part, w, state_gradients_[k].data(),
                      pitch(w));
        }
    }

    void write_vector_gradient(std::size_t k) {
        if (!g_.grad_vectors[k]) return;
        const Index w = p_.vectors[k];
        clear(g_.grad_vectors[k], g_.groups * w);
        for (Index n = 0; n < call_.N; ++n) {
            T* const to = g_.grad_vectors[k] + n % g_.groups * w;
            for (Index u = 0; u < w; ++u) to[u] += vector_gradients_[k][n * pitch(w) + u];
        }
    }

    const Gradients<T>& g_;
    const Call<T>& call_;
    Batch<T> batch_;
    const Program& p_;
    Index threads_;
    bool units_;
    PersistentBuffers<T> persistent_;
    BackwardNodes<T> nodes_;
    Rounds rounds_;
    Buffer<Position> positions_;  // by part
    ParameterGradients<T> parameter_gradients_;
    Index steps_ = 0, ld_ = 0, zero_width_ = 1;
    std::vector<Matrix<T>> matrices_;
    std::vector<Buffer<T>> results_, sources_, state_gradients_, new_state_gradients_, initial_states_,
        vector_gradients_;
    Buffer<T> product_gradients_, output_rows_, zeros_;
    Buffer<T> workspaces_;  // by thread, for products with bfloat16
    Index workspace_size_ = 0;
    Buffer<const T*> pointers_;
    std::vector<Interpreter<T>> interpreters_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
