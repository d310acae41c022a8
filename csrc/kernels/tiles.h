// Register tiles: a few rows times a few vectors of columns, one sum over rising k for each element, so
// that a row's result depends neither on other rows nor on the thread.
#pragma once

#include "dispatch/call.h"
#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The size of tiles by the number of registers: kTileRows rows for batches; few rows take more vectors,
// since additions would wait for one another.
#if UNROLLED_BYTES == 64
constexpr int kTileRows = 6, kTileVectors = 4, kMaxTileVectors = 24;
#elif UNROLLED_BYTES == 32
constexpr int kTileRows = 4, kTileVectors = 3, kMaxTileVectors = 12;
#else
constexpr int kTileRows = 4, kTileVectors = 2, kMaxTileVectors = 8;
#endif

// Vectors of a tile for calls with this many rows.
constexpr int vectors_for(Index rows) {
    return rows > 3 ? kTileVectors : rows <= 1 ? kMaxTileVectors : kMaxTileVectors / static_cast<int>(rows);
}

// The most rows of a tile with this many vectors.
constexpr Index max_tile_rows(Index vectors) {
    return vectors <= kTileVectors ? kTileRows : kMaxTileVectors / vectors;
}

// A segment of k: numbers from `a` on in a row, rows from `b` on of the packed matrix, which come from
// row `source` on of the weights.
struct Segment {
    Index a, length, b, source;
};

// Where the sums of a vector of a tile start from and go to; row r is r * stride further.
template <class T>
struct TileColumn {
    const T* from;
    Index from_stride;
    T* to;
    Index to_stride;
    const T* scale = nullptr;  // of weights in int8
};

// What a tile prefetches: at each k the cache line at an address that advances by `bytes_per_k`; with few
// rows, if the matrix exceeds the caches, what is needed some k later.
struct Prefetch {
    const char* at = nullptr;
    Index bytes_per_k = 0;
    bool beyond_caches = false;
};

// Prefetches lines if the matrix exceeds the caches. It is tested at each k: two loops would double the
// code, and prefetching what is in the cache costs a fifth of a step.
template <int lines>
inline void prefetch_if(bool& beyond_caches, const void* at) {
    asm("" : "+r"(beyond_caches));
    if (!beyond_caches) return;
#pragma GCC unroll 32
    for (int line = 0; line < lines; ++line) __builtin_prefetch(static_cast<const char*>(at) + line * 64);
}

// What sums of a tile start from, and where they go.
template <int R, int V, class T>
[[gnu::always_inline]] inline void load_sums(const TileColumn<T>* columns, Index row, Vec<T> (&acc)[R][V]) {
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v) {
        const Index stride = columns[v].from_stride;
        const T* from = columns[v].from + row * stride;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r, from += stride) acc[r][v] = load(from);
    }
}
template <int R, int V, class T>
[[gnu::always_inline]] inline void store_sums(const TileColumn<T>* columns, Index row, Vec<T> (&acc)[R][V]) {
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v) {
        const Index stride = columns[v].to_stride;
        T* to = columns[v].to + row * stride;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r, to += stride) store(to, acc[r][v]);
    }
}

// Where the sums of a tile go that add to what is there, from zero on for the first tokens: rows with pitch
// ld, of which the first `rows` exist; the last vector of columns has `last` numbers.
template <class T>
struct SumRows {
    T* C;
    Index ld, rows, last;
    bool first;
};

template <int R, int V, class T>
[[gnu::always_inline]] inline void load_rows(const SumRows<T>& sums, Vec<T> (&acc)[R][V]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const T* c = sums.C + r * sums.ld + v * lanes<T>;
            const bool is_new = sums.first || r >= sums.rows;
            acc[r][v] = is_new ? Vec<T>{} : v + 1 < V ? load(c) : load_part(c, sums.last);
        }
}
template <int R, int V, class T>
[[gnu::always_inline]] inline void store_rows(const SumRows<T>& sums, Vec<T> (&acc)[R][V]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        if (r >= sums.rows) return;
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            T* c = sums.C + r * sums.ld + v * lanes<T>;
            if (v + 1 < V) store(c, acc[r][v]);
            else store_part(c, acc[r][v], sums.last);
        }
    }
}

