// Runs the pointwise part of a phase, over tiles that stay in the first-level cache.
#pragma once

#include "kernels/gemm.h"
#include "kernels/pointwise.h"
#include "kernels/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The values of a node: row r at base + r * stride; scalar: one value for all units.
template <class T>
struct NodeRows {
    T* base;
    Index stride;
    bool scalar;
    T* row(Index r) const { return base + r * stride; }
};

// The part of a batch that a thread works on: rows, and its number among the threads that share the
// units.
struct Part {
    Index first, last;    // rows
    Index thread, count;  // threads that share the units
};

// Numbers of a tile: what a step reads and writes of it stays in the first-level cache.
constexpr Index kTile = 768;

template <class T>
class Interpreter {
public:
    Interpreter(const Program& program, const Schedule& schedule)
        : program_(program), schedule_(schedule), node_rows_(program.nodes.size()) {
        for (const Node& node : program.nodes) widest_ = max(widest_, pitch(node.width));
        slot_size_ = max(widest_, round_up(kTile, 16));
        slots_ = Buffer<T>(schedule.slots * slot_size_);
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const bool scalar = program.nodes[k].width == 1;
            const int slot = schedule.slot[k];
            node_rows_[k] = {slot >= 0 ? slots_.data() + slot * slot_size_ : nullptr, 0, scalar};
        }
    }

    NodeRows<T>& node(int number) { return node_rows_[number]; }

    // Sets the locations of nodes that have a persistent buffer.
    void set_nodes(const Buffer<NodeRows<T>>& fixed) {
        for (Index k = 0; k < fixed.count(); ++k)
            if (fixed[k].base) node_rows_[k] = fixed[k];
    }

    // Computes the nodes that are the same for all tokens.
    void compute_hoisted() {
        for (const Instruction& i : schedule_.hoisted) {
            const Index w = program_.nodes[i.result].width;
            apply(i, 0, 1, 0, round_up(w, lanes<T>), 0);
        }
    }

    void run(std::size_t phase, const Part& part) {
        const auto& work = schedule_.phases[phase].work;
        if (work.empty() || part.first >= part.last) return;
        if (schedule_.whole_rows || !schedule_.uniform) run_rows(work, part);
        else run_units(work, part, schedule_.phases[phase].width);
    }

private:
    // All vectors have one width: tiles are pieces of rows.
    void run_units(const std::vector<Instruction>& work, const Part& part, Index width) {
        const GroupRange range = groups_of_thread<T>(width, part.thread, part.count);
        const Index from = range.first * lanes<T>, to = range.last * lanes<T>;
        const Index units = min(to - from, kTile / 2 / lanes<T> * lanes<T>);
        if (units <= 0) return;
        const Index rows = max<Index>(1, kTile / units);
        for (Index u = from; u < to; u += units)
            for (Index r = part.first; r < part.last; r += rows)
                for (const Instruction& i : work) {
                    const bool scalar = program_.nodes[i.result].width == 1;
                    apply(i, r, min(rows, part.last - r), scalar ? 0 : u,
                          scalar ? lanes<T> : min(units, to - u), units);
                }
    }

    // Vectors of several widths, or reductions: tiles are whole rows.
    void run_rows(const std::vector<Instruction>& work, const Part& part) {
        const Index rows = max<Index>(1, slot_size_ / widest_);
        for (Index r = part.first; r < part.last; r += rows)
            for (const Instruction& i : work) {
                const Index w = program_.nodes[i.result].width;
                const GroupRange range = groups_of_thread<T>(w, part.thread, part.count);
                const Index from = range.first * lanes<T>, to = range.last * lanes<T>;
                if (to > from) apply(i, r, min(rows, part.last - r), from, to - from, widest_);
            }
    }

    // One instruction on rows [r, r + rows), units [u, u + units). In temporary buffers the tile begins
    // at 0, with pitch `local`.
    void apply(const Instruction& i, Index r, Index rows, Index u, Index units, Index local) {
        const NodeRows<T>& result = node_rows_[i.result];
        const bool slot = schedule_.slot[i.result] >= 0;
        const Tile<T> to{slot ? result.base : result.row(r) + (result.scalar ? 0 : u),
                         slot ? local : result.stride, rows, units};
        Operand<T> a[3];
        for (int k = 0; k < i.count; ++k) {
            const NodeRows<T>& from = node_rows_[i.args[k]];
            const bool inside = schedule_.slot[i.args[k]] >= 0;
            a[k] = {inside ? from.base : from.row(r) + (from.scalar ? 0 : u), inside ? local : from.stride,
                    from.scalar};
        }
        if (i.op == Op::mean || i.op == Op::sum) {
            const Index w = program_.nodes[i.args[0]].width;
            for (Index k = 0; k < rows; ++k)
                to.p[k * to.stride] = reduce(a[0].p + k * a[0].stride, w, i.op == Op::mean);
            return;
        }
        execute<T>(i.op, to, a);
    }

    const Program& program_;
    const Schedule& schedule_;
    Buffer<NodeRows<T>> node_rows_;
    Buffer<T> slots_;
    Index widest_ = 16, slot_size_ = 0;
};

