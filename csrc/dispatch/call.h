// What a call of the kernels reads and writes: plain structs. What kernels call here is always inlined: of
// a function that is not, the linker would keep one build's copy for all.
//
// Letters: T steps, N sequences, I inputs, H hidden units, P width of the output state. A token is
// one step of one sequence. Tokens are numbered step by step, longest sequence first: step t has
// sizes[t] tokens, sequence n is the n-th of every step that it reaches. Where a token's row lies in
// the caller's arrays is `Rows`' business.
#pragma once

#include <vector>

#include "program/program.h"
#include "support/threads.h"
#include "support/types.h"

namespace unrolled {

// Where tokens lie: row `table[token]`, or base + t * step + n * next.
struct Rows {
    const Index* table;  // [total] or null
    Index base, step, next;
};

// How a caller's numbers are stored: in the type of the computation, or in half of a float, which
// is what then computes.
enum class Storage { own, bfloat16, float16 };

// The gradient of a weight is made at once for so many tokens, row by row.
constexpr Index kAtOnce = 4;

// Numbers that the kernels read or write in their own type, or as bfloat16; one of both is there, or
// none.
template <class T>
struct Lines {
    T* own = nullptr;
    Half* brief = nullptr;
    [[gnu::always_inline]] explicit operator bool() const { return own || brief; }
};

// One product's weights [parts * width, source] row-major, bias [parts * width] or null.
template <class T>
struct Weights {
    Lines<const T> weight;
    const T* bias;
};

// All pointers are borrowed for the call; inputs are read only, outputs do not overlap anything.
template <class T>
struct Call {
    const Program* program;
    Index T_steps, N, I, total;
    const Index* sizes;               // [T_steps], falling, sizes[0] <= N; null: N each
    Rows rows;
    Lines<const T> tokens;            // [rows, I]
    Weights<T> input;                 // [x_parts * x_width, I]
    std::vector<Weights<T>> products;
    std::vector<const T*> vectors;    // [width], null for zeros
    std::vector<const T*> initial;    // [N, width] by state; null: zeros
    Lines<T> output;                  // [rows, width of the first state], out
    std::vector<T*> final;            // [N, width] by state, out
    T* saved;                         // [total, saved_pitch], out; null: inference
    int threads;
    Stop* stop;                       // or null
    [[gnu::always_inline]] Index size(Index t) const { return sizes ? sizes[t] : N; }
};

// Gradients of what all sequences share are sums over them: one, or one for each of `groups`, to
// which sequence n belongs by n % groups. Sizes are multiples of it.
template <class T>
struct Gradients {
    const Call<T>* call;                 // of the forward run; output and saved are read
    Index groups = 1;
    Lines<const T> grad_output;          // [rows, width of the output]; none: zeros
    std::vector<const T*> grad_final;    // [N, width] by state; null: zeros
    Lines<T> grad_tokens;                // [rows, I], out or none
    std::vector<T*> grad_initial;        // [N, width] by state, out or null
    std::vector<T*> grad_vectors;        // [groups, width], out or null
    std::vector<Lines<T>> grad_weights;  // [groups, ...], the input's first, out or none; brief
                                         // only where there are at most kAtOnce tokens
    std::vector<T*> grad_biases;         // [groups, ...], the input's first, out or null
};

}  // namespace unrolled
