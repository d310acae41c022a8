// Matrix products of the sweep: rows times packed weights, and gradients of weights over tokens.
//
// A row's result does not depend on which other rows are computed beside it: each element is one
// sum over k in rising order, whatever the tile.
#pragma once

#include <vector>

#include "api.h"
#include "simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

#if UNROLLED_BYTES == 64
constexpr int kRows = 6, kVectors = 4;
#elif UNROLLED_BYTES == 32
constexpr int kRows = 4, kVectors = 3;
#else
constexpr int kRows = 4, kVectors = 2;
#endif

template <class T>
constexpr Index panel = kVectors * lanes<T>;

inline Index round_up(Index n, Index to) { return (n + to - 1) / to * to; }

// Memory aligned to a cache line; not initialised.
template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(Index count) : raw_(static_cast<std::size_t>(count) * sizeof(T) + 64) {
        const auto at = reinterpret_cast<std::uintptr_t>(raw_.data());
        data_ = reinterpret_cast<T*>((at + 63) / 64 * 64);
    }
    Buffer(Buffer&& other) = default;
    Buffer& operator=(Buffer&& other) = default;
    T* data() { return data_; }
    const T* data() const { return data_; }

private:
    std::vector<char> raw_;
    T* data_ = nullptr;
};

// B [K, M] in panels of columns, [panel][k][lane], zero beyond M.
template <class T>
struct Packed {
    Index M = 0, K = 0;
    Buffer<T> data;
    const T* at(Index p) const { return data.data() + p * K * panel<T>; }
    Index panels() const { return round_up(M, panel<T>) / panel<T>; }
    Index padded() const { return round_up(M, panel<T>); }
};

// W [M, K] row-major as B = Wᵀ: out = rows · Wᵀ.
template <class T>
Packed<T> pack(const T* W, Index M, Index K) {
    Packed<T> out{M, K, Buffer<T>(round_up(M, panel<T>) * K)};
    for (Index p = 0; p < out.panels(); ++p) {
        T* to = out.data.data() + p * K * panel<T>;
        for (Index j = 0; j < panel<T>; ++j) {
            const Index m = p * panel<T> + j;
            for (Index k = 0; k < K; ++k) to[k * panel<T> + j] = m < M ? W[m * K + k] : T(0);
        }
    }
    return out;
}

// W [M, K] row-major as B = W: out = rows · W, from M numbers to K.
template <class T>
Packed<T> pack_transposed(const T* W, Index M, Index K) {
    Packed<T> out{K, M, Buffer<T>(round_up(K, panel<T>) * M)};
    for (Index p = 0; p < out.panels(); ++p) {
        T* to = out.data.data() + p * M * panel<T>;
        for (Index m = 0; m < M; ++m)
            for (Index j = 0; j < panel<T>; ++j) {
                const Index k = p * panel<T> + j;
                to[m * panel<T> + j] = k < K ? W[m * K + k] : T(0);
            }
    }
    return out;
}

template <class T, int R>
inline void tile(const T* const* rows, const T* B, Index K, const T* bias, T* out, Index ld) {
    Vec<T> acc[R][kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
        const Vec<T> start = bias ? load(bias + v * lanes<T>) : Vec<T>{};
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][v] = start;
    }
    for (Index k = 0; k < K; ++k) {
        Vec<T> b[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) b[v] = load(B + k * panel<T> + v * lanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> a = fill(rows[r][k]);
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) acc[r][v] += a * b[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) store(out + r * ld + v * lanes<T>, acc[r][v]);
}

// out [count, ld] = rows [count, K] · B + bias; ld and the bias are padded to whole panels.
template <class T>
void multiply(const T* const* rows, Index count, const Packed<T>& B, const T* bias, T* out,
              Index ld) {
    for (Index p = 0; p < B.panels(); ++p) {
        const T* b = B.at(p);
        const T* c = bias ? bias + p * panel<T> : nullptr;
        T* to = out + p * panel<T>;
        Index r = 0;
        for (; r + kRows <= count; r += kRows) tile<T, kRows>(rows + r, b, B.K, c, to + r * ld, ld);
        switch (count - r) {
        case 5: tile<T, 5>(rows + r, b, B.K, c, to + r * ld, ld); break;
        case 4: tile<T, 4>(rows + r, b, B.K, c, to + r * ld, ld); break;
        case 3: tile<T, 3>(rows + r, b, B.K, c, to + r * ld, ld); break;
        case 2: tile<T, 2>(rows + r, b, B.K, c, to + r * ld, ld); break;
        case 1: tile<T, 1>(rows + r, b, B.K, c, to + r * ld, ld); break;
        default: break;
        }
    }
}

template <class T, int R>
inline void outer(const T* A, Index lda, const T* S, Index tokens, T* C, Index ldc, bool first) {
    Vec<T> acc[R][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v)
            acc[r][v] = first ? Vec<T>{} : load(C + r * ldc + v * lanes<T>);
    for (Index k = 0; k < tokens; ++k) {
        Vec<T> b[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) b[v] = load(S + k * panel<T> + v * lanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> a = fill(A[k * lda + r]);
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) acc[r][v] += a * b[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) store(C + r * ldc + v * lanes<T>, acc[r][v]);
}

// Rows [m0, m1) of C [M, K] = Dᵀ S over all tokens, D [total, M], S by row pointers. Tokens go in
// fixed chunks, so the sums are the same whoever computes which rows.
template <class T>
void weight_gradient(const T* D, Index M, const T* const* S, Index K, Index total, T* C, Index m0,
                     Index m1) {
    constexpr Index chunk = 192;
    const Index panels = round_up(K, panel<T>) / panel<T>;
    const Index ld = panels * panel<T>;
    Buffer<T> sums((m1 - m0) * ld), packed(chunk * ld);
    for (Index from = 0; from < total || from == 0; from += chunk) {
        const Index count = from + chunk < total ? chunk : total - from;
        for (Index p = 0; p < panels; ++p)
            for (Index k = 0; k < count; ++k)
                for (Index j = 0; j < panel<T>; ++j) {
                    const Index at = p * panel<T> + j;
                    packed.data()[(p * chunk + k) * panel<T> + j] = at < K ? S[from + k][at] : T(0);
                }
        for (Index p = 0; p < panels; ++p) {
            const T* s = packed.data() + p * chunk * panel<T>;
            Index m = m0;
            T* c = sums.data() + p * panel<T>;
            const T* d = D + from * M;
            const bool first = from == 0;
            for (; m + kRows <= m1; m += kRows)
                outer<T, kRows>(d + m, M, s, count, c + (m - m0) * ld, ld, first);
            for (; m < m1; ++m) outer<T, 1>(d + m, M, s, count, c + (m - m0) * ld, ld, first);
        }
    }
    for (Index m = m0; m < m1; ++m)
        for (Index k = 0; k < K; ++k) C[m * K + k] = sums.data()[(m - m0) * ld + k];
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
