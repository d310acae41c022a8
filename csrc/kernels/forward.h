// The sweep forward: inputs projected chunk by chunk, products, program, states.
#pragma once

#include "kernels/batch.h"
#include "kernels/chunks.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Where a sweep finds matrices that were packed before: the input's is number 0, the products' follow.
template <class T>
struct Packs {
    // In panels of so many vectors, for so many threads that share the units.
    virtual const Matrix<T>& matrix(std::size_t number, Index vectors, Index shares) = 0;
};

constexpr Index kProjected = 96;  // tokens whose inputs are projected at once, at most

template <class T>
class Forward {
public:
    // On at most so many threads; with matrices of its own, or those of `packs`. Inputs are projected
    // for at most so many tokens at once: 1 for steps that come one at a time.
    Forward(const Call<T>& call, Index limit, Packs<T>* packs = nullptr, Index ahead = kProjected)
        : batch_(call, limit), call_(call), p_(*call.program),
          threads_(ahead > 1 ? batch_.threads(p_.ahead) : batch_.threads_of_a_step()),
          units_(batch_.by_units(p_.ahead, threads_)), fixtures_(p_, p_.ahead, call),
          barrier_(threads_, call.stop) {
        threads_ = least(threads_, units_ ? blocks() : most<Index>(1, divide_up(call.N, kTall)));
        batch_.share_rows(threads_);
        rows_ = units_ ? call.N : batch_.most_rows();
        steps_ = least(call.T_steps, most<Index>(1, ahead / most<Index>(1, rows_)));
        ldx_ = p_.x_parts * pitch(p_.x_width);
        inputs_ = Buffer<T>((units_ ? 1 : threads_) * steps_ * rows_ * ldx_);
        pointers_ = Buffer<const T*>(threads_ * steps_ * rows_);
        if (call.tokens.brief) lines_ = Buffer<T>(threads_ * steps_ * rows_ * call.I);
        if (call.tokens.brief && call.total <= kFewRows) {
            Index K = call.I;
            for (const Product& q : p_.products) K = most(K, q.source);
            space_ = brief_space<T>(kFewRows, K);
            spaces_ = Buffer<T>(threads_ * space_);
        }
        if (!units_ && threads_ > 1 && ahead > 1) divide_steps();
        make_matrices(packs);
        if (packs_) find_packed(units_ ? threads_ : 1);  // no memory is taken inside a region
        make_states();
        aim();
        machines_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            machines_.emplace_back(p_, p_.ahead);
            machines_[k].adopt(fixtures_.places());
            place_products(machines_[k]);
        }
    }

    void run() {
        together(threads_, [this](Index me, Index count) { sweep(me, count); });
        if (lacks_memory_) out_of_memory();
    }

    void find_packed(Index shares) {
        input_ = &packs_->matrix(0, vectors_for(steps_ * rows_), shares);
        for (std::size_t k = 0; k < matrices_.size(); ++k)
            matrices_[k] = &packs_->matrix(k + 1, vectors_for(rows_), shares);
    }

    // Step t of all sequences: of the call's tokens and to its output as they are now. Whatever the
    // team, the work is that of `threads_` parts, as the matrices were packed.
    void advance(Index t) {
        barrier_.restart();
        together(threads_, [this, t](Index me, Index count) {
            if (count == threads_) return advance(t, me, me + 1);
            if (me == 0) advance(t, 0, threads_);
        });
    }

    // The state before step t.
    Place<T> before(std::size_t k, Index t) {
        if (t > 0) return after(k, t - 1);
        return {states_[k].data(), pitch(p_.states[k]), p_.states[k] == 1};
    }