// Copies the rows and units of a part from a node; scalars are broadcast.
template <class T>
void copy_rows(const NodeRows<T>& from, const Part& part, Index width, T* to, Index stride) {
    if (from.base == to) return;
    const GroupRange range = groups_of_thread<T>(width, part.thread, part.count);
    const Index a = range.first * lanes<T>, b = min(width, range.last * lanes<T>);
    if (b <= a) return;
    for (Index r = part.first; r < part.last; ++r) {
        const T* p = from.row(r);
        T* out = to + r * stride;
        if (from.scalar)
            for (Index u = a; u < b; ++u) out[u] = *p;
        else copy(out + a, p + a, b - a);
    }
}

// Adds the rows and units of a part to padded rows of this width.
template <class T>
void accumulate_rows(const NodeRows<T>& from, const Part& part, Index width, T* to) {
    const GroupRange range = groups_of_thread<T>(width, part.thread, part.count);
    const Index a = range.first * lanes<T>, b = min(width, range.last * lanes<T>);
    for (Index r = part.first; r < part.last; ++r) {
        const T* p = from.row(r);
        T* out = to + r * pitch(width);
        for (Index u = a; u < b; ++u) out[u] += from.scalar ? *p : p[u];
    }
}

// Buffers of vectors that outlive their tile and have no other location, and of what is the same for all
// tokens: constants, parameter vectors (padded), and nodes that depend on these only.
template <class T>
class PersistentBuffers {
public:
    PersistentBuffers(const Program& program, const Schedule& schedule, const Call<T>& call)
        : node_rows_(program.nodes.size()), memory_(program.nodes.size()) {
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const Node& node = program.nodes[k];
            node_rows_[k] = {nullptr, 0, node.width == 1};
            if (node.kind == NodeKind::constant || node.kind == NodeKind::size)
                reserve(k, 1, 1)[0] = static_cast<T>(node.value);
            else if (node.kind == NodeKind::vector) reserve(k, 1, node.width);
        }
        for (const Instruction& i : schedule.hoisted) reserve(i.result, 1, program.nodes[i.result].width);
        read_vectors(program, schedule, call);
    }

    // Copies the call's vectors, and computes what depends on them.
    void read_vectors(const Program& program, const Schedule& schedule, const Call<T>& call) {
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const Node& node = program.nodes[k];
            if (node.kind != NodeKind::vector) continue;
            if (call.vectors[node.index]) copy(memory_[k].data(), call.vectors[node.index], node.width);
            else clear(memory_[k].data(), node.width);
        }
        Interpreter<T> interpreter(program, schedule);
        interpreter.set_nodes(node_rows_);
        FlushSubnormals flush_subnormals;
        interpreter.compute_hoisted();
    }

    // Allocates rows for a node that is computed again for every token.
    void allocate(int node, Index rows, Index width) {
        reserve(node, rows, width);
        node_rows_[node].stride = pitch(width);
    }

    const Buffer<NodeRows<T>>& node_rows() const { return node_rows_; }

private:
    T* reserve(Index node, Index rows, Index width) {
        memory_[node] = zeros<T>(rows * pitch(width));
        node_rows_[node].base = memory_[node].data();
        return memory_[node].data();
    }

    Buffer<NodeRows<T>> node_rows_;
    std::vector<Buffer<T>> memory_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
