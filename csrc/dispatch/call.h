// What a call of the kernels reads and writes: plain structs. What kernels call here is always inlined: of
// a function that is not, the linker would keep one build's copy for all.
//
// Letters: T steps, N sequences, I inputs, H hidden units, P width of the output state. A token is one step
// of one sequence. Tokens are numbered step by step, longest sequence first: step t has sizes[t] tokens,
// those of the sequences n < sizes[t].
#pragma once

#include <vector>

#include "dispatch/token_rows.h"
#include "dispatch/weight_cache.h"
#include "program/program.h"
#include "support/threads.h"
#include "support/types.h"

namespace unrolled {

// How a caller's numbers are stored: in the type of the computation, or in 16 bits; then the computation is
// in float.
enum class NumberFormat { native, bfloat16, float16 };

// For up to this many tokens the gradient of a weight is written row by row, in the caller's format.
constexpr Index kFewTokens = 4;

// An array that the kernels read or write in the type of the computation or as bfloat16. One pointer is set,
// or none: no array.
template <class T>
struct Storage {
    T* native = nullptr;
    Half* half = nullptr;
    [[gnu::always_inline]] explicit operator bool() const { return native || half; }
};

// A product's weight [parts * width, source], row-major, and bias [parts * width] or null.
template <class T>
struct Weights {
    Storage<const T> weight;
    const T* bias;
};

// Pointers are borrowed for the call. Inputs are read only; outputs overlap nothing.
template <class T>
struct Call {
    const Program* program;
    Index T_steps, N, I, total;  // total: number of tokens
    const Index* sizes;          // [T_steps], non-increasing, sizes[0] <= N; null: N each
    TokenRows token_rows;
    Storage<const T> tokens;           // [rows, I]
    Weights<T> input;                  // [x_parts * x_width, I]
    std::vector<Weights<T>> products;  // by product
    std::vector<const T*> vectors;     // by vector [width]; null: zeros
    std::vector<const T*> initial;     // by state [N, width]; null: zeros
    Storage<T> output;                 // out: [rows, width of the first state]
    std::vector<T*> final;             // out: by state [N, width]
    T* saved;                          // out: [total, saved_pitch]; null: inference
    int threads;                       // at most
    CancelFlag* cancel;                // or null
    WeightCache* cache;                // of the layer, for packed weights; or null
    bool bf16_products;                // factors of products are rounded to bfloat16, sums are float
    [[gnu::always_inline]] Index size(Index t) const { return sizes ? sizes[t] : N; }
};

// Gradients of parameters and vectors are sums over sequences: over all, or with `groups` G over those of
// equal n % G, [G, ...]. Sizes are multiples of G. An output that is not needed is null.
template <class T>
struct Gradients {
    const Call<T>* call;  // of the forward run, whose output and saved array are read
    Index groups = 1;
    Storage<const T> grad_output;          // [rows, width of the first state]; none: zeros
    std::vector<const T*> grad_final;      // by state [N, width]; null: zeros
    Storage<T> grad_tokens;                // out: [rows, I]
    std::vector<T*> grad_initial;          // out: by state [N, width]
    std::vector<T*> grad_vectors;          // out: by vector [G, width]
    std::vector<Storage<T>> grad_weights;  // out: [G, ...], the input's first; as bfloat16 only for up to
                                           // kFewTokens tokens
    std::vector<T*> grad_biases;           // out: [G, ...], the input's first
};

}  // namespace unrolled
