// Runs the pointwise part of a phase over tiles that stay in the first cache.
#pragma once

#include "kernels/gemm.h"
#include "kernels/pointwise.h"
#include "kernels/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Where a node's values are: row r at base + r * stride; one value for all units if `one`.
template <class T>
struct Place {
    T* base;
    Index stride;
    bool one;
    T* row(Index r) const { return base + r * stride; }
};

// Which part of a batch a thread works on: rows, and a share of the units.
struct Part {
    Index first, last;   // rows
    Index me, count;     // share of the units
};

// Numbers of a tile: what a step reads and writes of it stays in the first cache.
constexpr Index kTile = 768;

template <class T>
class Machine {
public:
    Machine(const Program& program, const Schedule& schedule)
        : program_(program), schedule_(schedule), places_(program.nodes.size()) {
        for (const Node& node : program.nodes) widest_ = most(widest_, pitch(node.width));
        room_ = most(widest_, round_up(kTile, 16));
        slots_ = Buffer<T>(schedule.slots * room_);
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const bool one = program.nodes[k].width == 1;
            const int slot = schedule.slot[k];
            places_[k] = {slot >= 0 ? slots_.data() + slot * room_ : nullptr, 0, one};
        }
    }

    Place<T>& place(int node) { return places_[node]; }

    // Takes over the places of what is the same for all tokens.
    void adopt(const Buffer<Place<T>>& fixed) {
        for (Index k = 0; k < fixed.count(); ++k)
            if (fixed[k].base) places_[k] = fixed[k];
    }

    // Computes what is the same for all tokens, each vector into its place.
    void once() {
        for (const Instruction& i : schedule_.once) {
            const Index w = program_.nodes[i.made].width;
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
        const Share share = share_units<T>(width, part.me, part.count);
        const Index from = share.first * lanes<T>, to = share.last * lanes<T>;
        const Index units = least(to - from, kTile / 2 / lanes<T> * lanes<T>);
        if (units <= 0) return;
        const Index rows = most<Index>(1, kTile / units);
        for (Index u = from; u < to; u += units)
            for (Index r = part.first; r < part.last; r += rows)
                for (const Instruction& i : work) {
                    const bool one = program_.nodes[i.made].width == 1;
                    apply(i, r, least(rows, part.last - r), one ? 0 : u,
                          one ? lanes<T> : least(units, to - u), units);
                }
    }

    // Vectors of several widths, or sums over the units: tiles are whole rows.
    void run_rows(const std::vector<Instruction>& work, const Part& part) {
        const Index rows = most<Index>(1, room_ / widest_);
        for (Index r = part.first; r < part.last; r += rows)
            for (const Instruction& i : work) {
                const Index w = program_.nodes[i.made].width;
                const Share share = share_units<T>(w, part.me, part.count);
                const Index from = share.first * lanes<T>, to = share.last * lanes<T>;
                if (to > from)
                    apply(i, r, least(rows, part.last - r), from, to - from, widest_);
            }
    }

    // One instruction on rows [r, r + rows), units [u, u + units). In slots the tile begins at 0,
    // with rows `local` apart.
    void apply(const Instruction& i, Index r, Index rows, Index u, Index units, Index local) {
        const Place<T>& made = places_[i.made];
        const bool slot = schedule_.slot[i.made] >= 0;
        const Tile<T> to{slot ? made.base : made.row(r) + (made.one ? 0 : u),
                         slot ? local : made.stride, rows, units};
        Operand<T> a[3];
        for (int k = 0; k < i.count; ++k) {
            const Place<T>& from = places_[i.args[k]];
            const bool inside = schedule_.slot[i.args[k]] >= 0;
            a[k] = {inside ? from.base : from.row(r) + (from.one ? 0 : u),
                    inside ? local : from.stride, from.one};
        }
        if (i.op == 26 || i.op == 27) {
            const Index w = program_.nodes[i.args[0]].width;
            for (Index k = 0; k < rows; ++k)
                to.p[k * to.stride] = reduce(a[0].p + k * a[0].stride, w, i.op == 26);
            return;
        }
        execute<T>(i.op, to, a);
    }

    const Program& program_;
    const Schedule& schedule_;
    Buffer<Place<T>> places_;
    Buffer<T> slots_;
    Index widest_ = 16, room_ = 0;
};

// Copies rows [first, last) of a node's values, a share of their units; a single value fills them.
template <class T>
void move_rows(const Place<T>& from, const Part& part, Index width, T* to, Index stride) {
    if (from.base == to) return;
    const Share share = share_units<T>(width, part.me, part.count);
    const Index a = share.first * lanes<T>, b = least(width, share.last * lanes<T>);
    if (b <= a) return;
    for (Index r = part.first; r < part.last; ++r) {
        const T* p = from.row(r);
        T* out = to + r * stride;
        if (from.one)
            for (Index u = a; u < b; ++u) out[u] = *p;
        else copy(out + a, p + a, b - a);
    }
}

// Buffers for vectors that outlive their tile and have no other place, and for what is the same for
// all tokens: constants, parameter vectors (with room for whole vectors), what follows from them.
template <class T>
class Fixtures {
public:
    Fixtures(const Program& program, const Schedule& schedule, const Call<T>& call)
        : places_(program.nodes.size()), memory_(program.nodes.size()) {
        for (std::size_t k = 0; k < program.nodes.size(); ++k) {
            const Node& node = program.nodes[k];
            places_[k] = {nullptr, 0, node.width == 1};
            if (node.leaf == Leaf::constant || node.leaf == Leaf::size) {
                reserve(k, 1, 1)[0] = static_cast<T>(node.value);
            } else if (node.leaf == Leaf::vector) {
                T* to = reserve(k, 1, node.width);
                if (call.vectors[node.key]) copy(to, call.vectors[node.key], node.width);
            }
        }
        for (const Instruction& i : schedule.once) reserve(i.made, 1, program.nodes[i.made].width);
        Machine<T> machine(program, schedule);
        machine.adopt(places_);
        Flush flush;
        machine.once();
    }

    // Rows of a node that every token makes anew.
    void keep(int node, Index rows, Index width) {
        reserve(node, rows, width);
        places_[node].stride = pitch(width);
    }

    const Buffer<Place<T>>& places() const { return places_; }

private:
    T* reserve(Index node, Index rows, Index width) {
        memory_[node] = zeros<T>(rows * pitch(width));
        places_[node].base = memory_[node].data();
        return memory_[node].data();
    }

    Buffer<Place<T>> places_;
    std::vector<Buffer<T>> memory_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
