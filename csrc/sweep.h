// The sweep over time: products, programs, states. One object a thread; threads share no writes.
#pragma once

#include <algorithm>

#include "gemm.h"
#include "interp.h"
#include "schedule.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// What one direction of a program needs of memory and order, for rows that one thread owns.
template <class T>
class Machine {
public:
    Machine(const Program& program, const Schedule& schedule, Index rows,
            const std::vector<int>& outputs)
        : program_(program), schedule_(schedule), outputs_(outputs), places_(program.nodes.size()) {
        const Index H = std::max<Index>(1, widest());
        chunk_ = schedule.whole_rows ? H : std::min<Index>(H, 256);
        for (const Phase& phase : schedule.phases) {
            instructions_.emplace_back();
            for (int node : phase.pointwise) prepare(node, instructions_.back(), rows);
        }
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const Node& node = program.nodes[k];
            if (node.leaf != Leaf::constant && node.leaf != Leaf::size) continue;
            numbers_.emplace_back(1);
            *numbers_.back().data() = static_cast<T>(node.value);
            places_[k] = {numbers_.back().data(), 0, true};
        }
    }

    Place<T>& place(int node) { return places_[node]; }

    // Lets a computed node be made where it has to go, rather than copied there.
    void aim(int node, Index width, T* to, Index stride) {
        const bool computed = program_.nodes[node].op >= 0;
        if (computed && program_.nodes[node].width == width && width > 1)
            places_[node] = {to, stride, false};
    }

    // Pointwise work of one phase on rows [0, rows).
    void run(std::size_t phase, Index rows) {
        const auto& list = instructions_[phase];
        if (list.empty()) return;
        const Index H = widest();
        for (Index r = 0; r < rows; ++r)
            for (Index u = 0; u == 0 || u < H; u += chunk_)
                for (const Instruction& i : list) step(i, r, u);
    }

private:
    Index widest() const {
        Index w = 1;
        for (const Node& node : program_.nodes) w = std::max(w, node.width);
        return w;
    }

    // A node lives in a row of its own; those of one tile stay in the first cache.
    void prepare(int number, std::vector<Instruction>& list, Index rows) {
        const Node& node = program_.nodes[number];
        Instruction made{node.op, number, {0, 0, 0}, static_cast<int>(node.args.size())};
        for (int k = 0; k < made.count; ++k) made.args[k] = node.args[k];
        list.push_back(made);
        const bool lasting = crosses(number);
        scratch_.emplace_back((lasting ? rows : 1) * node.width + lanes<T>);
        places_[number] = {scratch_.back().data(), lasting ? node.width : 0, node.width == 1};
    }

    // Whether something outside of this node's own tile reads it: another phase, or an output.
    bool crosses(int number) const {
        return schedule_.phases.size() > 1 ||
               std::find(outputs_.begin(), outputs_.end(), number) != outputs_.end();
    }

    void step(const Instruction& i, Index r, Index u) {
        const Node& node = program_.nodes[i.made];
        const Place<T>& to = places_[i.made];
        if (i.op >= 26) {
            const int arg = i.args[0];
            const Index w = program_.nodes[arg].width;
            *to.at(r, 0) = reduce(places_[arg].at(r, 0), w, i.op == 26);
            return;
        }
        const Index left = node.width - u;
        if (left <= 0) return;
        Operand<T> a[3];
        for (int k = 0; k < i.count; ++k) {
            const Place<T>& from = places_[i.args[k]];
            a[k].p = from.at(r, u);
            a[k].shared = from.shared;
            if (from.shared) a[k].one = fill(*a[k].p);
        }
        execute_tile<T>(i.op, to.at(r, u), a, i.count, std::min(left, chunk_));
    }

    const Program& program_;
    const Schedule& schedule_;
    std::vector<int> outputs_;
    std::vector<Place<T>> places_;
    std::vector<std::vector<Instruction>> instructions_;
    std::vector<Buffer<T>> scratch_, numbers_;
    Index chunk_;
};

// Copies a node's values to rows of memory; a shared value fills the row.
template <class T>
void write_rows(const Place<T>& from, Index rows, Index width, T* to, Index stride) {
    if (from.base == to) return;
    for (Index r = 0; r < rows; ++r) {
        const T* p = from.at(r, 0);
        if (from.shared) std::fill(to + r * stride, to + r * stride + width, *p);
        else copy(to + r * stride, p, width);
    }
}

// Offsets of steps, and the weights packed once for all threads.
template <class T>
struct Shared {
    const Call<T>& call;
    std::vector<Index> offset;
    Packed<T> input;
    Buffer<T> input_bias;
    std::vector<Packed<T>> products;
    std::vector<Buffer<T>> biases;
    bool has_input_bias;

