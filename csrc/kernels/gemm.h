// Products of rows with a matrix.
#pragma once

#include "kernels/matrix.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The rows that a product writes: input blocks, or its own results, which start from the bias.
template <class T>
struct Target {
    T* inputs;
    Index inputs_stride;
    T* results;
    Index results_stride;
    const T* bias;  // padded like a row of results
};

// A row times the rows of weights of a vector of units, which may be of several blocks.
template <class T>
Vec<T> block_dots(const T* const* W, const T* row, const Shape<T>& shape, Index group, Vec<T> start) {
    const BlockRange blocks = shape.blocks_of(group);
    if (blocks.count == 1) return dots(W, row + blocks.first * shape.block_k, shape.block_k, start);
    const T* by_lane[lanes<T>];
    point_at_sources(by_lane, row, shape, group);
    return dots_by_lane(W, by_lane, shape.block_k, start);
}

template <class T>
void multiply_dots(const T* const* rows, Index count, const Matrix<T>& m, const TileColumn<T>& column,
                   Index part, Index group) {
    const T* W[lanes<T>];
    point_at<T>(W, m.unpacked.native, m.shape, part, group);
    for (Index r = 0; r < count; ++r)
        store(column.to + r * column.to_stride,
              block_dots(W, rows[r], m.shape, group, load(column.from + r * column.from_stride)));
}

// The numbers of workspace of products with bfloat16: of rows with so many numbers.
template <class T>
Index bf16_workspace(Index rows, Index numbers) {
    return kMultipliesBf16<T> ? rows * divide_up(numbers, 2) : (rows + lanes<T>)*numbers;
}

// The rows of a product, and in the workspace their copies for weights in bfloat16: rounded if these are
// multiplied as they are, else deinterleaved.
template <class T>
class ProductRows {
public:
    ProductRows(const T* const* rows, Index count, const Matrix<T>& m, T* workspace)
        : rows_(rows), copies_(workspace), numbers_(m.row_numbers()) {
        if (m.takes_bf16()) {
            if constexpr (kMultipliesBf16<T>)
                for (Index r = 0; r < count; ++r) round_row(rows[r], numbers_, const_cast<Half*>(rounded(r)));
        } else if (m.unpacked.half) {
            const Index K = m.shape.block_k;  // the numbers of each block by themselves
            for (Index r = 0; r < count; ++r)
                for (Index k = 0; k < numbers_; k += K)
                    deinterleave(rows[r] + k, K, copies_ + r * numbers_ + k);
        }
    }

    const Half* rounded(Index r) const {
        return reinterpret_cast<const Half*>(copies_) + r * round_up(numbers_, 2);
    }
    const T* deinterleaved(Index r) const { return copies_ + r * numbers_; }

    // Rows of a tile; pointers to copies are written into `pointers`.
    const T* const* tile(Index r, Index, const T**) const { return rows_ + r; }
    const Half* const* tile(Index r, Index count, const Half** pointers) const {
        for (Index k = 0; k < count; ++k) pointers[k] = rounded(r + k);
        return pointers;
    }

private:
    const T* const* rows_;
    T* copies_;
    Index numbers_;
};

// Deinterleaved rows times weights in bfloat16. For several rows the weights are widened and deinterleaved
// first, which gives the same sums in the same order; also for one row and units of several blocks.
template <class T>
void multiply_bf16(const ProductRows<T>& rows, Index count, const Matrix<T>& m, const TileColumn<T>& column,
                   Index part, Index group, T* workspace) {
    const Half* W[lanes<T>];
    point_at<T>(W, m.unpacked.half, m.shape, part, group);
    const Index K = m.shape.block_k;
    const BlockRange blocks = m.shape.blocks_of(group);
    if (count == 1 && blocks.count == 1)
        return store(column.to, dots_bf16(W, rows.deinterleaved(0) + blocks.first * K, K, load(column.from)));
    const T* wide[lanes<T>];
    for (Index l = 0; l < lanes<T>; ++l) {
        deinterleave(W[l], K, workspace + l * K);
        wide[l] = workspace + l * K;
    }
    for (Index r = 0; r < count; ++r)
        store(column.to + r * column.to_stride, block_dots(wide, rows.deinterleaved(r), m.shape, group,
                                                           load(column.from + r * column.from_stride)));
}

#if UNROLLED_MULTIPLIES_BF16
template <class Number>
void multiply_bf16_pairs(const ProductRows<float>& rows, Index count, const Matrix<float>& m,
                         const Number* weights, const TileColumn<float>& column, Index part, Index group) {
    const Number* W[lanes<float>];
    point_at<float>(W, weights, m.shape, part, group);
    const BlockRange blocks = m.shape.blocks_of(group);
    const Index K = m.shape.block_k;
    for (Index r = 0; r < count; ++r) {
        const Vec<float> start = load(column.from + r * column.from_stride);
        const Half* by_lane[lanes<float>];
        if (blocks.count > 1) point_at_sources(by_lane, rows.rounded(r), m.shape, group);
        store(column.to + r * column.to_stride,
              blocks.count > 1 ? dots_bf16_pairs_by_lane(W, by_lane, K, start)
                               : dots_bf16_pairs(W, rows.rounded(r) + blocks.first * K, K, start));
    }
}
#endif

