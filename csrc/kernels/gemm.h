// Products of rows with a matrix, and the gradient of a matrix over many tokens.
#pragma once

#include "kernels/buffer.h"
#include "kernels/low_precision.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// For up to this many rows weights are read unpacked: packing would cost more.
constexpr Index kFewRows = 8;

// The vectors of a matrix: unit by unit, within it part by part, so that all gates of a unit stand
// together and threads that share the units share the vectors.
template <class T>
struct Shape {
    Index parts, width;                                          // columns: parts * width
    Index k;                                                     // rows in all segments
    Index groups() const { return divide_up(width, lanes<T>); }  // vectors of one part
    Index vectors() const { return groups() * parts; }
};

// A range of groups of units.
struct GroupRange {
    Index first, last;
};

// The groups of `width` units for thread number `thread` of `count`; small groups stay together, so that
// no two threads write to one cache line.
template <class T>
GroupRange groups_of_thread(Index width, Index thread, Index count) {
    const Index all = divide_up(width, lanes<T>);
    if (count == 1) return {0, all};
    constexpr Index grain = UNROLLED_BYTES < 64 ? 64 / UNROLLED_BYTES : 1;
    const Index blocks = divide_up(all, grain);
    return {min(all, blocks * thread / count * grain), min(all, blocks * (thread + 1) / count * grain)};
}

// A matrix for products with rows: packed [panel][k][vector][lane], or for small calls unpacked:
// `unpacked` is read by dot products, `unpacked_transposed` by columns (but for the last vector, which
// may reach beyond a row and is packed).
//
// `accumulators` has for each part the input block that its sums start from and go to, or -1: they start
// from the bias and go to the results of the product.
template <class T>
struct Matrix {
    Shape<T> shape;
    Index vectors = 1;  // of a panel
    Buffer<T> packed;
    Buffer<Bf16Pair> bf16;  // packed in bfloat16, two k side by side; or
    Buffer<Int8Pair> int8;  // in int8, with a scale for each lane of each vector
    Buffer<T> scales;
    Storage<const T> unpacked;             // [parts * width, k]
    Storage<const T> unpacked_transposed;  // [k, width]
    Buffer<Segment> segments;
    Index count = 1;  // of segments
    const int* accumulators = nullptr;

    bool dot() const { return static_cast<bool>(unpacked); }

    // The number of vectors of the panel that starts at `first`, and where it lies.
    Index panel(Index first, Index last) const {
        const Index whole = shape.width / lanes<T>;
        if (unpacked_transposed && first < whole) return min(vectors, min(last, whole) - first);
        return min(vectors, last - first);
    }
    bool is_unpacked(Index first) const { return unpacked_transposed && first < shape.width / lanes<T>; }
    const T* at(Index first) const {
        if (is_unpacked(first)) return unpacked_transposed.native + first * lanes<T>;
        return unpacked_transposed ? packed.data() : packed.data() + first * lanes<T> * shape.k;
    }
    Index ld(Index first, Index count) const { return is_unpacked(first) ? shape.width : count * lanes<T>; }
};

// One vector of columns, with pitch ld: up to `lanes` rows of W, transposed, followed by zeros.
template <class T, class Number>
void pack_vector(const Number* const* rows, Index valid, Index K, T* to, Index ld) {
    Index k = 0;
    for (; valid == lanes<T> && k + lanes<T> <= K; k += lanes<T>) {
        Vec<T> block[lanes<T>];
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) block[l] = load_as<T>(rows[l] + k);
        transpose<T>(block);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) store(to + (k + l) * ld, block[l]);
    }
    for (; k < K; ++k)
        for (Index l = 0; l < lanes<T>; ++l) to[k * ld + l] = l < valid ? T(widened(rows[l][k])) : T(0);
}

// Packs vectors [first, last) of W [parts * width, k], transposed.
template <class T, class Number>
void pack_rows(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index K = m.shape.k, width = m.shape.width;
    for (Index from = first; from < last; from += m.vectors) {
        const Index count = min<Index>(m.vectors, last - from);
        T* to = m.packed.data() + from * lanes<T> * K;
        for (Index v = 0; v < count; ++v) {
            const Index group = (from + v) / m.shape.parts, part = (from + v) % m.shape.parts;
            const Index start = group * lanes<T>, valid = min<Index>(lanes<T>, width - start);
            const Number* rows[lanes<T>];
            for (Index l = 0; l < lanes<T>; ++l) rows[l] = W + (part * width + start + min(l, valid - 1)) * K;
            pack_vector(rows, valid, K, to + v * lanes<T>, count * lanes<T>);
        }
    }
}

