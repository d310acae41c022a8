// A problem for the core: a program, sizes, where tokens lie, and random numbers for every array.
// All numbers are exact in float32, so that both precisions and the naive reference start from equal ones.
#pragma once

#include <string>
#include <vector>

#include "dispatch/call.h"

namespace core_test {

using unrolled::Index;
using Vector = std::vector<double>;

// The same numbers on every machine: splitmix64 (Steele et al. 2014).
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next();
    std::size_t place(std::size_t count) { return static_cast<std::size_t>(next() % count); }
    Index below(Index limit) { return static_cast<Index>(place(static_cast<std::size_t>(limit))); }
    double uniform(double low, double high);  // a float32 number
    bool coin() { return next() >> 63; }
    Vector vector(Index count, double low, double high);

private:
    std::uint64_t state_;
};

// Dense: time-major, batch-first, last step first (reversed), or by a table. Ragged: lengths differ, some are
// zero, and some rows are padding.
enum class Layout { time, batch, reversed, table, ragged };

struct Sizes {
    Index T, N, I, H;
    Layout layout;
    bool sparse;  // about half of the optional arrays are missing
    std::string name() const;
};

// An array that may be missing.
struct Array {
    Vector values;
    bool given = true;
};

struct Weights {
    Array weight, bias;
};

struct Problem {
    Problem(const unrolled::Program& program, const Sizes& sizes, std::uint64_t seed);

    const unrolled::Program& program;
    Index T, N, I, total, rows;
    std::vector<Index> sizes;  // [T]
    std::vector<Index> row;    // [total], by token
    bool ragged, tabled;
    Index base = 0, step = 0, next = 0;  // of a dense layout without a table

    Array tokens;                  // [rows, I]
    std::vector<Weights> weights;  // the input's first
    std::vector<Array> vectors, initial, grad_final;
    Array grad_output;         // [rows, width of the output]
    bool wants_tokens = true;  // which gradients are requested
    std::vector<bool> wants_initial, wants_vectors, wants_weights, wants_biases;

    Index first(Index t) const;   // number of the first token of a step
    Index length(Index n) const;  // of a sequence
    Index row_of(Index t, Index n) const { return row[static_cast<std::size_t>(first(t) + n)]; }

private:
    void lay_out(Layout layout, Random& random);
    void fill(bool sparse, Random& random);
    std::vector<Index> firsts_;
};

// The results of a run: arrays by name, empty where none was requested. Padding rows are NaN.
struct Result {
    std::string name;
    Vector values;
};
using Results = std::vector<Result>;

// Shape of the weights: rows and columns; the input's first. A row of a block-diagonal weight reads the
// columns of its block.
struct Shape {
    Index parts, width, columns, blocks;
    Index source(Index unit, Index column) const { return unit / (width / blocks) * columns + column; }
    Index elements() const { return parts * width * columns; }
};
std::vector<Shape> shapes(const unrolled::Program& program, Index I);

}  // namespace core_test
