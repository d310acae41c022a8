// Register tiles: a few rows times a few vectors of columns, one sum over k in rising order for each
// element, so that a row's result depends neither on its neighbours nor on who computes it.
#pragma once

#include "dispatch/call.h"
#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The tile by the registers that there are: kTall rows for batches; few rows take more vectors, or
// the additions would wait for one another.
#if UNROLLED_BYTES == 64
constexpr int kTall = 6, kTallVectors = 4, kWide = 24;
#elif UNROLLED_BYTES == 32
constexpr int kTall = 4, kTallVectors = 3, kWide = 12;
#else
constexpr int kTall = 4, kTallVectors = 2, kWide = 8;
#endif

// Vectors of a tile for calls of so many rows.
constexpr int vectors_for(Index rows) {
    return rows > 3 ? kTallVectors : rows <= 1 ? kWide : kWide / static_cast<int>(rows);
}

// A stretch of k: numbers from `a` on in a row, rows from `b` on of the packed matrix, which come
// from row `source` on of the weights.
struct Segment {
    Index a, length, b, source;
};

// Where the vectors of a tile start from and go to; row r is `stride` further.
template <class T>
struct Lane {
    const T* from;
    Index from_stride;
    T* to;
    Index to_stride;
    const T* scale = nullptr;  // of weights in int8
};

// What is fetched from memory meanwhile: at each k the line at a place that moves on by `pace` bytes; by
// few rows what comes some k later, where the matrix is `far`.
struct Fetch {
    const char* at = nullptr;
    Index pace = 0;
    bool far = false;
};

// Fetches so many lines if they are far. The question is put at each k: two loops would be twice the
// code, and fetching what is near costs a fifth of a step.
template <int lines>
inline void fetch_if(bool& far, const void* at) {
    asm("" : "+r"(far));
    if (!far) return;
#pragma GCC unroll 32
    for (int line = 0; line < lines; ++line)
        __builtin_prefetch(static_cast<const char*>(at) + line * 64);
}

template <class T, class Number>
using TileFunction = void (*)(const T* const* rows, const Segment* segments, int count,
                              const Number* B, Index ld, const Lane<T>* lane, Index row,
                              Fetch fetch);

template <class T, class Number, int R, int V>
void tile(const T* const* rows, const Segment* segments, int count, const Number* B, Index ld,
          const Lane<T>* lane, Index row, Fetch fetch) {
    Vec<T> acc[R][V];
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            acc[r][v] = load(lane[v].from + (row + r) * lane[v].from_stride);
    for (int s = 0; s < count; ++s) {
        const T* a[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) a[r] = rows[r] + segments[s].a;
        const Number* b = B + segments[s].b * ld;
        const Index length = segments[s].length;
        for (Index k = 0; k < length; ++k, b += ld) {
            if (R <= 3) {
                fetch_if<V * lanes<T> * static_cast<int>(sizeof(Number)) / 64>(fetch.far, b + 10 * ld);
                Vec<T> x[R];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) x[r] = fill(a[r][k]);
#pragma GCC unroll 32
                for (int v = 0; v < V; ++v) {
                    Vec<T> w = load_as<T>(b + v * lanes<T>);
                    if (R > 1) keep(w);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) acc[r][v] += x[r] * w;
                }
            } else {
                __builtin_prefetch(fetch.at, 0, 2);
                fetch.at += fetch.pace;
                Vec<T> w[V];
#pragma GCC unroll 32
                for (int v = 0; v < V; ++v) {
                    w[v] = load_as<T>(b + v * lanes<T>);
                    keep(w[v]);
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const Vec<T> x = fill(a[r][k]);
#pragma GCC unroll 32
                    for (int v = 0; v < V; ++v) acc[r][v] += x * w[v];
                }
            }
        }
    }
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            store(lane[v].to + (row + r) * lane[v].to_stride, acc[r][v]);
}