template <class T, class Number, int R, int V>
void tile(const T* const* rows, const Segment* segments, int count, const Number* B, Index ld,
          const TileColumn<T>* columns, Index row, const Prefetch& prefetch) {
    Vec<T> acc[R][V];
    load_sums<R, V>(columns, row, acc);
    bool beyond_caches = prefetch.beyond_caches;
    const char* next = prefetch.at;
    const Index bytes_per_k = prefetch.bytes_per_k;
    for (int s = 0; s < count; ++s) {
        const T* a[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) a[r] = rows[r] + segments[s].a;
        const Number* b = B + segments[s].b * ld;
        const Index length = segments[s].length;
        for (Index k = 0; k < length; ++k, b += ld) {
            if (R <= 3) {
                prefetch_if<V * lanes<T>* static_cast<int>(sizeof(Number)) / 64>(beyond_caches, b + 10 * ld);
                Vec<T> x[R];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) x[r] = broadcast(a[r][k]);
#pragma GCC unroll 32
                for (int v = 0; v < V; ++v) {
                    Vec<T> w = load_as<T>(b + v * lanes<T>);
                    if (R > 1) pin_register(w);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) acc[r][v] += x[r] * w;
                }
            } else {
                __builtin_prefetch(next, 0, 2);
                next += bytes_per_k;
                Vec<T> w[V];
#pragma GCC unroll 32
                for (int v = 0; v < V; ++v) {
                    w[v] = load_as<T>(b + v * lanes<T>);
                    pin_register(w[v]);
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const Vec<T> x = broadcast(a[r][k]);
#pragma GCC unroll 32
                    for (int v = 0; v < V; ++v) acc[r][v] += x * w[v];
                }
            }
        }
    }
    store_sums<R, V>(columns, row, acc);
}

// Adds A · B over k tokens to rows of sums: A is packed [k][R], B is packed [k][V vectors].
template <class T, int R, int V>
void outer(const T* A, const T* B, Index k, const SumRows<T>& sums) {
    Vec<T> acc[R][V];
    load_rows<R, V>(sums, acc);
    for (Index i = 0; i < k; ++i, A += R, B += V * lanes<T>) {
        Vec<T> b[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            b[v] = load(B + v * lanes<T>);
            pin_register(b[v]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> a = broadcast(A[r]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) acc[r][v] += a * b[v];
        }
    }
    store_rows<R, V>(sums, acc);
}

// The same for few tokens, whose rows of B stay in the first-level cache: rows of C one after the other,
// so that each is written once and in order. Row m of C has D[i * ld + m] of token i; bits equal those of
// outer().
template <class T, int Tokens>
void outer_few(const T* D, Index ld, const T* const* S, Index m0, Index m1, Index K, T* C, bool first) {
    for (Index m = m0; m < m1; ++m) {
        Vec<T> a[Tokens];
#pragma GCC unroll 4
        for (int i = 0; i < Tokens; ++i) a[i] = broadcast(D[i * ld + m]);
        T* const row = C + m * K;
        for (Index k = 0; k < K; k += lanes<T>) {
            const Index valid = min<Index>(lanes<T>, K - k);
            Vec<T> acc = first ? Vec<T>{} : load_part(row + k, valid);
#pragma GCC unroll 4
            for (int i = 0; i < Tokens; ++i) acc += a[i] * load_part(S[i] + k, valid);
            store_part(row + k, acc, valid);
        }
    }
}

template <int... I>
struct Lanes {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    typedef Lanes<I...> Type;
};

// Sums of neighbours: those of a, then those of b.
template <class V, int... I>
inline V add_neighbours(V a, V b, Lanes<I...>) {
    return __builtin_shufflevector(a, b, (2 * I)...) + __builtin_shufflevector(a, b, (2 * I + 1)...);
}

// The sums of `lanes` vectors, one in each lane.
template <class T>
inline Vec<T> sums(Vec<T>* v) {
    typedef typename Count<lanes<T>>::Type All;
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T> / 2; ++i) v[i] = add_neighbours(v[2 * i], v[2 * i + 1], All());
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T> / 4; ++i) v[i] = add_neighbours(v[2 * i], v[2 * i + 1], All());
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T> / 8; ++i) v[i] = add_neighbours(v[2 * i], v[2 * i + 1], All());
    if (lanes<T> > 8) v[0] = add_neighbours(v[0], v[1], All());
    return v[0];
}