// Rows times one vector of units of an unpacked matrix.
template <class T>
void multiply_unpacked(const T* const* rows, const ProductRows<T>& product_rows, Index count,
                       const Matrix<T>& m, const TileColumn<T>& column, Index part, Index group,
                       T* workspace) {
    if constexpr (kMultipliesBf16<T>) {
        if (m.takes_bf16() && m.unpacked.half)
            return multiply_bf16_pairs(product_rows, count, m, m.unpacked.half, column, part, group);
        if (m.takes_bf16())
            return multiply_bf16_pairs(product_rows, count, m, m.unpacked.native, column, part, group);
    }
    if (m.unpacked.native) return multiply_dots(rows, count, m, column, part, group);
    multiply_bf16(product_rows, count, m, column, part, group, workspace + count * m.row_numbers());
}

// While the tiles of one panel run, each prefetches its share of the next panel: of weights beyond the
// second-level cache the first tile would otherwise wait for all.
// `numbers`: of the panel in one row of the packed matrix.
template <class Number>
Prefetch prefetch_next(const Number* next, Index numbers, Index tiles) {
    if (tiles == 0) return {};
    const Index bytes = numbers * static_cast<Index>(sizeof(Number));
    return {reinterpret_cast<const char*>(next), bytes / tiles};
}

// Whether a matrix exceeds what a third-level cache keeps from step to step.
template <class T>
bool exceeds_caches(const Matrix<T>& m) {
    constexpr Index kNear = 8'000'000;
    Index bytes = m.shape.k;  // of a lane
    if (m.bf16.data()) bytes = m.pairs() * static_cast<Index>(sizeof(Bf16Pair));
    else if (m.unpacked_transposed.half) bytes *= static_cast<Index>(sizeof(Half));
    else if (!m.int8.data()) bytes *= static_cast<Index>(sizeof(T));
    return m.shape.vectors() * lanes<T> * bytes > kNear;
}

// All rows times one panel, in tiles of almost equal size: each reads the whole panel, whatever its rows.
// Fields of `prefetch` are read one by one: reading two at once would wait until the last tile is stored.
template <class T, class Number>
void run_tiles(const ProductRows<T>& rows, Index count, Index tiles, const Matrix<T>& m, const Number* B,
               Index from, Index panel_vectors, const TileColumn<T>* columns, Prefetch prefetch) {
    if (tiles == 0) return;
    const Index ld = m.ld(from, panel_vectors), fewest = count / tiles, larger = count - tiles * fewest;
    const Index prefetched = prefetch.bytes_per_k * m.template packed_rows<Number>();
    const Segment* segments = m.segments_of(from);
    const int vectors = static_cast<int>(panel_vectors), segment_count = static_cast<int>(m.count);
    for (Index tile = 0, r = 0; tile < tiles; ++tile) {
        const Index R = fewest + (tile < larger ? 1 : 0);
        const RowNumber<T, Number>* pointers[kTileRows];
        tile_for<T, Number>(static_cast<int>(R), vectors)(rows.tile(r, R, pointers), segments, segment_count,
                                                          B, ld, columns, r, prefetch);
        prefetch.at += prefetched;
        r += R;
    }
}

// Rows [count] times the vectors of a range of groups. `workspace` has bf16_workspace() numbers if the
// matrix is in bfloat16.
template <class T>
void multiply(const T* const* rows, Index count, const Matrix<T>& m, GroupRange range,
              const Target<T>& target, T* workspace = nullptr) {
    const Index parts = m.shape.parts, block_pitch = pitch(m.shape.width);
    const Index first = range.first * parts, last = range.last * parts;
    const Index tiles = divide_up(count, max_tile_rows(m.vectors));
    const bool beyond_caches = exceeds_caches(m);
    const ProductRows<T> product_rows(rows, count, m, workspace);
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
            if (m.dot()) multiply_unpacked(rows, product_rows, count, m, columns[0], part, group, workspace);
            if (++part == parts) {
                part = 0;
                ++group;
            }
        }
        if (m.dot()) continue;
        if (m.unpacked_transposed.half && m.is_unpacked(from)) {
            if constexpr (sizeof(T) == sizeof(float))
                run_tiles(product_rows, count, tiles, m, m.unpacked_transposed.half + m.shape.place(from),
                          from, panel_vectors, columns, Prefetch{nullptr, 0, beyond_caches});
            continue;
        }
        if constexpr (sizeof(T) == sizeof(float)) {
            const Index start = from * lanes<T> * m.pairs();
            if (m.bf16.data()) {
                const Index next = from + panel_vectors < last ? from + panel_vectors : first;
                Prefetch prefetch = prefetch_next(m.bf16.data() + next * lanes<T> * m.pairs(),
                                                  panel_vectors * lanes<T>, tiles);
                prefetch.beyond_caches = beyond_caches;
                run_tiles(product_rows, count, tiles, m, m.bf16.data() + start, from, panel_vectors, columns,
                          prefetch);
                continue;
            }
            if (m.int8.data()) {
                for (Index v = 0; v < panel_vectors; ++v)
                    columns[v].scale = m.scales.data() + (from + v) * lanes<T>;
                run_tiles(product_rows, count, tiles, m, m.int8.data() + start, from, panel_vectors, columns,
                          Prefetch{nullptr, 0, beyond_caches});
                continue;
            }
        }
        Prefetch prefetch;
        if (!m.unpacked_transposed)
            prefetch = prefetch_next(m.at(from + panel_vectors < last ? from + panel_vectors : first),
                                     panel_vectors * lanes<T>, tiles);
        prefetch.beyond_caches = beyond_caches;
        run_tiles(product_rows, count, tiles, m, m.at(from), from, panel_vectors, columns, prefetch);
    }
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
