// The sweep backward: the derived program from the last step to the first.
#pragma once

#include "kernels/parameter_gradients.h"

namespace unrolled {
namespace UNROLLED_BUILD {

template <class T>
class Backward {
public:
    // On at most so many threads.
    Backward(const Gradients<T>& g, Index limit)
        : g_(g), call_(*g.call), batch_(call_, limit), p_(*call_.program),
          threads_(batch_.threads(p_.back)), units_(batch_.by_units(p_.back, threads_)),
          fixtures_(p_, p_.back, call_), barrier_(threads_, call_.stop), token_sums_(g, batch_) {
        if (!units_) threads_ = least(threads_, most<Index>(1, divide_up(call_.N, kTall)));
        batch_.share_rows(threads_);
        steps_ = least(call_.T_steps, chunk_steps());
        ld_ = p_.slope_pitch + 16;  // odd in cache lines: columns of slopes are read, too
        slopes_ = zeros<T>(steps_ * call_.N * ld_);
        make_matrices();
        make_states();
        aim();
        token_sums_.begin(threads_, steps_, slopes_.data(), ld_, starts_, sources_);
        pointers_ = Buffer<const T*>(threads_ * call_.N);
        machines_.reserve(threads_);
        for (Index k = 0; k < threads_; ++k) {
            machines_.emplace_back(p_, p_.back);
            machines_[k].adopt(fixtures_.places());
            place_products(machines_[k]);
        }
    }

    void run() {
        together(threads_, [this](Index me, Index count) { sweep(me, count); });
        for (std::size_t k = 0; k < p_.vectors.size(); ++k) sum_vector(k);
    }

private:
    static constexpr int kOutput = -2;
    static constexpr Index kMostTokens = 8192;  // of a chunk that is summed group by group

    // Steps of a chunk: each group shall have a chunk's worth of tokens in it.
    Index chunk_steps() const {
        const Index N = most<Index>(1, call_.N), one = most<Index>(1, kChunk / N);
        if (g_.groups == 1) return one;
        const Index own = kChunk / most<Index>(1, N / g_.groups);
        return most(one, least(own, kMostTokens / N));
    }

    void make_matrices() {
        matrices_ = std::vector<Matrix<T>>(p_.products.size());
        results_ = std::vector<Buffer<T>>(p_.products.size());
        sources_ = std::vector<Buffer<T>>(p_.products.size());
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            const Product& q = p_.products[k];
            matrices_[k] = transposed(p_, call_.products[k].weight, p_.grad_products[k], q.width,
                                      q.source, tile_rows(), call_.total);
            results_[k] = zeros<T>(call_.N * pitch(q.source));
            if (!source_is_state(p_, k) && g_.grad_weights[k + 1])
                sources_[k] = zeros<T>(steps_ * call_.N * pitch(q.source));
            zero_width_ = most(zero_width_, q.source);
        }
        zeros_ = zeros<T>(pitch(zero_width_));  // one number at least: a gradient that is not there
    }

    Index tile_rows() const {
        return units_ ? call_.N : batch_.most_rows();
    }

    // Gradients that come from later steps start as those of the ends; starts are rows of zeros or
    // the states given; the output's rows get room for whole vectors where theirs end between two.
    void make_states() {
        later_ = std::vector<Buffer<T>>(p_.states.size());
        seeds_ = std::vector<Buffer<T>>(p_.states.size());
        starts_ = std::vector<Buffer<T>>(p_.states.size());
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Index w = p_.states[k], ld = pitch(w);
            later_[k] = zeros<T>(call_.N * ld);
            seeds_[k] = zeros<T>(call_.N * ld);
            starts_[k] = zeros<T>(call_.N * ld);
            for (Index n = 0; n < call_.N; ++n) {
                if (g_.grad_final[k])
                    copy(later_[k].data() + n * ld, g_.grad_final[k] + n * w, w);
                if (call_.initial[k])
                    copy(starts_[k].data() + n * ld, call_.initial[k] + n * w, w);
            }
        }
        outputs_ = zeros<T>(2 * call_.N * pitch(p_.states[0]));
        sums_ = std::vector<Buffer<T>>(p_.vectors.size());
        for (std::size_t k = 0; k < p_.vectors.size(); ++k)
            sums_[k] = zeros<T>(call_.N * pitch(p_.vectors[k]));
    }

