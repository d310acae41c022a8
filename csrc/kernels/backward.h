// The backward sweep: the derived program, from the last step to the first.
#pragma once

#include "kernels/parameter_gradients.h"

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
          barrier_(threads_, call_.cancel),
          parameter_gradients_(g, batch_) {
        if (!units_) threads_ = min(threads_, max<Index>(1, call_.N / kMinRows));
        batch_.divide_rows(threads_);
        steps_ = min(call_.T_steps, chunk_steps());
        ld_ = p_.product_gradient_pitch + 16;  // an odd number of cache lines: columns are read, too
        product_gradients_ = zeros<T>(steps_ * call_.N * ld_);
        make_matrices();
        make_states();
        plan_nodes();
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
    }

    void run() {
        run_threads(threads_, [this](Index thread, Index count) { sweep(thread, count); });
        for (std::size_t k = 0; k < p_.vectors.size(); ++k) write_vector_gradient(k);
    }

private:
    static constexpr int kOutput = -2;
    static constexpr Index kMaxTokens = 8192;  // of a chunk, with groups

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
                                      tile_rows());
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

    // Plans where each node is computed: gradients of products in a row of product gradients, gradients
    // of states in the buffer of the step before, others in persistent or temporary buffers.
    void plan_nodes() {
        const Index count = static_cast<Index>(p_.nodes.size());
        gradient_column_ = Buffer<Index>(count);
        state_gradient_of_ = Buffer<int>(count);
        saved_column_ = Buffer<int>(count);
        for (Index k = 0; k < count; ++k) {
            gradient_column_[k] = state_gradient_of_[k] = saved_column_[k] = -1;
            const int number = static_cast<int>(k);
            if (const int s = stored_index(p_, number); s >= 0) saved_column_[k] = s;
            else if (const int n = new_state_index(p_, number); n >= 0)
                saved_column_[k] = n == 0 ? kOutput : static_cast<int>(p_.stored.size()) + n - 1;
        }
        find_used();
        for (std::size_t k = 0; k < p_.product_gradients.size(); ++k)
            if (computed(p_.product_gradients[k]))
                gradient_column_[p_.product_gradients[k]] = p_.product_gradient_columns[k];
        find_copied();
        for (std::size_t k = 0; k < p_.states.size(); ++k) {
            const int node = p_.grad_states[k];
            if (node >= 0 && computed(node) && gradient_column_[node] < 0 && state_gradient_of_[node] < 0 &&
                p_.nodes[node].width == p_.states[k])
                state_gradient_of_[node] = static_cast<int>(k);
        }
        for (const Phase& phase : p_.backward_schedule.phases)
            for (const Instruction& i : phase.work)
                if (p_.backward_schedule.slot[i.result] < 0 && gradient_column_[i.result] < 0 &&
                    state_gradient_of_[i.result] < 0)
                    persistent_.allocate(i.result, call_.N, p_.nodes[i.result].width);
        moving_ = Buffer<int>(count);
        for (Index k = 0; k < count; ++k) {
            const NodeKind kind = p_.nodes[k].kind;
            const bool moves = saved_column_[k] != -1 || gradient_column_[k] >= 0 ||
                               state_gradient_of_[k] >= 0 || kind == NodeKind::state ||
                               kind == NodeKind::gradient;
            if (moves && used_[k]) moving_[moving_count_++] = static_cast<int>(k);
        }
    }

    // Finds the nodes that this direction reads or computes.
    void find_used() {
        used_ = Buffer<bool>(static_cast<Index>(p_.nodes.size()));
        for (Index k = 0; k < used_.count(); ++k) used_[k] = false;
        auto read = [&](int node) {
            if (node >= 0) used_[node] = true;
        };
        for (const Phase& phase : p_.backward_schedule.phases)
            for (const Instruction& i : phase.work) {
                read(i.result);
                for (int k = 0; k < i.count; ++k) read(i.args[k]);
            }
        for (int node : p_.product_gradients) read(node);
        for (int node : p_.grad_states) read(node);
        for (int node : p_.grad_vectors) read(node);
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            if (sources_[k].count()) read(p_.sources[k]);
    }

    // Whether backward computes the node at each step.
    bool computed(int node) const {
        if (p_.nodes[node].kind != NodeKind::operation || available(node)) return false;
        return !persistent_.node_rows()[node].base;
    }

    bool available(int node) const { return stored_index(p_, node) >= 0 || new_state_index(p_, node) >= 0; }

    void sweep(Index thread, Index count) {
        pack_matrices(thread, count);
        barrier_.wait(thread, count);
        const Index chunks = divide_up(call_.T_steps, steps_);
        InterruptPoller poller(call_.cancel, batch_.work());
        for (Index c = chunks - 1; c >= 0 && !is_cancelled(call_.cancel); --c) {
            const Index start = c * steps_, end = min(call_.T_steps, start + steps_);
            if (units_) sweep_chunk(batch_.part(true, thread, count), thread, start, end, poller);
            else
                for (Index k = thread; k < threads_; k += count)
                    sweep_chunk(batch_.part(false, k, threads_), k, start, end, poller);
            barrier_.wait(thread, count);
            parameter_gradients_.add(thread, count, start, end, c == chunks - 1);
            barrier_.wait(thread, count);
        }
        if (thread > 0) return;
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            if (g_.grad_initial[k])
                copy_rows({state_gradients_[k].data(), pitch(p_.states[k]), false}, {0, call_.N, 0, 1},
                          p_.states[k], g_.grad_initial[k], p_.states[k]);
    }

    void pack_matrices(Index thread, Index count) {
        for (std::size_t k = 0; k < matrices_.size(); ++k)
            divide(matrices_[k], units_, thread, count,
                   [&](Index a, Index b) { pack_transposed(matrices_[k], call_.products[k].weight, a, b); });
        parameter_gradients_.pack_matrices(thread, count);
    }

    void sweep_chunk(const Part& part, Index thread, Index start, Index end, InterruptPoller& poller) {
        for (Index t = end - 1; t >= start; --t) {
            const Index last = min(part.last, call_.size(t));
            if (poller.cancelled_after(max<Index>(0, last - part.first))) return;
            if (last > part.first || (units_ && call_.size(t) > 0))
                step(interpreters_[thread], {part.first, last, part.thread, part.count}, thread, t, start);
        }
    }

    T* gradient_rows(Index t, Index start) {
        return product_gradients_.data() + (batch_.offset(t) - batch_.offset(start)) * ld_;
    }

    void step(Interpreter<T>& interpreter, const Part& part, Index thread, Index t, Index start) {
        for (std::size_t k = 0; k < p_.states.size(); ++k) add_output_gradient(part, k, t);
        locate_nodes(interpreter, part, t, start);
        const T** pointers = pointers_.data() + thread * call_.N;
        T* const rows = gradient_rows(t, start);
        for (std::size_t f = 0; f < p_.backward_schedule.phases.size(); ++f) {
            const Phase& phase = p_.backward_schedule.phases[f];
            if (!phase.products.empty()) barrier_.wait(part.thread, part.count);
            for (int number : phase.products) {
                const int key = p_.nodes[number].index;
                for (Index r = part.first; r < part.last; ++r) pointers[r - part.first] = rows + r * ld_;
                const Index width = p_.products[key].source, ld = pitch(width);
                multiply(pointers, part.last - part.first, matrices_[key],
                         groups_of_thread<T>(width, part.thread, part.count),
                         Target<T>{nullptr, 0, results_[key].data() + part.first * ld, ld, zeros_.data()},
                         workspaces_.part(thread * workspace_size_));
            }
            interpreter.run(f, part);
            copy_product_gradients(interpreter, part, f, rows);
        }
        finish_step(interpreter, part, t, start);
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
        for (Index i = 0; i < moving_count_; ++i) {
            const int number = moving_[i];
            const Node& node = p_.nodes[number];
            const bool one = node.width == 1;
            NodeRows<T>& place = interpreter.node(number);
            if (saved_column_[number] == kOutput) place = output_rows(part, t, 1);
            else if (saved_column_[number] >= 0) place = saved(t, saved_column_[number], node.width);
            else if (gradient_column_[number] >= 0)
                place = {gradient_rows(t, start) + gradient_column_[number], ld_, one};
            else if (state_gradient_of_[number] >= 0)
                place = {state_gradients_[state_gradient_of_[number]].data(),
                         pitch(p_.states[state_gradient_of_[number]]), one};
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

    // Gradients of products that are not computed in a row of product gradients: a stored vector, the
    // gradient of a new state, the result of a transposed product. Each is copied once a step, by the
    // phase that computes it, since other threads read it in later phases.
    void find_copied() {
        copied_in_phase_ = Buffer<Index>(static_cast<Index>(p_.product_gradients.size()));
        for (Index k = 0; k < copied_in_phase_.count(); ++k)
            copied_in_phase_[k] =
                gradient_column_[p_.product_gradients[k]] < 0 ? phase_of(p_.product_gradients[k]) : -1;
    }

    // The phase that computes a transposed product; 0 for values from before the step.
    Index phase_of(int node) const {
        for (std::size_t f = 0; f < p_.backward_schedule.phases.size(); ++f)
            for (int number : p_.backward_schedule.phases[f].products)
                if (number == node) return static_cast<Index>(f);
        return 0;
    }

    void copy_product_gradients(Interpreter<T>& interpreter, const Part& part, std::size_t phase, T* rows) {
        for (std::size_t k = 0; k < p_.product_gradients.size(); ++k) {
            if (copied_in_phase_[k] != static_cast<Index>(phase)) continue;
            const int node = p_.product_gradients[k];
            copy_rows(interpreter.node(node), part, product_gradient_width(node),
                      rows + p_.product_gradient_columns[k], ld_);
        }
    }

    Index product_gradient_width(int node) const {
        for (int x : p_.grad_x)
            if (x == node) return p_.x_width;
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            for (int found : p_.grad_products[k])
                if (found == node) return p_.products[k].width;
        return 0;
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
    Barrier barrier_;
    ParameterGradients<T> parameter_gradients_;
    Index steps_ = 0, ld_ = 0, zero_width_ = 1;
    std::vector<Matrix<T>> matrices_;
    std::vector<Buffer<T>> results_, sources_, state_gradients_, new_state_gradients_, initial_states_,
        vector_gradients_;
    Buffer<T> product_gradients_, output_rows_, zeros_;
    Buffer<T> workspaces_;  // by thread, for products with bfloat16
    Index workspace_size_ = 0;
    Buffer<const T*> pointers_;
    Buffer<Index> gradient_column_;  // by node: its column in a row of product gradients, or -1
    Buffer<int> state_gradient_of_;  // by node: the state whose gradient it is, or -1
    Buffer<int> saved_column_;       // by node: its column in a saved row, kOutput, or -1
    Buffer<bool> used_;              // by node: whether this direction reads or computes it
    Buffer<int> moving_;             // nodes whose location changes from step to step
    Index moving_count_ = 0;
    Buffer<Index> copied_in_phase_;  // by product gradient: the phase that copies it, or -1
    std::vector<Interpreter<T>> interpreters_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
