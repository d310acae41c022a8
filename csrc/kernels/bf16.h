// Products of bfloat16: the numbers of a pair are multiplied one by one and added in float, by one
// instruction where the processor has it. A build without it may do the same in several operations, so
// that every machine tests these kernels.
#pragma once

#include "kernels/buffer.h"
#include "kernels/tiles.h"

#if UNROLLED_BYTES == 64 && (defined(__AVX512BF16__) || defined(UNROLLED_EMULATE_BF16))
#define UNROLLED_MULTIPLIES_BF16 1
#else
#define UNROLLED_MULTIPLIES_BF16 0
#endif

namespace unrolled {
namespace UNROLLED_BUILD {

// The weights of one lane for two k; zero behind the last k.
struct Bf16Pair {
    Half even, odd;
};

// The numbers of rows that are multiplied with weights of this type.
template <class T, class Number>
struct RowsOf {
    typedef T Type;
};
#if UNROLLED_MULTIPLIES_BF16
template <>
struct RowsOf<float, Bf16Pair> {
    typedef Half Type;
};
#endif
template <class T, class Number>
using RowNumber = typename RowsOf<T, Number>::Type;

// Whether packed weights in bfloat16 are multiplied with rows in bfloat16.
template <class T>
constexpr bool kMultipliesBf16 = UNROLLED_MULTIPLIES_BF16 && sizeof(T) == sizeof(float);

#if UNROLLED_MULTIPLIES_BF16

// Two numbers of bfloat16 in each lane, the first one in the lower half.
typedef Mask<float> Bf16Pairs;

inline Bf16Pairs load_bf16_pairs(const void* p) {
    Bf16Pairs pairs;
    std::memcpy(&pairs, p, sizeof(pairs));
    return pairs;
}

inline void store_bf16_pairs(void* p, Bf16Pairs pairs) { std::memcpy(p, &pairs, sizeof(pairs)); }

inline Bf16Pairs broadcast_bf16_pair(const void* p) {
    std::int32_t pair;
    std::memcpy(&pair, p, sizeof(pair));
    return pair - Bf16Pairs{};
}

// The last number of a row of odd length, with zero behind it.
inline Bf16Pairs broadcast_last_bf16(const Half* p) { return static_cast<std::int32_t>(*p) - Bf16Pairs{}; }

#if defined(__AVX512BF16__)

// Adds in each lane the product of the second numbers, then that of the first ones.
inline void add_bf16_products(Vec<float>& sum, Bf16Pairs x, Bf16Pairs w) {
    sum = (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
}

// Rounds to nearest, ties to even; the results are the lower halves of the lanes.
inline Bf16Pairs rounded_lanes(Vec<float> x) {
    return (Bf16Pairs)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x));
}

#else

// Emulations are for tests: small, as nobody waits for them.
[[gnu::noinline]] inline void add_bf16_products(Vec<float>& sum, const Bf16Pairs& x, const Bf16Pairs& w) {
    constexpr std::int32_t upper = static_cast<std::int32_t>(0xffff0000);
    sum += (Vec<float>)(x & upper) * (Vec<float>)(w & upper);
    sum += (Vec<float>)(x << 16) * (Vec<float>)(w << 16);
}

[[gnu::noinline]] inline Bf16Pairs rounded_lanes(Vec<float> x) {
    typedef Simd<float>::B B;
    const B bits = (B)x, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const B nan = 0x7fc0u - B{};
    return (Bf16Pairs)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#endif

// Pairs of the numbers in equal lanes.
inline Bf16Pairs rounded_pairs(Vec<float> first, Vec<float> second) {
    return rounded_lanes(first) | (rounded_lanes(second) << 16);
}

// Rounds the numbers of a row.
inline void round_row(const float* from, Index count, Half* to) {
    constexpr Index L = lanes<float>;
    Index k = 0;
#if defined(__AVX512BF16__)
    for (; k + 2 * L <= count; k += 2 * L)
        store_bf16_pairs(to + k,
                         (Bf16Pairs)_mm512_cvtne2ps_pbh((__m512)load(from + k + L), (__m512)load(from + k)));
#endif
    for (; k < count; k += L) {
        std::int32_t lanes_of_vector[L];
        store_bf16_pairs(lanes_of_vector, rounded_lanes(load_part(from + k, count - k)));
        for (Index l = 0; l < min(L, count - k); ++l) to[k + l] = static_cast<Half>(lanes_of_vector[l]);
    }
}

// The pairs of up to two vectors of numbers, zeros behind them.
inline Bf16Pairs round_neighbors(const Half* p, Index count) {
    if (count >= 2 * lanes<float>) return load_bf16_pairs(p);
    Half rounded[2 * lanes<float>] = {};
    copy(rounded, p, count);
    return load_bf16_pairs(rounded);
}
inline Bf16Pairs round_neighbors(const float* p, Index count) {
    alignas(64) Half rounded[2 * lanes<float>];
#if defined(__AVX512BF16__)
    if (count >= 2 * lanes<float>)
        return (Bf16Pairs)_mm512_cvtne2ps_pbh((__m512)load(p + lanes<float>), (__m512)load(p));
#endif
    clear(rounded, 2 * lanes<float>);
    round_row(p, min<Index>(count, 2 * lanes<float>), rounded);
    return load_bf16_pairs(rounded);
}

// One vector of columns, with pitch ld: up to `lanes` rows of W in pairs, transposed.
template <class Number>
void pack_pairs_of_rows(const Number* const* rows, Index valid, Index K, Bf16Pair* to, Index ld) {
    constexpr Index L = lanes<float>;
    for (Index k = 0; k < K; k += 2 * L) {
        const Index numbers = min(2 * L, K - k), pairs = divide_up(numbers, 2);
        Vec<float> block[L];
        for (Index l = 0; l < L; ++l)
            block[l] = l < valid ? (Vec<float>)round_neighbors(rows[l] + k, numbers) : Vec<float>{};
        transpose<float>(block);
        for (Index pair = 0; pair < pairs; ++pair)
            store_bf16_pairs(to + (k / 2 + pair) * ld, (Bf16Pairs)block[pair]);
    }
}

// Rows in bfloat16 times a panel; a row's result depends on that row alone, as in tiles.h.
template <class T, int R, int V>
void tile_bf16_pairs(const Half* const* rows, const Segment* segments, int count, const Bf16Pair* B, Index ld,
                     const TileColumn<T>* columns, Index row, const Prefetch& prefetch) {
    constexpr int lines = V * lanes<T> * static_cast<int>(sizeof(Bf16Pair)) / 64;
    bool beyond_caches = prefetch.beyond_caches;
    const char* next = prefetch.at;
    const Index bytes_per_k = prefetch.bytes_per_k;
    Vec<T> acc[R][V];
    load_sums<R, V>(columns, row, acc);
    for (int s = 0; s < count; ++s) {
        const Half* a[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) a[r] = rows[r] + segments[s].a;
        const Bf16Pair* b = B + segments[s].b * ld;
        const auto multiply_pair = [&](auto x_of) __attribute__((always_inline)) {
            if (R <= 3) {
                prefetch_if<lines>(beyond_caches, b + 10 * ld);
            } else {
                __builtin_prefetch(next, 0, 2);
                next += bytes_per_k;
            }
            Bf16Pairs w[V];
#pragma GCC unroll 32
            for (int v = 0; v < V; ++v) {
                w[v] = load_bf16_pairs(b + v * lanes<T>);
                if (R > 1 && V <= kTileVectors) pin_register(w[v]);
            }
            if (R <= 3) {
                Bf16Pairs x[R];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) x[r] = x_of(a[r]);
#pragma GCC unroll 32
                for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) add_bf16_products(acc[r][v], x[r], w[v]);
            } else {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    Bf16Pairs x = x_of(a[r]);
                    pin_register(x);
#pragma GCC unroll 32
                    for (int v = 0; v < V; ++v) add_bf16_products(acc[r][v], x, w[v]);
                }
            }
            b += ld;
        };
        const Index length = segments[s].length;
        for (Index k = 0; k + 1 < length; k += 2)
            multiply_pair([k](const Half* p) { return broadcast_bf16_pair(p + k); });
        if (length % 2 > 0)
            multiply_pair([length](const Half* p) { return broadcast_last_bf16(p + length - 1); });
    }
    store_sums<R, V>(columns, row, acc);
}