    // Slopes are made where products read them, gradients of states where the next step does.
    void aim() {
        const Index count = static_cast<Index>(p_.nodes.size());
        slope_ = Buffer<Index>(count);
        state_ = Buffer<int>(count);
        given_ = Buffer<int>(count);
        for (Index k = 0; k < count; ++k) {
            slope_[k] = state_[k] = given_[k] = -1;
            const int number = static_cast<int>(k);
            if (const int s = stored_at(p_, number); s >= 0) given_[k] = s;
            else if (const int n = new_state(p_, number); n >= 0)
                given_[k] = n == 0 ? kOutput : static_cast<int>(p_.stored.size()) + n - 1;
        }
        find_read();
        for (std::size_t k = 0; k < p_.slopes.size(); ++k)
            if (made(p_.slopes[k])) slope_[p_.slopes[k]] = p_.slope_at[k];
        find_moved();
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const int node = p_.grad_states[k];
            if (node >= 0 && made(node) && slope_[node] < 0 && state_[node] < 0 &&
                p_.nodes[node].width == p_.states[k])
                state_[node] = static_cast<int>(k);
        }
        for (const Phase& phase : p_.back.phases)
            for (const Instruction& i : phase.work)
                if (p_.back.slot[i.made] < 0 && slope_[i.made] < 0 && state_[i.made] < 0)
                    fixtures_.keep(i.made, call_.N, p_.nodes[i.made].width);
        moving_ = Buffer<int>(count);
        for (Index k = 0; k < count; ++k) {
            const Leaf leaf = p_.nodes[k].leaf;
            const bool moves = given_[k] != -1 || slope_[k] >= 0 || state_[k] >= 0 ||
                               leaf == Leaf::state || leaf == Leaf::grad;
            if (moves && read_[k]) moving_[moves_++] = static_cast<int>(k);
        }
    }

    // The nodes that this direction reads or makes.
    void find_read() {
        read_ = Buffer<bool>(static_cast<Index>(p_.nodes.size()));
        for (Index k = 0; k < read_.count(); ++k) read_[k] = false;
        auto read = [&](int node) {
            if (node >= 0) read_[node] = true;
        };
        for (const Phase& phase : p_.back.phases)
            for (const Instruction& i : phase.work) {
                read(i.made);
                for (int k = 0; k < i.count; ++k) read(i.args[k]);
            }
        for (int node : p_.slopes) read(node);
        for (int node : p_.grad_states) read(node);
        for (int node : p_.grad_vectors) read(node);
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            if (sources_[k].count()) read(p_.sources[k]);
    }

    // Whether a node is computed step by step here.
    bool made(int node) const {
        if (p_.nodes[node].op < 0 || given(node)) return false;
        return !fixtures_.places()[node].base;
    }

    bool given(int node) const { return stored_at(p_, node) >= 0 || new_state(p_, node) >= 0; }

    void sweep(Index me, Index count) {
        pack_own(me, count);
        barrier_.wait(me, count);
        const Index chunks = divide_up(call_.T_steps, steps_);
        Watch watch(call_.stop, batch_.work());
        for (Index c = chunks - 1; c >= 0 && !is_over(call_.stop); --c) {
            const Index start = c * steps_, end = least(call_.T_steps, start + steps_);
            if (units_) sweep_chunk(batch_.part(true, me, count), me, start, end, watch);
            else
                for (Index k = me; k < threads_; k += count)
                    sweep_chunk(batch_.part(false, k, threads_), k, start, end, watch);
            barrier_.wait(me, count);
            token_sums_.add(me, count, start, end, c == chunks - 1);
            barrier_.wait(me, count);
        }
        if (me > 0) return;
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            if (g_.grad_initial[k])
                move_rows({later_[k].data(), pitch(p_.states[k]), false}, {0, call_.N, 0, 1},
                          p_.states[k], g_.grad_initial[k], p_.states[k]);
    }

    void pack_own(Index me, Index count) {
        for (std::size_t k = 0; k < matrices_.size(); ++k)
            divide(matrices_[k], units_, me, count, [&](Index a, Index b) {
                pack_transposed(matrices_[k], call_.products[k].weight, a, b);
            });
        token_sums_.pack_own(me, count);
    }

    void sweep_chunk(const Part& part, Index me, Index start, Index end, Watch& watch) {
        for (Index t = end - 1; t >= start; --t) {
            const Index last = least(part.last, call_.size(t));
            if (watch.over(most<Index>(0, last - part.first))) return;
            if (last > part.first || (units_ && call_.size(t) > 0))
                step(machines_[me], {part.first, last, part.me, part.count}, me, t, start);
        }
    }

    T* slopes(Index t, Index start) {
        return slopes_.data() + (batch_.offset(t) - batch_.offset(start)) * ld_;
    }

    void step(Machine<T>& machine, const Part& part, Index me, Index t, Index start) {
        for (std::size_t k = 0; k < p_.states.size(); ++k) seed(part, k, t);
        place(machine, part, t, start);
        const T** pointers = pointers_.data() + me * call_.N;
        T* const rows = slopes(t, start);
        for (std::size_t f = 0; f < p_.back.phases.size(); ++f) {
            const Phase& phase = p_.back.phases[f];
            if (!phase.products.empty()) barrier_.wait(part.me, part.count);
            for (int number : phase.products) {
                const int key = p_.nodes[number].key;
                for (Index r = part.first; r < part.last; ++r)
                    pointers[r - part.first] = rows + r * ld_;
                const Index width = p_.products[key].source, ld = pitch(width);
                multiply(pointers, part.last - part.first, matrices_[key],
                         share_units<T>(width, part.me, part.count),
                         Target<T>{nullptr, 0, results_[key].data() + part.first * ld, ld,
                                   zeros_.data()});
            }
            machine.run(f, part);
            move_slopes(machine, part, f, rows);
        }
        finish(machine, part, t, start);
    }

    // The gradient of a new state: what later steps and, for the output, the caller have to say.
    void seed(const Part& part, std::size_t k, Index t) {
        const Index w = p_.states[k], ld = pitch(w);
        const Share share = share_units<T>(w, part.me, part.count);
        const Index a = share.first * lanes<T>, b = least(w, share.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n) {
            T* to = seeds_[k].data() + n * ld;
            const T* later = later_[k].data() + n * ld;
            if (k > 0 || !g_.grad_output) {
                copy(to + a, later + a, b - a);
                continue;
            }
            read(g_.grad_output, batch_.row(t, n) * w + a, to + a, b - a);
            for (Index u = a; u < b; ++u) to[u] += later[u];
        }
    }

    // Rows of the output state at t, with room for whole vectors. Rows may lie anywhere, so they
    // are brought together; `turn` says into which of two places.
    Place<T> output_rows(const Part& part, Index t, Index turn) {
        const Index w = p_.states[0], ld = pitch(w);
        T* to = outputs_.data() + turn * call_.N * ld;
        const Share share = share_units<T>(w, part.me, part.count);
        const Index a = share.first * lanes<T>, b = least(w, share.last * lanes<T>);
        for (Index n = part.first; n < part.last; ++n)
            read({call_.output.own, call_.output.brief}, batch_.row(t, n) * w + a, to + n * ld + a,
                 b - a);
        return {to, ld, w == 1};
    }

    Place<T> state_before(const Part& part, std::size_t k, Index t) {
        if (t == 0) return {starts_[k].data(), pitch(p_.states[k]), p_.states[k] == 1};
        if (k == 0) return output_rows(part, t - 1, 0);
        return saved(t - 1, static_cast<int>(p_.stored.size() + k - 1), p_.states[k]);
    }

    Place<T> saved(Index t, int column, Index width) {
        return {call_.saved + batch_.offset(t) * p_.saved_pitch + p_.saved_at[column],
                p_.saved_pitch, width == 1};
    }

    void place(Machine<T>& machine, const Part& part, Index t, Index start) {
        for (Index i = 0; i < moves_; ++i) {
            const int number = moving_[i];
            const Node& node = p_.nodes[number];
            const bool one = node.width == 1;
            Place<T>& place = machine.place(number);
            if (given_[number] == kOutput) place = output_rows(part, t, 1);
            else if (given_[number] >= 0) place = saved(t, given_[number], node.width);
            else if (slope_[number] >= 0) place = {slopes(t, start) + slope_[number], ld_, one};
            else if (state_[number] >= 0)
                place = {later_[state_[number]].data(), pitch(p_.states[state_[number]]), one};
            else if (node.leaf == Leaf::state) place = state_before(part, node.key, t);
            else place = {seeds_[node.key].data(), pitch(p_.states[node.key]), one};
        }
    }

    // Results of transposed products lie where they are made, whatever the step.
    void place_products(Machine<T>& machine) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (node.leaf == Leaf::transposed)
                machine.place(static_cast<int>(k)) = {results_[node.key].data(), pitch(node.width),
                                                      node.width == 1};
        }
    }

    // Gradients of products that are not computed in their row of slopes: a stored vector, the
    // gradient of a new state, the result of a transposed product. Each is copied once a step, by the
    // phase that makes it: other threads read it in the phases behind that one.
    void find_moved() {
        moved_in_ = Buffer<Index>(static_cast<Index>(p_.slopes.size()));
        for (Index k = 0; k < moved_in_.count(); ++k)
            moved_in_[k] = slope_[p_.slopes[k]] < 0 ? phase_of(p_.slopes[k]) : -1;
    }

    // The phase that makes the result of a transposed product; 0 for what is there before a step.
    Index phase_of(int node) const {
        for (std::size_t f = 0; f < p_.back.phases.size(); ++f)
            for (int number : p_.back.phases[f].products)
                if (number == node) return static_cast<Index>(f);
        return 0;
    }

    void move_slopes(Machine<T>& machine, const Part& part, std::size_t phase, T* rows) {
        for (std::size_t k = 0; k < p_.slopes.size(); ++k) {
            if (moved_in_[k] != static_cast<Index>(phase)) continue;
            const int node = p_.slopes[k];
            move_rows(machine.place(node), part, slope_width(node), rows + p_.slope_at[k], ld_);
        }
    }

    Index slope_width(int node) const {
        for (int x : p_.grad_x)
            if (x == node) return p_.x_width;
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            for (int found : p_.grad_products[k])
                if (found == node) return p_.products[k].width;
        return 0;
    }

    void finish(Machine<T>& machine, const Part& part, Index t, Index start) {
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            if (!sources_[k].count()) continue;
            const Index ld = pitch(p_.products[k].source);
            T* to = sources_[k].data() + (batch_.offset(t) - batch_.offset(start)) * ld;
            move_rows(machine.place(p_.sources[k]), part, p_.products[k].source, to, ld);
        }
        for (std::size_t k = 0; k < p_.vectors.size(); ++k) {
            if (p_.grad_vectors[k] < 0 || !g_.grad_vectors[k]) continue;
            add_rows(machine.place(p_.grad_vectors[k]), part, p_.vectors[k], sums_[k].data());
        }
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const Index w = p_.states[k];
            const int node = p_.grad_states[k];
            const Place<T> none{zeros_.data(), 0, true};
            move_rows(node >= 0 ? machine.place(node) : none, part, w, later_[k].data(), pitch(w));
        }
    }

    static void add_rows(const Place<T>& from, const Part& part, Index width, T* to) {
        const Share share = share_units<T>(width, part.me, part.count);
        const Index a = share.first * lanes<T>, b = least(width, share.last * lanes<T>);
        for (Index r = part.first; r < part.last; ++r) {
            const T* p = from.row(r);
            T* out = to + r * pitch(width);
            for (Index u = a; u < b; ++u) out[u] += from.one ? *p : p[u];
        }
    }

    void sum_vector(std::size_t k) {
        if (!g_.grad_vectors[k]) return;
        const Index w = p_.vectors[k];
        clear(g_.grad_vectors[k], g_.groups * w);
        for (Index n = 0; n < call_.N; ++n) {
            T* const to = g_.grad_vectors[k] + n % g_.groups * w;
            for (Index u = 0; u < w; ++u) to[u] += sums_[k][n * pitch(w) + u];
        }
    }

    const Gradients<T>& g_;
    const Call<T>& call_;
    Batch<T> batch_;
    const Program& p_;
    Index threads_;
    bool units_;
    Fixtures<T> fixtures_;
    Barrier barrier_;
    TokenSums<T> token_sums_;
    Index steps_ = 0, ld_ = 0, zero_width_ = 1;
    std::vector<Matrix<T>> matrices_;
    std::vector<Buffer<T>> results_, sources_, later_, seeds_, starts_, sums_;
    Buffer<T> slopes_, outputs_, zeros_;
    Buffer<const T*> pointers_;
    Buffer<Index> slope_;  // by node: its column in a row of slopes, if it is made there
    Buffer<int> state_;    // the state whose gradient it is made as
    Buffer<int> given_;    // its column among the saved vectors, or kOutput
    Buffer<bool> read_;    // whether this direction reads or makes it
    Buffer<int> moving_;   // nodes whose place changes from step to step
    Index moves_ = 0;
    Buffer<Index> moved_in_;  // by gradient of a product: the phase that it is copied in, or -1
    std::vector<Machine<T>> machines_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