template <class T>
void pack(Matrix<T>& m, const Storage<const T>& W, Index first, Index last) {
    if (W.half) pack_rows(m, W.half, first, last);
    else pack_rows(m, W.native, first, last);
}

// Packs vectors [first, last) of W [k, width], not transposed; there is one part.
template <class T, class Number>
void pack_columns(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index width = m.shape.width;
    if (m.unpacked_transposed) first = max(first, width / lanes<T>);
    for (Index from = first; from < last; from += m.vectors) {
        const Index count = m.panel(from, last);
        T* to = const_cast<T*>(m.at(from));
        const Index start = from * lanes<T>, valid = min(count * lanes<T>, width - start);
        for (Index s = 0; s < m.count; ++s)
            for (Index k = 0; k < m.segments[s].length; ++k) {
                T* at = to + (m.segments[s].b + k) * count * lanes<T>;
                const Number* row = W + (m.segments[s].source + k) * width + start;
                for (Index j = 0; j < valid; ++j) at[j] = T(widened(row[j]));
                for (Index j = valid; j < count * lanes<T>; ++j) at[j] = 0;
            }
    }
}

template <class T>
void pack_transposed(Matrix<T>& m, const Storage<const T>& W, Index first, Index last) {
    if (W.half) pack_columns(m, W.half, first, last);
    else pack_columns(m, W.native, first, last);
}

// The rows that a product writes: input blocks, or its own results, which start from the bias.
template <class T>
struct Target {
    T* inputs;
    Index inputs_stride;
    T* results;
    Index results_stride;
    const T* bias;  // padded like a row of results
};

// The rows of W of one vector of units; lanes after the last unit repeat it.
template <class T, class Number>
void point_at(const Number* (&W)[lanes<T>], const Number* all, const Shape<T>& shape, Index part,
              Index group) {
    for (Index l = 0; l < lanes<T>; ++l)
        W[l] = all + (part * shape.width + min(group * lanes<T> + l, shape.width - 1)) * shape.k;
}

template <class T>
void multiply_dots(const T* const* rows, Index count, const Matrix<T>& m, const TileColumn<T>& column,
                   Index part, Index group) {
    const T* W[lanes<T>];
    point_at<T>(W, m.unpacked.native, m.shape, part, group);
    for (Index r = 0; r < count; ++r)
        store(column.to + r * column.to_stride,
              dots(W, rows[r], m.shape.k, load(column.from + r * column.from_stride)));
}

// The same with bfloat16, and rows that are deinterleaved. For several rows the weights are widened and
// deinterleaved first, which gives the same sums in the same order.
template <class T>
void multiply_bf16(const T* const* rows, Index count, const Matrix<T>& m, const TileColumn<T>& column,
                   Index part, Index group, T* workspace) {
    const Half* W[lanes<T>];
    point_at<T>(W, m.unpacked.half, m.shape, part, group);
    const Index K = m.shape.k;
    if (count == 1) return store(column.to, dots_bf16(W, rows[0], K, load(column.from)));
    const T* wide[lanes<T>];
    for (Index l = 0; l < lanes<T>; ++l) {
        deinterleave(W[l], K, workspace + l * K);
        wide[l] = workspace + l * K;
    }
    for (Index r = 0; r < count; ++r)
        store(column.to + r * column.to_stride,
              dots(wide, rows[r], K, load(column.from + r * column.from_stride)));
}

// The numbers of workspace for products of rows with an unpacked matrix in bfloat16.
template <class T>
Index bf16_workspace(Index rows, Index K) {
    return (rows + lanes<T>)*K;
}

// Deinterleaves rows into the workspace, one after the other.
template <class T>
void deinterleave_rows(const T* const* rows, Index count, Index K, const T** deinterleaved, T* workspace) {
    for (Index r = 0; r < count; ++r) {
        deinterleave(rows[r], K, workspace + r * K);
        deinterleaved[r] = workspace + r * K;
    }
}

// While the tiles of one panel run, each prefetches its share of the next panel: of weights beyond the
// second-level cache the first tile would otherwise wait for all.
template <class T>
Prefetch prefetch_next(const Matrix<T>& m, Index next, Index vectors, Index tiles) {
    if (m.unpacked_transposed || tiles == 0) return {};
    const Index bytes = vectors * lanes<T> * static_cast<Index>(sizeof(T));  // for one k
    return {reinterpret_cast<const char*>(m.at(next)), bytes / tiles};
}

