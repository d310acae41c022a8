// Where the backward sweep computes each node.
#pragma once

#include "kernels/parameter_gradients.h"

namespace unrolled {
namespace UNROLLED_BUILD {

template <class T>
class BackwardNodes {
public:
    static constexpr int kOutput = -2;

    BackwardNodes(const Program& program, PersistentBuffers<T>& persistent)
        : p_(program), persistent_(persistent) {}

    // Plans where each node is computed: gradients of products in a row of product gradients, gradients
    // of states in the buffer of the step before, others in persistent or temporary buffers.
    void plan(Index N, const std::vector<Buffer<T>>& sources) {
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
        find_used(sources);
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
                    persistent_.allocate(i.result, N, p_.nodes[i.result].width);
        moving_ = Buffer<int>(count);
        for (Index k = 0; k < count; ++k) {
            const NodeKind kind = p_.nodes[k].kind;
            const bool moves = saved_column_[k] != -1 || gradient_column_[k] >= 0 ||
                               state_gradient_of_[k] >= 0 || kind == NodeKind::state ||
                               kind == NodeKind::gradient;
            if (moves && used_[k]) moving_[moving_count_++] = static_cast<int>(k);
        }
    }

    int saved_column(int node) const { return saved_column_[node]; }
    Index gradient_column(int node) const { return gradient_column_[node]; }
    int state_gradient_of(int node) const { return state_gradient_of_[node]; }
    Index moving_count() const { return moving_count_; }
    int moving(Index k) const { return moving_[k]; }
    Index copied_in_phase(std::size_t product_gradient) const {
        return copied_in_phase_[static_cast<Index>(product_gradient)];
    }

    Index product_gradient_width(int node) const {
        for (int x : p_.grad_x)
            if (x == node) return p_.x_width;
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            for (int found : p_.grad_products[k])
                if (found == node) return p_.products[k].width;
        return 0;
    }

private:
    // Finds the nodes that this direction reads or computes.
    void find_used(const std::vector<Buffer<T>>& sources) {
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
            if (sources[k].count()) read(p_.sources[k]);
    }

    // Whether backward computes the node at each step.
    bool computed(int node) const {
        if (p_.nodes[node].kind != NodeKind::operation || available(node)) return false;
        return !persistent_.node_rows()[node].base;
    }

    bool available(int node) const { return stored_index(p_, node) >= 0 || new_state_index(p_, node) >= 0; }

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

    const Program& p_;
    PersistentBuffers<T>& persistent_;
    Buffer<Index> gradient_column_;  // by node: its column in a row of product gradients, or -1
    Buffer<int> state_gradient_of_;  // by node: the state whose gradient it is, or -1
    Buffer<int> saved_column_;       // by node: its column in a saved row, kOutput, or -1
    Buffer<bool> used_;              // by node: whether this direction reads or computes it
    Buffer<int> moving_;             // nodes whose location changes from step to step
    Index moving_count_ = 0;
    Buffer<Index> copied_in_phase_;  // by product gradient: the phase that copies it, or -1
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