    explicit Shared(const Call<T>& c) : call(c), offset(c.T_steps + 1, 0) {
        for (Index t = 0; t < c.T_steps; ++t) offset[t + 1] = offset[t] + c.sizes[t];
    }

    void pack_forward() {
        const Program& p = *call.program;
        const Index M = p.x_parts * p.x_width;
        input = pack(call.input.weight, M, call.I);
        has_input_bias = call.input.bias != nullptr;
        input_bias = padded(call.input.bias, M, input.padded());
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Index rows = p.products[k].parts * p.products[k].width;
            products.push_back(pack(call.products[k].weight, rows, p.products[k].source));
            biases.push_back(padded(call.products[k].bias, rows, products.back().padded()));
        }
    }

    void pack_backward() {
        const Program& p = *call.program;
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Index rows = p.products[k].parts * p.products[k].width;
            products.push_back(
                pack_transposed(call.products[k].weight, rows, p.products[k].source));
        }
    }

    static Buffer<T> padded(const T* bias, Index count, Index room) {
        Buffer<T> out(room);
        std::fill(out.data(), out.data() + room, T(0));
        if (bias) copy(out.data(), bias, count);
        return out;
    }
};

// Forward over the rows [r0, r1) of every step.
template <class T>
void forward_rows(const Shared<T>& shared, const Schedule& schedule, Index r0, Index r1) {
    const Call<T>& call = shared.call;
    const Program& p = *call.program;
    const Index N = r1 - r0, S = static_cast<Index>(p.states.size());
    std::vector<int> outputs = p.forward;
    outputs.insert(outputs.end(), p.stored.begin(), p.stored.end());
    Machine<T> machine(p, schedule, N, outputs);
    const Index ldx = shared.input.padded();
    const Index steps = std::max<Index>(1, 96 / std::max<Index>(1, N));
    Buffer<T> x(steps * N * ldx);
    std::vector<Buffer<T>> results;
    for (const auto& packed : shared.products) results.emplace_back(N * packed.padded());
    std::vector<Buffer<T>> turns;  // states without a history: two rows of turns each
    std::vector<const T*> before(S);
    for (Index k = 0; k < S; ++k) {
        before[k] = call.initial[k] + r0 * p.states[k];
        turns.emplace_back(2 * N * p.states[k]);
        copy(call.final[k] + r0 * p.states[k], before[k], N * p.states[k]);
    }
    for (std::size_t k = 0; k < p.nodes.size(); ++k)
        if (p.nodes[k].leaf == Leaf::vector)
            machine.place(static_cast<int>(k)) = {const_cast<T*>(call.vectors[p.nodes[k].key]), 0,
                                                  p.nodes[k].width == 1};
    std::vector<const T*> rows;
    Index from = 0;  // first row of x that belongs to step t
    for (Index t = 0; t < call.T_steps; ++t) {
        const Index n = std::min(r1, call.sizes[t]) - r0;
        if (n <= 0) break;
        if (t % steps == 0) {
            rows.clear();
            for (Index s = t; s < std::min(t + steps, call.T_steps); ++s)
                for (Index r = r0; r < std::min(r1, call.sizes[s]); ++r)
                    rows.push_back(call.tokens + (shared.offset[s] + r) * call.I);
            multiply(rows.data(), static_cast<Index>(rows.size()), shared.input,
                     shared.has_input_bias ? shared.input_bias.data() : nullptr, x.data(), ldx);
            from = 0;
        }
        for (std::size_t k = 0; k < p.nodes.size(); ++k) {
            const Node& node = p.nodes[k];
            Place<T>& place = machine.place(static_cast<int>(k));
            if (node.leaf == Leaf::x)
                place = {x.data() + from * ldx + node.key * p.x_width, ldx, node.width == 1};
            else if (node.leaf == Leaf::state)
                place = {const_cast<T*>(before[node.key]), p.states[node.key], node.width == 1};
            else if (node.leaf == Leaf::product)
                place = {results[node.key].data() + node.blocks[0] * node.width,
                         shared.products[node.key].padded(), node.width == 1};
        }
        from += n;
        const Index at = shared.offset[t] + r0;
        for (std::size_t k = 0; k < call.stored.size(); ++k) {
            const Index w = p.nodes[p.stored[k]].width;
            machine.aim(p.stored[k], w, call.stored[k] + at * w, w);
        }
        std::vector<T*> after(S);
        for (Index k = 0; k < S; ++k) {
            const Index w = p.states[k];
            after[k] = call.history[k] ? call.history[k] + at * w
                                       : turns[k].data() + (t % 2) * N * w;
            machine.aim(p.forward[k], w, after[k], w);
        }
        for (std::size_t f = 0; f < schedule.phases.size(); ++f) {
            for (int key : schedule.phases[f].products) {
                const Place<T>& source = machine.place(p.products[key].feeds);
                rows.resize(n);
                for (Index r = 0; r < n; ++r) rows[r] = source.at(r, 0);
                multiply(rows.data(), n, shared.products[key],
                         call.products[key].bias ? shared.biases[key].data() : nullptr,
                         results[key].data(), shared.products[key].padded());
            }
            machine.run(f, n);
        }
        for (std::size_t k = 0; k < call.stored.size(); ++k) {
            const Index w = p.nodes[p.stored[k]].width;
            write_rows(machine.place(p.stored[k]), n, w, call.stored[k] + at * w, w);
        }
        const Index next = t + 1 < call.T_steps ? std::min(r1, call.sizes[t + 1]) - r0 : 0;
        const Index stay = std::max<Index>(next, 0);
        for (Index k = 0; k < S; ++k) {
            const Index w = p.states[k];
            write_rows(machine.place(p.forward[k]), n, w, after[k], w);
            copy(call.final[k] + (r0 + stay) * w, after[k] + stay * w,
                        (n - stay) * w);
            before[k] = after[k];
        }
    }
}