// Whether a matrix of this type of numbers exceeds what a third-level cache keeps from step to step.
template <class Number, class T>
bool exceeds_caches(const Matrix<T>& m) {
    constexpr Index kNear = 8'000'000;
    return m.shape.vectors() * lanes<T> * m.shape.k * static_cast<Index>(sizeof(Number)) > kNear;
}

// All rows times one panel.
template <class T, class Number>
void run_tiles(const T* const* rows, Index count, Index tile_rows, const Matrix<T>& m, const Number* B,
               Index from, Index panel_vectors, const TileColumn<T>* columns, Prefetch prefetch) {
    const Index ld = m.ld(from, panel_vectors);
    for (Index r = 0; r < count; r += tile_rows) {
        const int R = static_cast<int>(min<Index>(tile_rows, count - r));
        tile_for<T, Number>(R, static_cast<int>(panel_vectors))(
            rows + r, m.segments.data(), static_cast<int>(m.count), B, ld, columns, r, prefetch);
        prefetch.at += prefetch.bytes_per_k * m.shape.k;
    }
}

// Rows [count] times the vectors of a range of groups. `workspace` has bf16_workspace() numbers if the
// matrix is unpacked in bfloat16.
template <class T>
void multiply(const T* const* rows, Index count, const Matrix<T>& m, GroupRange range,
              const Target<T>& target, T* workspace = nullptr) {
    const Index parts = m.shape.parts, block_pitch = pitch(m.shape.width);
    const Index first = range.first * parts, last = range.last * parts;
    const int tile_rows =
        m.vectors <= kTileVectors ? kTileRows : kMaxTileVectors / static_cast<int>(m.vectors);
    const T* deinterleaved[kFewRows];
    if (m.unpacked.half) deinterleave_rows(rows, count, m.shape.k, deinterleaved, workspace);
    TileColumn<T> columns[kMaxTileVectors];
    Index panel_vectors = 1, group = range.first, part = 0;
    for (Index from = first; from < last; from += panel_vectors) {
        if (!m.dot()) panel_vectors = m.panel(from, last);
        for (Index v = 0; v < panel_vectors; ++v) {
            const int block = m.accumulators ? m.accumulators[part] : -1;
            const Index at = (block >= 0 ? block : part) * block_pitch + group * lanes<T>;
            if (block >= 0)
                columns[v] = {target.inputs + at, target.inputs_stride, target.inputs + at,
                              target.inputs_stride};
            else columns[v] = {target.bias + at, 0, target.results + at, target.results_stride};
            if (m.unpacked.native) multiply_dots(rows, count, m, columns[0], part, group);
            if (m.unpacked.half)
                multiply_bf16(deinterleaved, count, m, columns[0], part, group,
                              workspace + count * m.shape.k);
            if (++part == parts) {
                part = 0;
                ++group;
            }
        }
        if (m.dot()) continue;
        if (m.unpacked_transposed.half && m.is_unpacked(from)) {
            if constexpr (sizeof(T) == sizeof(float))
                run_tiles(rows, count, tile_rows, m, m.unpacked_transposed.half + from * lanes<T>, from,
                          panel_vectors, columns, Prefetch{nullptr, 0, exceeds_caches<Half>(m)});
            continue;
        }
        if constexpr (sizeof(T) == sizeof(float)) {
            const Index start = from * lanes<T> * divide_up(m.shape.k, 2);
            if (m.bf16.data()) {
                run_tiles(rows, count, tile_rows, m, m.bf16.data() + start, from, panel_vectors, columns,
                          Prefetch{nullptr, 0, exceeds_caches<Half>(m)});
                continue;
            }
            if (m.int8.data()) {
                for (Index v = 0; v < panel_vectors; ++v)
                    columns[v].scale = m.scales.data() + (from + v) * lanes<T>;
                run_tiles(rows, count, tile_rows, m, m.int8.data() + start, from, panel_vectors, columns,
                          Prefetch{nullptr, 0, exceeds_caches<Int8>(m)});
                continue;
            }
        }
        Prefetch prefetch = prefetch_next(m, from + panel_vectors < last ? from + panel_vectors : first,
                                          panel_vectors, count / tile_rows);
        prefetch.beyond_caches = exceeds_caches<T>(m);
        run_tiles(rows, count, tile_rows, m, m.at(from), from, panel_vectors, columns, prefetch);
    }
}

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

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
