// Register tiles for low-precision weights: a lane holds two weights side by side, of an even k and of
// the next. A row's result depends on that row alone, as in tiles.h.
#pragma once

#include "kernels/bf16.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The weights of one lane for two k; zero behind the last k.
struct Int8Pair {
    Int8 even, odd;
};

// Numbers of a row that share a scale: the sum of so many products fits in 32 bits.
constexpr Index kBlock = 512;

#if !UNROLLED_MULTIPLIES_BF16

// bfloat16 is widened to float by a shift or a mask, where the processor does not multiply it.
template <class T, int R, int V>
void tile_bf16(const T* const* rows, const Segment* segments, int, const Bf16Pair* B, Index,
               const TileColumn<T>* columns, Index row, const Prefetch& prefetch) {
    constexpr int lines = V * lanes<T> * static_cast<int>(sizeof(Bf16Pair)) / 64;
    bool beyond_caches = prefetch.beyond_caches;
    Vec<T> acc[R][V];
    load_sums<R, V>(columns, row, acc);
    const Index K = segments[0].length;
    const T* a[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) a[r] = rows[r] + segments[0].a;
    for (Index k = 0; k < K; k += 2, B += V * lanes<T>) {
        prefetch_if<lines>(beyond_caches, B + 6 * V * lanes<T>);
        Vec<T> even[R], odd[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            even[r] = broadcast(a[r][k]);
            odd[r] = broadcast(k + 1 < K ? a[r][k + 1] : T(0));
        }
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) {
            Vec<T> first, second;
            load_deinterleaved<T>(&B[v * lanes<T>].even, first, second);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                acc[r][v] += even[r] * first;
                acc[r][v] += odd[r] * second;
            }
        }
    }
    store_sums<R, V>(columns, row, acc);
}

#endif

// Quantizes numbers to integers of 16 bits, the largest to 32767, and returns their scale: NaN where a
// number is not finite, zero where all are negligible. Zeros pad the last vector.
__attribute__((noinline)) inline float quantize_block(const float* x, Index count, std::int16_t* to) {
    constexpr Index L = lanes<float>;
    Vec<float> largest{}, strange{};
    for (Index k = 0; k < count; k += L) {
        const Vec<float> v = load_part(x + k, count - k);
        strange += v - v;
        largest = max_v<float>(largest, v < 0 ? -v : v);
    }
    float top = 0, odd = 0;
    for (Index l = 0; l < L; ++l) {
        top = max(top, static_cast<float>(largest[l]));
        odd += strange[l];
    }
    if (!(odd == 0 && top > 32767 / 3e38f)) {
        clear(to, round_up(count, L));
        return odd == 0 ? 0 : __builtin_nanf("");
    }
    const float steps = 32767 / top;
    alignas(64) std::int32_t rounded[kBlock];
    for (Index k = 0; k < count; k += L) {
        const Vec<float> v = load_part(x + k, count - k);
        const Vec<float> half = v < 0 ? broadcast(-0.5f) : broadcast(0.5f);
        const Int16Pairs integers = __builtin_convertvector(v * steps + half, Int16Pairs);
        std::memcpy(rounded + k, &integers, sizeof(integers));
    }
    for (Index k = 0; k < round_up(count, L); ++k) to[k] = static_cast<std::int16_t>(rounded[k]);
    return top / 32767;
}

// int8 is multiplied with integers of 16 bits, exactly: a block of a row is quantized to such integers
// and a scale, which then scales the sums.
template <class T, int R, int V>
void tile_int8(const T* const* rows, const Segment* segments, int, const Int8Pair* B, Index,
               const TileColumn<T>* columns, Index row, const Prefetch& prefetch) {
    constexpr int lines = V * lanes<T> * static_cast<int>(sizeof(Int8Pair)) / 64;
    bool beyond_caches = prefetch.beyond_caches;
    Vec<T> acc[R][V];
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][v] = Vec<T>{};
    const Index K = segments[0].length;
    for (Index start = 0; start < K; start += kBlock) {
        alignas(64) std::int16_t numbers[R][kBlock];
        float scale[R];
        const Index length = min(kBlock, K - start);
        for (int r = 0; r < R; ++r)
            scale[r] = quantize_block(rows[r] + segments[0].a + start, length, numbers[r]);
        Int16Pairs sum[R][V];
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r][v] = Int16Pairs{};
        for (Index k = 0; k < length; k += 2, B += V * lanes<T>) {
            prefetch_if<lines>(beyond_caches, B + 8 * V * lanes<T>);
            Int16Pairs x[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) x[r] = broadcast_pair(numbers[r] + k);
#pragma GCC unroll 32
            for (int v = 0; v < V; ++v) {
                const Int16Pairs w = load_pairs(&B[v * lanes<T>].even);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) add_products(sum[r][v], x[r], w);
            }
        }
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) acc[r][v] += __builtin_convertvector(sum[r][v], Vec<T>) * scale[r];
    }
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            store(columns[v].to + (row + r) * columns[v].to_stride,
                  load(columns[v].from + (row + r) * columns[v].from_stride) +
                      acc[r][v] * load(columns[v].scale));
}

template <class T, class Number>
using TileFunction = void (*)(const RowNumber<T, Number>* const* rows, const Segment* segments, int count,
                              const Number* B, Index ld, const TileColumn<T>* columns, Index row,
                              const Prefetch& prefetch);

template <class T, int R, int V>
constexpr TileFunction<T, Bf16Pair> tile_of(const Bf16Pair*) {
#if UNROLLED_MULTIPLIES_BF16
    return tile_bf16_pairs<T, R, V>;
#else
    return tile_bf16<T, R, V>;
#endif
}
template <class T, int R, int V>
constexpr TileFunction<T, Int8Pair> tile_of(const Int8Pair*) {
    return tile_int8<T, R, V>;
}
template <class T, int R, int V, class Number>
constexpr TileFunction<T, Number> tile_of(const Number*) {
    return tile<T, Number, R, V>;
}

// The tile for r rows and v vectors, up to what vectors_for allows.
template <class T, class Number, int R, int V>
constexpr TileFunction<T, Number> find_tile(int r, int v) {
    if constexpr (R == 0) return nullptr;
    else if constexpr (V == 0) return find_tile<T, Number, R - 1, vectors_for(R - 1)>(r, v);
    else if (r == R && v == V) return tile_of<T, R, V>(static_cast<const Number*>(nullptr));
    else return find_tile<T, Number, R, V - 1>(r, v);
}

// Tiles [rows - 1][vectors - 1].
template <class T, class Number>
struct Tiles {
    TileFunction<T, Number> of[kTileRows][kMaxTileVectors] = {};
    constexpr Tiles() {
        for (int r = 0; r < kTileRows; ++r)
            for (int v = 0; v < kMaxTileVectors; ++v)
                of[r][v] = find_tile<T, Number, kTileRows, kTileVectors>(r + 1, v + 1);
    }
};

template <class T, class Number>
inline TileFunction<T, Number> tile_for(int r, int v) {
    static constexpr Tiles<T, Number> tiles;
    return tiles.of[r - 1][v - 1];
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