// All nodes that backward has to deliver.
inline std::vector<int> outputs_of(const Program& p) {
    std::vector<int> found = p.grad_x;
    for (const auto& list : p.grad_products) found.insert(found.end(), list.begin(), list.end());
    for (const auto* list : {&p.grad_states, &p.grad_vectors, &p.sources})
        found.insert(found.end(), list->begin(), list->end());
    return found;
}

// The gradient of a new state: what later steps and, for the output, the caller have to say.
template <class T>
void seed(const Gradients<T>& g, Index k, Index n, Index at, Index r0, T* to) {
    const Index w = g.call->program->states[k];
    const T* later = g.grad_initial[k] + r0 * w;
    const T* direct = g.grad_output + at * w;
    for (Index i = 0; i < n * w; ++i) to[i] = k == 0 ? later[i] + direct[i] : later[i];
}

// Where backward finds stored vectors, states before and after, and gradients.
template <class T>
void place_inputs(const Gradients<T>& g, const Shared<T>& shared, Machine<T>& machine, Index t,
                  Index at, Index r0, std::vector<Buffer<T>>& seeds,
                  std::vector<Buffer<T>>& results) {
    const Call<T>& call = *g.call;
    const Program& p = *call.program;
    for (std::size_t i = 0; i < p.nodes.size(); ++i) {
        const int number = static_cast<int>(i);
        const Node& node = p.nodes[i];
        Place<T>& place = machine.place(number);
        const bool one = node.width == 1;
        const Index w = node.width;
        if (const int k = new_state(p, number); k >= 0)
            place = {call.history[k] + at * w, w, one};
        else if (const int s = stored_at(p, number); s >= 0)
            place = {call.stored[s] + at * w, w, one};
        else if (node.leaf == Leaf::state) {
            const Index width = p.states[node.key];
            const T* before = t == 0 ? call.initial[node.key] + r0 * width
                                     : call.history[node.key] + (shared.offset[t - 1] + r0) * width;
            place = {const_cast<T*>(before), width, one};
        } else if (node.leaf == Leaf::grad)
            place = {seeds[node.key].data(), p.states[node.key], one};
        else if (node.leaf == Leaf::vector)
            place = {const_cast<T*>(call.vectors[node.key]), 0, one};
        else if (node.leaf == Leaf::transposed)
            place = {results[i].data(), shared.products[node.key].padded(), one};
    }
}

// A node that is there already (stored, or a state) must stay where it is.
inline bool free_to_aim(const Program& p, int node) {
    return stored_at(p, node) < 0 && new_state(p, node) < 0;
}

// Gradients of products are made where weight gradients read them.
template <class T>
void aim_gradients(const Gradients<T>& g, Machine<T>& machine, Index at) {
    const Program& p = *g.call->program;
    for (std::size_t k = 0; k < p.products.size(); ++k) {
        const Index w = p.products[k].width, all = p.products[k].parts * w;
        for (int part = 0; part < p.products[k].parts; ++part) {
            const int node = p.grad_products[k][part];
            if (node >= 0 && free_to_aim(p, node))
                machine.aim(node, w, g.grad_products[k] + at * all + part * w, all);
        }
    }
}

