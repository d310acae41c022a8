// Register tiles for weights that are kept short, two of them side by side: of each lane those of an
// even k and of the k after it. A row's result depends on that row alone, as in tile.h.
#pragma once

#include "kernels/tiles.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The weights of one lane for two k; behind the last k stands a zero.
struct Halves {
    Half even, odd;
};
struct Tinies {
    Tiny even, odd;
};

// Numbers of a row that have one scale: the sum of so many products fits into 32 bits.
constexpr Index kBlock = 512;

// bfloat16 is widened to float, by a shift or a mask.
template <class T, int R, int V>
void tile_halves(const T* const* rows, const Segment* segments, int, const Halves* B, Index,
                 const Lane<T>* lane, Index row, Fetch fetch) {
    constexpr int lines = V * lanes<T> * static_cast<int>(sizeof(Halves)) / 64;
    Vec<T> acc[R][V];
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            acc[r][v] = load(lane[v].from + (row + r) * lane[v].from_stride);
    const Index K = segments[0].length;
    for (Index k = 0; k < K; k += 2, B += V * lanes<T>) {
        fetch_if<lines>(fetch.far, B + 6 * V * lanes<T>);
        Vec<T> even[R], odd[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            even[r] = fill(rows[r][k]);
            odd[r] = fill(k + 1 < K ? rows[r][k + 1] : T(0));
        }
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) {
            Vec<T> first, second;
            load_zipped<T>(&B[v * lanes<T>].even, first, second);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                acc[r][v] += even[r] * first;
                acc[r][v] += odd[r] * second;
            }
        }
    }
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            store(lane[v].to + (row + r) * lane[v].to_stride, acc[r][v]);
}

// Numbers as whole ones of 16 bits, of which the largest comes to 32767, and the scale that they are
// multiples of. It is NaN where a number is not finite, and zero where all are as good as zero. Zeros
// follow, to the end of a vector.
__attribute__((noinline)) inline float shorten(const float* x, Index count, std::int16_t* to) {
    constexpr Index L = lanes<float>;
    Vec<float> largest{}, strange{};
    for (Index k = 0; k < count; k += L) {
        const Vec<float> v = load_part(x + k, count - k);
        strange += v - v;
        largest = larger<float>(largest, v < 0 ? -v : v);
    }
    float top = 0, odd = 0;
    for (Index l = 0; l < L; ++l) {
        top = most(top, static_cast<float>(largest[l]));
        odd += strange[l];
    }
    if (!(odd == 0 && top > 32767 / 3e38f)) {
        clear(to, round_up(count, L));
        return odd == 0 ? 0 : __builtin_nanf("");
    }
    const float steps = 32767 / top;
    alignas(64) std::int32_t whole[kBlock];
    for (Index k = 0; k < count; k += L) {
        const Vec<float> v = load_part(x + k, count - k);
        const Vec<float> half = v < 0 ? fill(-0.5f) : fill(0.5f);
        const Pairs made = __builtin_convertvector(v * steps + half, Pairs);
        std::memcpy(whole + k, &made, sizeof(made));
    }
    for (Index k = 0; k < round_up(count, L); ++k) to[k] = static_cast<std::int16_t>(whole[k]);
    return top / 32767;
}

// int8 is multiplied with whole numbers of 16 bits, exactly: a block of a row comes to such numbers and
// a scale, and so do its sums.
template <class T, int R, int V>
void tile_tinies(const T* const* rows, const Segment* segments, int, const Tinies* B, Index,
                 const Lane<T>* lane, Index row, Fetch fetch) {
    constexpr int lines = V * lanes<T> * static_cast<int>(sizeof(Tinies)) / 64;
    Vec<T> acc[R][V];
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][v] = Vec<T>{};
    const Index K = segments[0].length;
    for (Index start = 0; start < K; start += kBlock) {
        alignas(64) std::int16_t numbers[R][kBlock];
        float scale[R];
        const Index length = least(kBlock, K - start);
        for (int r = 0; r < R; ++r) scale[r] = shorten(rows[r] + start, length, numbers[r]);
        Pairs sum[R][V];
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r][v] = Pairs{};
        for (Index k = 0; k < length; k += 2, B += V * lanes<T>) {
            fetch_if<lines>(fetch.far, B + 8 * V * lanes<T>);
            Pairs x[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) x[r] = fill_pair(numbers[r] + k);
#pragma GCC unroll 32
            for (int v = 0; v < V; ++v) {
                const Pairs w = load_pairs(&B[v * lanes<T>].even);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) add_products(sum[r][v], x[r], w);
            }
        }
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
                acc[r][v] += __builtin_convertvector(sum[r][v], Vec<T>) * scale[r];
    }
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            store(lane[v].to + (row + r) * lane[v].to_stride,
                  load(lane[v].from + (row + r) * lane[v].from_stride) +
                      acc[r][v] * load(lane[v].scale));
}

template <class T, int R, int V>
TileFunction<T, Halves> tile_of(const Halves*) {
    return tile_halves<T, R, V>;
}
template <class T, int R, int V>
TileFunction<T, Tinies> tile_of(const Tinies*) {
    return tile_tinies<T, R, V>;
}
template <class T, int R, int V, class Number>
TileFunction<T, Number> tile_of(const Number*) {
    return tile<T, Number, R, V>;
}

// The tile for r rows and v vectors, within what vectors_for allows.
template <class T, class Number, int R, int V>
TileFunction<T, Number> find_tile(int r, int v) {
    if constexpr (R == 0) return nullptr;
    else if constexpr (V == 0) return find_tile<T, Number, R - 1, vectors_for(R - 1)>(r, v);
    else if (r == R && v == V) return tile_of<T, R, V>(static_cast<const Number*>(nullptr));
    else return find_tile<T, Number, R, V - 1>(r, v);
}

// Tiles [rows - 1][vectors - 1].
template <class T, class Number>
struct Tiles {
    TileFunction<T, Number> of[kTall][kWide];
    Tiles() {
        for (int r = 0; r < kTall; ++r)
            for (int v = 0; v < kWide; ++v)
                of[r][v] = find_tile<T, Number, kTall, kTallVectors>(r + 1, v + 1);
    }
};

template <class T, class Number>
inline TileFunction<T, Number> tile_for(int r, int v) {
    static const Tiles<T, Number> tiles;
    return tiles.of[r - 1][v - 1];
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