// C [R rows, ld] (+)= A · B over k tokens: A packed [k][R], B packed [k][V vectors]; the last vector
// of columns has `last` numbers.
template <class T, int R, int V>
void outer(const T* A, const T* B, Index k, T* C, Index ld, Index last, bool first) {
    Vec<T> acc[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const T* c = C + r * ld + v * lanes<T>;
            acc[r][v] = first ? Vec<T>{} : v + 1 < V ? load(c) : load_part(c, last);
        }
    for (Index i = 0; i < k; ++i, A += R, B += V * lanes<T>) {
        Vec<T> b[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            b[v] = load(B + v * lanes<T>);
            keep(b[v]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> a = fill(A[r]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) acc[r][v] += a * b[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            T* c = C + r * ld + v * lanes<T>;
            if (v + 1 < V) store(c, acc[r][v]);
            else store_part(c, acc[r][v], last);
        }
}

// The same for few tokens, whose rows of B stay in the first cache: rows of C one after another, so that
// each is written once and in order. Row m of C has D[i * ld + m] of token i; the bits are outer's.
template <class T, int Tokens>
void outer_few(const T* D, Index ld, const T* const* S, Index m0, Index m1, Index K, T* C, bool first) {
    for (Index m = m0; m < m1; ++m) {
        Vec<T> a[Tokens];
#pragma GCC unroll 4
        for (int i = 0; i < Tokens; ++i) a[i] = fill(D[i * ld + m]);
        T* const row = C + m * K;
        for (Index k = 0; k < K; k += lanes<T>) {
            const Index some = least<Index>(lanes<T>, K - k);
            Vec<T> acc = first ? Vec<T>{} : load_part(row + k, some);
#pragma GCC unroll 4
            for (int i = 0; i < Tokens; ++i) acc += a[i] * load_part(S[i] + k, some);
            store_part(row + k, acc, some);
        }
    }
}

template <int... I>
struct Places {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    typedef Places<I...> Type;
};

// Neighbours added: those of a, then those of b.
template <class V, int... I>
inline V add_neighbours(V a, V b, Places<I...>) {
    return __builtin_shufflevector(a, b, (2 * I)...) + __builtin_shufflevector(a, b, (2 * I + 1)...);
}

// Sums of each of `lanes` vectors, one a lane.
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

// The matrix of `lanes` vectors transposed: halves zipped as often as they can be halved.
template <class V, int... I>
inline void zip(V a, V b, V& low, V& high, Places<I...>) {
    constexpr int n = sizeof...(I);
    low = __builtin_shufflevector(a, b, (I / 2 + (I % 2) * n)...);
    high = __builtin_shufflevector(a, b, (n / 2 + I / 2 + (I % 2) * n)...);
}

template <class T>
inline void transpose(Vec<T>* v) {
    constexpr int n = lanes<T>;
#pragma GCC unroll 8
    for (int stage = 1; stage < n; stage *= 2) {
        Vec<T> made[n];
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; ++i)
            zip(v[i], v[i + n / 2], made[2 * i], made[2 * i + 1], typename Count<n>::Type());
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = made[i];
    }
}

// `lanes` rows of W [·, K] times one row a, from the given start: the matrix is read as it lies.
template <class T>
Vec<T> dots(const T* const* W, const T* a, Index K, Vec<T> start) {
    Vec<T> acc[lanes<T>];
#pragma GCC unroll 16
    for (int l = 0; l < lanes<T>; ++l) acc[l] = Vec<T>{};
    const Index whole = K / lanes<T> * lanes<T>;
    for (Index k = 0; k < whole; k += lanes<T>) {
        const Vec<T> x = load(a + k);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) acc[l] += x * load(W[l] + k);
    }
    if (whole < K) {
        const Vec<T> x = load_part(a + whole, K - whole);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) acc[l] += x * load_part(W[l] + whole, K - whole);
    }
    return start + sums<T>(acc);
}

// Two vectors from the bfloat16 at p, each of 32 bits: those at even places, and at odd ones.
template <class T>
inline void load_zipped(const Half* p, Vec<T>& even, Vec<T>& odd) {
    typename Simd<T>::M both;
    std::memcpy(&both, p, sizeof(both));
    even = (Vec<T>)(both << 16);
    odd = (Vec<T>)(both & static_cast<std::int32_t>(0xffff0000));
}

// Numbers of which each two vectors hold the even ones, then the odd ones.
template <class T, class Number>
void unzip(const Number* from, Index count, T* to) {
    constexpr Index L = lanes<T>;
    constexpr bool halves = sizeof(Number) == sizeof(Half) && sizeof(T) == sizeof(float);
    const Index whole = count / (2 * L) * (2 * L);
    for (Index k = 0; k < whole; k += 2 * L) {
        if constexpr (halves) {
            Vec<T> even, odd;
            load_zipped<T>(from + k, even, odd);
            store(to + k, even);
            store(to + k + L, odd);
        } else {
            for (Index i = 0; i < L; ++i) {
                to[k + i] = T(value_of(from[k + 2 * i]));
                to[k + L + i] = T(value_of(from[k + 2 * i + 1]));
            }
        }
    }
    for (Index k = whole; k < count; ++k) to[k] = T(value_of(from[k]));
}

// The dot products of rows in bfloat16 with a row that is unzipped: two numbers are widened from 32
// bits by a shift and a mask.
template <class T>
Vec<T> dots_brief(const Half* const* W, const T* a, Index K, Vec<T> start) {
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
                load_zipped<T>(W[l] + k, first, second);
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
