// The gradient of rows of a matrix over many tokens: gradients of products times sources of these.
#pragma once

#include "kernels/bf16.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Gradients of weights are summed in chunks of this many tokens.
constexpr Index kChunk = 256;

// The tiles of rows whose gradients are packed at once, and stay in a second-level cache beside a panel of
// sources.
constexpr Index kGradientTiles = 64;

// The numbers of a packed tile of rows: vectors are stored over its end.
template <class T>
constexpr Index gradient_tile(Index tokens) {
    return tokens * kTileRows + lanes<T>;
}

// The numbers of packed gradients of rows.
template <class T>
constexpr Index packed_gradients(Index rows, Index tokens) {
    return round_up(divide_up(rows, kTileRows) * gradient_tile<T>(tokens), lanes<T>);
}

// The numbers of a panel of packed sources.
template <class T>
constexpr Index packed_sources(Index tokens) {
    return tokens * kTileVectors * lanes<T>;
}

// Packs columns of D, whose rows have pitch ld, as [tile][tokens][kTileRows]. Rows of D can be read up to a
// vector behind the last column.
template <class T>
void pack_gradients(const T* D, Index ld, Index rows, Index tokens, T* to) {
    const Index tile = gradient_tile<T>(tokens);
    for (Index i = 0; i < tokens; ++i) {
        const T* const d = D + i * ld;
        T* a = to + i * kTileRows;
        for (Index m = 0; m < rows; m += kTileRows, a += tile)
            for (Index r = 0; r < kTileRows; r += lanes<T>) store(a + r, load(d + m + r));
    }
}

template <class T>
using OuterFunction = void (*)(const T*, const T*, Index, const SumRows<T>&);

template <class T, int V>
OuterFunction<T> find_outer(Index v) {
    if constexpr (V == 0) return nullptr;
    else if (v == V) return outer<T, kTileRows, V>;
    else return find_outer<T, V - 1>(v);
}

// A panel of columns [k, k + columns) of sources.
template <class T>
struct SourcePanel {
    SourcePanel(Index k, Index K)
        : k(k),
          vectors(divide_up(min<Index>(kTileVectors * lanes<T>, K - k), lanes<T>)),
          last(min<Index>(vectors * lanes<T>, K - k) - (vectors - 1) * lanes<T>) {}

    Index k, vectors, last;  // `last`: columns of the last vector

    Vec<T> vector(const T* source, Index v) const {
        return load_part(source + k + v * lanes<T>, v + 1 < vectors ? lanes<T> : last);
    }
};

// C [rows, K] (+)= Dᵀ S over tokens: A are packed gradients, S is given by row pointers. `B` holds
// packed_sources().
template <class T>
void weight_gradient(const T* A, Index rows, const T* const* S, Index K, Index tokens, T* C, bool first,
                     T* B) {
    for (Index k = 0; k < K; k += kTileVectors * lanes<T>) {
        const SourcePanel<T> panel(k, K);
        for (Index i = 0; i < tokens; ++i)
            for (Index v = 0; v < panel.vectors; ++v)
                store(B + (i * panel.vectors + v) * lanes<T>, panel.vector(S[i], v));
        const OuterFunction<T> add_tile = find_outer<T, kTileVectors>(panel.vectors);
        const T* a = A;
        for (Index m = 0; m < rows; m += kTileRows, a += gradient_tile<T>(tokens))
            add_tile(a, B, tokens, {C + m * K + k, K, rows - m, panel.last, first});
    }
}

// The same for up to kFewTokens tokens: D has rows with pitch ld.
template <class T>
void weight_gradient_of_few(const T* D, Index ld, Index rows, const T* const* S, Index K, Index tokens, T* C,
                            bool first) {
    if (tokens == 0 && first) return clear(C, rows * K);
    if (tokens == 1) return outer_few<T, 1>(D, ld, S, 0, rows, K, C, first);
    if (tokens == 2) return outer_few<T, 2>(D, ld, S, 0, rows, K, C, first);
    if (tokens == 3) return outer_few<T, 3>(D, ld, S, 0, rows, K, C, first);
    if (tokens == 4) return outer_few<T, 4>(D, ld, S, 0, rows, K, C, first);
}

// The pitch of packed pairs of gradients: an odd number of vectors.
constexpr Index gradient_pairs_pitch(Index rows) {
    return (divide_up(round_up(rows, kTileRows), lanes<float>) | 1) * lanes<float>;
}

#if UNROLLED_MULTIPLIES_BF16
typedef void (*OuterBf16Function)(const Bf16Pair*, Index, const Bf16Pair*, Index, const SumRows<float>&);

template <int V>
OuterBf16Function find_outer_bf16(Index v) {
    if constexpr (V == 0) return nullptr;
    else if (v == V) return outer_bf16<kTileRows, V>;
    else return find_outer_bf16<V - 1>(v);
}

// Packs pairs of tokens: vectors of D, one pair of rows after the other. Rows of D can be read up to a vector
// behind the last column.
inline void pack_gradient_pairs(const float* D, Index ld, Index rows, Index tokens, Bf16Pair* to) {
    for (Index i = 0; i < tokens; i += 2, to += gradient_pairs_pitch(rows))
        for (Index m = 0; m < rows; m += lanes<float>) {
            const float* const d = D + i * ld + m;
            const Vec<float> second = i + 1 < tokens ? load(d + ld) : Vec<float>{};
            store_bf16_pairs(to + m, rounded_pairs(load(d), second));
        }
}

// The same as weight_gradient() with products of bfloat16, in pairs of tokens.
inline void weight_gradient_bf16(const Bf16Pair* A, Index rows, const float* const* S, Index K, Index tokens,
                                 float* C, bool first, Bf16Pair* B) {
    constexpr Index L = lanes<float>;
    const Index pairs = divide_up(tokens, 2), lda = gradient_pairs_pitch(rows);
    for (Index k = 0; k < K; k += kTileVectors * L) {
        const SourcePanel<float> panel(k, K);
        for (Index i = 0; i < pairs; ++i)
            for (Index v = 0; v < panel.vectors; ++v) {
                const Vec<float> second = 2 * i + 1 < tokens ? panel.vector(S[2 * i + 1], v) : Vec<float>{};
                store_bf16_pairs(B + (i * panel.vectors + v) * L,
                                 rounded_pairs(panel.vector(S[2 * i], v), second));
            }
        const OuterBf16Function add_tile = find_outer_bf16<kTileVectors>(panel.vectors);
        for (Index m = 0; m < rows; m += kTileRows)
            add_tile(A + m, lda, B, pairs, {C + m * K + k, K, rows - m, panel.last, first});
    }
}
#endif

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
