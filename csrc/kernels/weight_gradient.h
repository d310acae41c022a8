// The gradient of a matrix over many tokens.
#pragma once

#include "kernels/bf16.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Gradients of weights are summed in chunks of this many tokens.
constexpr Index kChunk = 256;

// Packs [tokens][R] blocks of columns of D, whose rows have pitch ld.
template <class T, int R>
void pack_gradients(const T* D, Index ld, Index tokens, T* to) {
    for (Index k = 0; k < tokens; ++k)
        for (int r = 0; r < R; ++r) to[k * R + r] = D[k * ld + r];
}

template <class T>
using OuterFunction = void (*)(const T*, const T*, Index, T*, Index, Index, bool);

template <class T, int V>
OuterFunction<T> find_outer(int v, bool tile_rows) {
    if constexpr (V == 0) return nullptr;
    else if (v == V) return tile_rows ? outer<T, kTileRows, V> : outer<T, 1, V>;
    else return find_outer<T, V - 1>(v, tile_rows);
}

// Rows [m0, m1) of C [·, K] (+)= Dᵀ S over tokens: D has rows with pitch ld, S is given by row pointers.
// `workspace` holds kChunk * (m1 - m0 + panel) numbers.
template <class T>
void weight_gradient(const T* D, Index ld, Index m0, Index m1, const T* const* S, Index K, Index tokens, T* C,
                     bool first, T* workspace) {
    if (tokens == 1) return outer_few<T, 1>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 2) return outer_few<T, 2>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 3) return outer_few<T, 3>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 4) return outer_few<T, 4>(D, ld, S, m0, m1, K, C, first);
    constexpr Index panel = kTileVectors * lanes<T>;
    const Index tiled_end = m0 + (m1 - m0) / kTileRows * kTileRows;
    for (Index m = m0; m < tiled_end; m += kTileRows)
        pack_gradients<T, kTileRows>(D + m, ld, tokens, workspace + (m - m0) * tokens);
    for (Index m = tiled_end; m < m1; ++m)
        pack_gradients<T, 1>(D + m, ld, tokens, workspace + (m - m0) * tokens);
    T* B = workspace + round_up((m1 - m0) * tokens, lanes<T>);
    for (Index k = 0; k < K; k += panel) {
        const Index columns = min(panel, K - k), vectors = divide_up(columns, lanes<T>);
        const Index last = columns - (vectors - 1) * lanes<T>;
        for (Index i = 0; i < tokens; ++i)
            for (Index v = 0; v < vectors; ++v)
                store(B + (i * vectors + v) * lanes<T>,
                      load_part(S[i] + k + v * lanes<T>, v + 1 < vectors ? lanes<T> : last));
        const OuterFunction<T> tile_rows = find_outer<T, kTileVectors>(static_cast<int>(vectors), true);
        const OuterFunction<T> flat = find_outer<T, kTileVectors>(static_cast<int>(vectors), false);
        for (Index m = m0; m < tiled_end; m += kTileRows)
            tile_rows(workspace + (m - m0) * tokens, B, tokens, C + m * K + k, K, last, first);
        for (Index m = tiled_end; m < m1; ++m)
            flat(workspace + (m - m0) * tokens, B, tokens, C + m * K + k, K, last, first);
    }
}

#if UNROLLED_MULTIPLIES_BF16
typedef void (*OuterBf16Function)(const Bf16Pair*, Index, const Bf16Pair*, Index, float*, Index, Index, bool);

template <int V>
OuterBf16Function find_outer_bf16(int v, bool tile_rows) {
    if constexpr (V == 0) return nullptr;
    else if (v == V) return tile_rows ? outer_bf16<kTileRows, V> : outer_bf16<1, V>;
    else return find_outer_bf16<V - 1>(v, tile_rows);
}

// Packs pairs of tokens: vectors of D from column m0 on, one pair of rows after the other.
inline void pack_gradient_pairs(const float* D, Index ld, Index m0, Index m1, Index tokens, Bf16Pair* to,
                                Index lda) {
    for (Index i = 0; i < tokens; i += 2, to += lda)
        for (Index m = m0; m < m1; m += lanes<float>) {
            const float* const d = D + i * ld + m;
            const Vec<float> second = i + 1 < tokens ? load(d + ld) : Vec<float>{};
            store_bf16_pairs(to + m - m0, rounded_pairs(load(d), second));
        }
}

// The same as weight_gradient() with products of bfloat16, in pairs of tokens. Rows of D can be read up to
// a vector behind m1.
inline void weight_gradient_bf16(const float* D, Index ld, Index m0, Index m1, const float* const* S, Index K,
                                 Index tokens, float* C, bool first, float* workspace) {
    constexpr Index L = lanes<float>, panel = kTileVectors * L;
    const Index pairs = divide_up(tokens, 2), lda = (divide_up(m1 - m0, L) | 1) * L;
    Bf16Pair* const A = reinterpret_cast<Bf16Pair*>(workspace);
    Bf16Pair* const B = A + pairs * lda;
    pack_gradient_pairs(D, ld, m0, m1, tokens, A, lda);
    for (Index k = 0; k < K; k += panel) {
        const Index columns = min(panel, K - k), vectors = divide_up(columns, L);
        const Index last = columns - (vectors - 1) * L;
        for (Index i = 0; i < pairs; ++i)
            for (Index v = 0; v < vectors; ++v) {
                const Index at = k + v * L, valid = v + 1 < vectors ? L : last;
                const bool has_second = 2 * i + 1 < tokens;
                const Vec<float> second = has_second ? load_part(S[2 * i + 1] + at, valid) : Vec<float>{};
                store_bf16_pairs(B + (i * vectors + v) * L,
                                 rounded_pairs(load_part(S[2 * i] + at, valid), second));
            }
        const OuterBf16Function tile_rows = find_outer_bf16<kTileVectors>(static_cast<int>(vectors), true);
        const OuterBf16Function flat = find_outer_bf16<kTileVectors>(static_cast<int>(vectors), false);
        Index m = m0;
        for (; m + kTileRows <= m1; m += kTileRows)
            tile_rows(A + m - m0, lda, B, pairs, C + m * K + k, K, last, first);
        for (; m < m1; ++m) flat(A + m - m0, lda, B, pairs, C + m * K + k, K, last, first);
    }
}
#endif

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