private:
    // Of the widest part, of which no two threads share one.
    Index blocks() const {
        Index widest = p_.x_width;
        for (const Product& q : p_.products) widest = most(widest, q.width);
        return divide_up(widest, pitch(1));
    }

    void divide_steps() {
        chunks_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            Index steps = call_.T_steps;
            while (steps > 0 && call_.size(steps - 1) <= batch_.part(false, k, threads_).first) --steps;
            chunks_.emplace_back(divide_up(steps, steps_), steps_ * rows_ * ldx_);
        }
    }

    void make_matrices(Packs<T>* packs) {
        packs_ = packs;
        if (!packs_) {
            own_input_ = make_matrix(call_.input.weight, p_.x_parts, p_.x_width, call_.I,
                                     steps_ * rows_, call_.total);
            input_ = &own_input_;
        }
        input_bias_ = zeros<T>(ldx_);
        spread(input_bias_, call_.input.bias, p_.x_parts, p_.x_width);
        own_ = std::vector<Matrix<T>>(packs_ ? 0 : p_.products.size());
        matrices_ = std::vector<const Matrix<T>*>(p_.products.size());
        biases_ = std::vector<Buffer<T>>(p_.products.size());
        results_ = std::vector<Buffer<T>>(p_.products.size());
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            const Product& q = p_.products[k];
            if (!packs_) {
                own_[k] = make_matrix(call_.products[k].weight, q.parts, q.width, q.source, rows_,
                                      call_.total);
                own_[k].onto = p_.onto[k].data();
                matrices_[k] = &own_[k];
            }
            biases_[k] = zeros<T>(q.parts * pitch(q.width));
            spread(biases_[k], call_.products[k].bias, q.parts, q.width);
            // A bias whose product joins an input block does so with it.
            for (int part = 0; part < q.parts; ++part)
                if (const int block = p_.onto[k][part]; block >= 0)
                    for (Index u = 0; u < q.width; ++u)
                        input_bias_[block * pitch(q.width) + u] +=
                            biases_[k][part * pitch(q.width) + u];
            results_[k] = Buffer<T>(call_.N * q.parts * pitch(q.width));
        }
    }

    static void spread(Buffer<T>& to, const T* bias, Index parts, Index width) {
        if (!bias) return;
        for (Index part = 0; part < parts; ++part)
            copy(to.data() + part * pitch(width), bias + part * width, width);
    }

    // Two rows of turns for each state, and one for the start.
    void make_states() {
        states_ = std::vector<Buffer<T>>(p_.states.size());
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Index w = p_.states[k], ld = pitch(w);
            states_[k] = zeros<T>(3 * call_.N * ld);
            if (!call_.initial[k]) continue;
            for (Index n = 0; n < call_.N; ++n)
                copy(states_[k].data() + n * ld, call_.initial[k] + n * w, w);
        }
    }

    // Which computed vectors can be made where they have to go, and which have to be moved there.
    void aim() {
        const std::size_t count = p_.nodes.size();
        aims_ = Buffer<int>(static_cast<Index>(count));
        for (std::size_t k = 0; k < count; ++k) aims_[k] = -1;
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const int node = p_.forward[k];
            if (can_aim(node, p_.states[k]) && aims_[node] < 0) aims_[node] = static_cast<int>(k);
        }
        for (const Phase& phase : p_.ahead.phases)
            for (const Instruction& i : phase.work)
                if (p_.ahead.slot[i.made] < 0 && aims_[i.made] < 0)
                    fixtures_.keep(i.made, call_.N, p_.nodes[i.made].width);
        moving_ = Buffer<int>(static_cast<Index>(count));
        for (std::size_t k = 0; k < count; ++k) {
            const Leaf leaf = p_.nodes[k].leaf;
            if (leaf == Leaf::x || leaf == Leaf::state || p_.gathers[k] >= 0 || aims_[k] >= 0)
                moving_[moves_++] = static_cast<int>(k);
        }
    }

    void place_products(Machine<T>& machine) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (node.leaf != Leaf::product) continue;
            const Product& q = p_.products[node.key];
            machine.place(static_cast<int>(k)) = {
                results_[node.key].data() + node.blocks[0] * pitch(q.width),
                q.parts * pitch(q.width), node.width == 1};
        }
    }

    bool can_aim(int node, Index width) const {
        return p_.nodes[node].op >= 0 && p_.gathers[node] < 0 && p_.nodes[node].width == width &&
               !fixtures_.places()[node].base;
    }

    void pack_own(Index me, Index count) {
        if (packs_) {
            if (me == 0 && units_ && count != threads_) find_packed_for_team(count);
            return;
        }
        if (!own_input_.dot())
            divide(own_input_, units_, me, count,
                   [&](Index a, Index b) { pack(own_input_, call_.input.weight, a, b); });
        for (std::size_t k = 0; k < own_.size(); ++k)
            if (!own_[k].dot())
                divide(own_[k], units_, me, count,
                       [&](Index a, Index b) { pack(own_[k], call_.products[k].weight, a, b); });
    }

    // Fewer threads than were asked for have other shares, whose panels may not be packed yet. No
    // exception leaves a parallel region: it would end the process.
    void find_packed_for_team(Index count) {
        try {
            find_packed(count);
        } catch (...) {
            lacks_memory_ = true;
        }
    }

    Place<T> after(std::size_t k, Index t) {
        const Index ld = pitch(p_.states[k]), turn = call_.N * ld;
        const bool one = p_.states[k] == 1;
        if (k > 0 && call_.saved) return {saved(t, p_.stored.size() + k - 1), p_.saved_pitch, one};
        return {states_[k].data() + (1 + t % 2) * turn, ld, one};
    }

    T* saved(Index t, std::size_t column) const {
        return call_.saved + batch_.offset(t) * p_.saved_pitch + p_.saved_at[column];
    }

    void sweep(Index me, Index count) {
        pack_own(me, count);
        barrier_.wait(me, count);
        if (lacks_memory_) return;
        if (units_) return sweep(batch_.part(true, me, count), me);
        for (Index k = me; k < threads_; k += count) sweep(batch_.part(false, k, threads_), k);
        for (Index k = 1; count > 1 && k < threads_; ++k) help((me + k) % threads_, me);
    }

    void sweep(const Part& part, Index me) {
        keep_ended(part, 0, least(part.last, most(part.first, call_.size(0))));
        Machine<T>& machine = machines_[me];
        const T** pointers = pointers_.data() + me * steps_ * rows_;
        T* const own = room_of(me);
        Watch watch(call_.stop, batch_.work());
        for (Index start = 0; start < call_.T_steps; start += steps_) {
            if (call_.size(start) <= part.first) return;
            const Index end = least(call_.T_steps, start + steps_), chunk = start / steps_;
            const bool helped = !chunks_.empty() && !chunks_[me].claim(chunk);
            T* x = helped ? chunks_[me].wait(chunk, call_.stop) : own;
            if (!x) return;
            if (!helped) project(part, start, end, me, x);
            for (Index t = start; t < end; ++t) {
                const Index n = least(part.last, call_.size(t)) - part.first;
                if (n <= 0 || watch.over(n)) return;
                step(machine, {part.first, part.first + n, part.me, part.count}, t, x, pointers,
                     spaces_.part(me * space_));
                x += n * ldx_;
            }
        }
    }

    // Projects inputs for another's sequences, from the last chunk back until all are claimed.
    void help(Index other, Index me) {
        Chunks<T>& chunks = chunks_[other];
        for (Index c = chunks.count() - 1; c >= chunks.first(); --c) {
            if (is_over(call_.stop) || !chunks.claim(c)) return;
            project(batch_.part(false, other, threads_), c * steps_,
                    least(call_.T_steps, (c + 1) * steps_), me, chunks.buffer(c));
            chunks.publish(c);
        }
    }

    // The input product of the tokens of some steps.
    void project(const Part& part, Index start, Index end, Index me, T* inputs) {
        const T** pointers = pointers_.data() + me * steps_ * rows_;
        T* const lines = lines_.part(me * steps_ * rows_ * call_.I);
        Index count = 0;
        for (Index t = start; t < end; ++t)
            for (Index n = part.first; n < least(part.last, call_.size(t)); ++n, ++count)
                pointers[count] = row_of(call_.tokens, batch_.row(t, n) * call_.I, call_.I, lines,
                                         count, call_.I);
        const Share share = share_units<T>(p_.x_width, part.me, part.count);
        multiply(pointers, count, *input_, share,
                 Target<T>{nullptr, 0, inputs, ldx_, input_bias_.data()}, spaces_.part(me * space_));
    }

    void step(Machine<T>& machine, const Part& part, Index t, T* x, const T** pointers, T* space) {
        place(machine, part, t, x);
        for (std::size_t f = 0; f < p_.ahead.phases.size(); ++f) {
            const bool first = f == 0 && t > 0 && !p_.products.empty();
            if (first || (f > 0 && meets(f))) barrier_.wait(part.me, part.count);
            run_phase(machine, part, f, x, pointers, space);
        }
        finish(machine, part, t);
    }

    // Whether a phase reads what all threads made in those before it.
    bool meets(std::size_t f) const { return !p_.ahead.phases[f].products.empty(); }

    void run_phase(Machine<T>& machine, const Part& part, std::size_t f, T* x, const T** pointers,
                   T* space) {
        for (int key : p_.ahead.phases[f].products) {
            const Place<T>& source = machine.place(p_.products[key].feeds);
            for (Index r = part.first; r < part.last; ++r)
                pointers[r - part.first] = source.row(r);
            const Product& q = p_.products[key];
            const Index ld = q.parts * pitch(q.width);
            const Share share = share_units<T>(q.width, part.me, part.count);
            multiply(pointers, part.last - part.first, *matrices_[key], share,
                     Target<T>{x, ldx_, results_[key].data() + part.first * ld, ld,
                               biases_[key].data()},
                     space);
        }
        machine.run(f, part);
    }

    // Parts [from, to) of step t, phase by phase.
    void advance(Index t, Index from, Index to) {
        for (Index k = from; k < to; ++k) {
            const Part part = batch_.part(units_, k, threads_);
            project(part, t, t + 1, k, room_of(k));
            place(machines_[k], part, t, room_of(k));
        }
        for (std::size_t f = 0; f < p_.ahead.phases.size(); ++f) {
            if (f > 0 && units_ && meets(f)) barrier_.wait(from, to - from == 1 ? threads_ : 1);
            for (Index k = from; k < to; ++k)
                run_phase(machines_[k], batch_.part(units_, k, threads_), f, room_of(k),
                          pointers_.data() + k * steps_ * rows_, spaces_.part(k * space_));
        }
        for (Index k = from; k < to; ++k)
            finish(machines_[k], batch_.part(units_, k, threads_), t);
    }

    // Where part k's projected inputs go.
    T* room_of(Index k) { return inputs_.data() + (units_ ? 0 : k * steps_ * rows_ * ldx_); }

    // Where this step's vectors lie; rows are counted from the batch's first one.
    void place(Machine<T>& machine, const Part& part, Index t, T* x) {
        for (Index k = 0; k < moves_; ++k) {
            const int number = moving_[k];
            const Node& node = p_.nodes[number];
            const int block = node.leaf == Leaf::x ? node.key : p_.gathers[number];
            if (block >= 0) {
                const Index space = pitch(p_.x_width);
                machine.place(number) = {x + block * space - part.first * ldx_, ldx_,
                                         node.width == 1};
            } else if (node.leaf == Leaf::state) {
                machine.place(number) = before(node.key, t);
            } else {
                machine.place(number) = after(aims_[number], t);
            }
        }
        if (!call_.saved) return;
        for (std::size_t k = 0; k < p_.stored.size(); ++k) {
            const int node = p_.stored[k];
            if (can_store(node))
                machine.place(node) = {saved(t, k), p_.saved_pitch, p_.nodes[node].width == 1};
        }
    }

    bool can_store(int node) const {
        return p_.nodes[node].op >= 0 && p_.gathers[node] < 0 && aims_[node] < 0 &&
               p_.ahead.slot[node] < 0 && fixtures_.places()[node].stride > 0;
    }

    // Moves what was not made in its place, hands out the output, and keeps the ends of sequences.
    void finish(Machine<T>& machine, const Part& part, Index t) {
        if (call_.saved)
            for (std::size_t k = 0; k < p_.stored.size(); ++k) {
                const int node = p_.stored[k];
                if (!can_store(node))
                    move_rows(machine.place(node), part, p_.nodes[node].width, saved(t, k),
                              p_.saved_pitch);
            }
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Place<T> to = after(k, t);
            move_rows(machine.place(p_.forward[k]), part, p_.states[k], to.base, to.stride);
            if (k == 0) hand_out(part, t, to);
        }
        const Index next = t + 1 < call_.T_steps ? call_.size(t + 1) : 0;
        keep_ended(part, t + 1, most(part.first, least(part.last, next)));
    }

    void hand_out(const Part& part, Index t, const Place<T>& from) {
        const Index width = p_.states[0];
        const Share share = share_units<T>(width, part.me, part.count);
        const Index a = share.first * lanes<T>, b = least(width, share.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n)
            write(call_.output, batch_.row(t, n) * width + a, from.row(n) + a, b - a);
    }

    // The states of rows from `first` on, which end before step t, are final.
    void keep_ended(const Part& part, Index t, Index first) {
        if (first >= part.last) return;
        const Part ended{first, part.last, part.me, part.count};
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            move_rows(before(k, t), ended, p_.states[k], call_.final[k], p_.states[k]);
    }

    Batch<T> batch_;
    const Call<T>& call_;
    const Program& p_;
    Index threads_;
    bool units_;
    Fixtures<T> fixtures_;
    Barrier barrier_;
    Index rows_ = 0, steps_ = 0, ldx_ = 0;
    Packs<T>* packs_ = nullptr;
    Matrix<T> own_input_;
    std::vector<Matrix<T>> own_;
    const Matrix<T>* input_ = nullptr;
    std::vector<const Matrix<T>*> matrices_;
    std::vector<Buffer<T>> biases_, results_, states_;
    Buffer<T> input_bias_, inputs_, lines_;  // lines: the caller's rows, where they are brief
    std::vector<Chunks<T>> chunks_;  // by thread, where threads share the sequences
    Buffer<T> spaces_;  // by thread, for products with bfloat16
    Index space_ = 0;
    Buffer<const T*> pointers_;
    Buffer<int> aims_;    // by node: the state that it is made as, or -1
    Buffer<int> moving_;  // nodes whose place changes from step to step
    Index moves_ = 0;
    bool lacks_memory_ = false;  // for what the team's first thread packs inside a region
    std::vector<Machine<T>> machines_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