// Dot products of `lanes` rows of W with one row in bfloat16, added to `start`.
template <class Number>
Vec<float> dots_bf16_pairs(const Number* const* W, const Half* a, Index K, Vec<float> start) {
    constexpr Index L = lanes<float>;
    Vec<float> acc[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l) acc[l] = Vec<float>{};
    for (Index k = 0; k < K; k += 2 * L) {
        const Bf16Pairs x = round_neighbors(a + k, K - k);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) add_bf16_products(acc[l], x, round_neighbors(W[l] + k, K - k));
    }
    return start + sums<float>(acc);
}

// Adds A · B over pairs of tokens to rows of sums: A has pitch lda, B is packed [pair][V vectors].
template <int R, int V>
void outer_bf16(const Bf16Pair* A, Index lda, const Bf16Pair* B, Index pairs, const SumRows<float>& sums) {
    Vec<float> acc[R][V];
    load_rows<R, V>(sums, acc);
    for (Index i = 0; i < pairs; ++i, A += lda, B += V * lanes<float>) {
        Bf16Pairs b[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            b[v] = load_bf16_pairs(B + v * lanes<float>);
            pin_register(b[v]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            Bf16Pairs a = broadcast_bf16_pair(A + r);
            pin_register(a);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) add_bf16_products(acc[r][v], a, b[v]);
        }
    }
    store_rows<R, V>(sums, acc);
}

#endif

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