template <class T>
void write_product(const Gradients<T>& g, Machine<T>& machine, int key, Index n, Index at) {
    const Program& p = *g.call->program;
    const Index w = p.products[key].width, all = p.products[key].parts * w;
    for (int part = 0; part < p.products[key].parts; ++part) {
        T* to = g.grad_products[key] + at * all + part * w;
        const int node = p.grad_products[key][part];
        if (node >= 0) write_rows(machine.place(node), n, w, to, all);
        else
            for (Index r = 0; r < n; ++r) std::fill(to + r * all, to + r * all + w, T(0));
    }
}

template <class T>
void write_gradients(const Gradients<T>& g, Machine<T>& machine, Index n, Index at, Index r0,
                     std::vector<Buffer<T>>& own) {
    const Program& p = *g.call->program;
    const Index wx = p.x_width, all = p.x_parts * wx;
    for (int part = 0; part < p.x_parts; ++part) {
        T* to = g.grad_x + at * all + part * wx;
        if (p.grad_x[part] >= 0) write_rows(machine.place(p.grad_x[part]), n, wx, to, all);
        else
            for (Index r = 0; r < n; ++r) std::fill(to + r * all, to + r * all + wx, T(0));
    }
    for (std::size_t k = 0; k < p.products.size(); ++k) {
        write_product(g, machine, static_cast<int>(k), n, at);
        if (g.source[k]) {
            const Index w = p.products[k].source;
            write_rows(machine.place(p.sources[k]), n, w, g.source[k] + at * w, w);
        }
    }
    for (std::size_t k = 0; k < p.vectors.size(); ++k) {
        if (p.grad_vectors[k] < 0) continue;
        const Index w = p.vectors[k];
        const Place<T>& from = machine.place(p.grad_vectors[k]);
        for (Index r = 0; r < n; ++r)
            for (Index u = 0; u < w; ++u)
                own[k].data()[(r0 + r) * w + u] += *from.at(r, u);
    }
    for (std::size_t k = 0; k < p.states.size(); ++k) {
        const Index w = p.states[k];
        T* to = g.grad_initial[k] + r0 * w;
        if (p.grad_states[k] >= 0) write_rows(machine.place(p.grad_states[k]), n, w, to, w);
        else std::fill(to, to + n * w, T(0));
    }
}

// Backward over the rows [r0, r1), from the last step to the first. `own` [rows, width] by vector
// gathers each row's part of the vectors' gradients.
template <class T>
void backward_rows(const Gradients<T>& g, const Shared<T>& shared, const Schedule& schedule,
                   Index r0, Index r1, std::vector<Buffer<T>>& own) {
    const Call<T>& call = *g.call;
    const Program& p = *call.program;
    const Index N = r1 - r0, S = static_cast<Index>(p.states.size());
    Machine<T> machine(p, schedule, N, outputs_of(p));
    std::vector<Buffer<T>> seeds, results(p.nodes.size());
    for (Index k = 0; k < S; ++k) {
        seeds.emplace_back(N * p.states[k]);
        copy(g.grad_initial[k] + r0 * p.states[k], g.grad_final[k] + r0 * p.states[k],
                    N * p.states[k]);
    }
    for (const Phase& phase : schedule.phases)
        for (int node : phase.products)
            results[node] = Buffer<T>(N * shared.products[p.nodes[node].key].padded());
    std::vector<const T*> rows;
    for (Index t = call.T_steps - 1; t >= 0; --t) {
        const Index n = std::min(r1, call.sizes[t]) - r0;
        if (n <= 0) continue;
        const Index at = shared.offset[t] + r0;
        for (Index k = 0; k < S; ++k) seed(g, k, n, at, r0, seeds[k].data());
        place_inputs(g, shared, machine, t, at, r0, seeds, results);
        aim_gradients(g, machine, at);
        for (std::size_t f = 0; f < schedule.phases.size(); ++f) {
            for (int number : schedule.phases[f].products) {
                const Node& node = p.nodes[number];
                write_product(g, machine, node.key, n, at);
                const Index w = p.products[node.key].parts * p.products[node.key].width;
                rows.resize(n);
                for (Index r = 0; r < n; ++r) rows[r] = g.grad_products[node.key] + (at + r) * w;
                multiply<T>(rows.data(), n, shared.products[node.key], nullptr,
                            results[number].data(), shared.products[node.key].padded());
            }
            machine.run(f, n);
        }
        write_gradients(g, machine, n, at, r0, own);
    }
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