// Transposes a matrix of `lanes` vectors: interleaves halves log2(lanes) times.
template <class V, int... I>
inline void interleave(V a, V b, V& low, V& high, Lanes<I...>) {
    constexpr int n = sizeof...(I);
    low = __builtin_shufflevector(a, b, (I / 2 + (I % 2) * n)...);
    high = __builtin_shufflevector(a, b, (n / 2 + I / 2 + (I % 2) * n)...);
}

template <class T>
inline void transpose(Vec<T>* v) {
    constexpr int n = lanes<T>;
#pragma GCC unroll 8
    for (int stage = 1; stage < n; stage *= 2) {
        Vec<T> next[n];
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; ++i)
            interleave(v[i], v[i + n / 2], next[2 * i], next[2 * i + 1], typename Count<n>::Type());
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = next[i];
    }
}

// Dot products of `lanes` rows of W [·, K] with one row a, added to `start`; W is read unpacked.
template <class T>
Vec<T> dots(const T* const* W, const T* a, Index K, Vec<T> start) {
    Vec<T> acc[lanes<T>];
#pragma GCC unroll 16
    for (int l = 0; l < lanes<T>; ++l) acc[l] = Vec<T>{};
    const Index full = K / lanes<T> * lanes<T>;
    for (Index k = 0; k < full; k += lanes<T>) {
        const Vec<T> x = load(a + k);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) acc[l] += x * load(W[l] + k);
    }
    if (full < K) {
        const Vec<T> x = load_part(a + full, K - full);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) acc[l] += x * load_part(W[l] + full, K - full);
    }
    return start + sums<T>(acc);
}

// Two vectors from bfloat16 at p: the numbers at even positions, and those at odd ones.
template <class T>
inline void load_deinterleaved(const Half* p, Vec<T>& even, Vec<T>& odd) {
    typename Simd<T>::M both;
    std::memcpy(&both, p, sizeof(both));
    even = (Vec<T>)(both << 16);
    odd = (Vec<T>)(both & static_cast<std::int32_t>(0xffff0000));
}

// Deinterleaves numbers: of each two vectors the first holds the even ones, the second the odd ones.
template <class T, class Number>
void deinterleave(const Number* from, Index count, T* to) {
    constexpr Index L = lanes<T>;
    constexpr bool halves = sizeof(Number) == sizeof(Half) && sizeof(T) == sizeof(float);
    const Index full = count / (2 * L) * (2 * L);
    for (Index k = 0; k < full; k += 2 * L) {
        if constexpr (halves) {
            Vec<T> even, odd;
            load_deinterleaved<T>(from + k, even, odd);
            store(to + k, even);
            store(to + k + L, odd);
        } else {
            for (Index i = 0; i < L; ++i) {
                to[k + i] = T(widened(from[k + 2 * i]));
                to[k + L + i] = T(widened(from[k + 2 * i + 1]));
            }
        }
    }
    for (Index k = full; k < count; ++k) to[k] = T(widened(from[k]));
}

// Dot products of rows in bfloat16 with a deinterleaved row: a shift and a mask convert two numbers.
template <class T>
Vec<T> dots_bf16(const Half* const* W, const T* a, Index K, Vec<T> start) {
    Vec<T> acc[lanes<T>];
#pragma GCC unroll 16
    for (int l = 0; l < lanes<T>; ++l) acc[l] = Vec<T>{};
    Index k = 0;
    if constexpr (sizeof(T) == sizeof(float)) {
        for (; k + 2 * lanes<T> <= K; k += 2 * lanes<T>) {
            const Vec<T> even = load(a + k), odd = load(a + k + lanes<T>);
#pragma GCC unroll 16
            for (int l = 0; l < lanes<T>; ++l) {
                Vec<T> first, second;
                load_deinterleaved<T>(W[l] + k, first, second);
                acc[l] += even * first;
                acc[l] += odd * second;
            }
        }
    }
    for (; k < K; k += lanes<T>) {
        const Vec<T> x = load_part(a + k, K - k);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) acc[l] += x * load_part_as<T>(W[l] + k, K - k);
    }
    return start + sums<T>(acc);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
