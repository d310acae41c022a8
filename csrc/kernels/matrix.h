// Matrices of products in the forms that suit their calls, and how they are packed.
#pragma once

#include "kernels/block_diagonal.h"
#include "kernels/low_precision.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// For up to this many rows weights are read unpacked: packing would cost more.
constexpr Index kFewRows = 8;

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
    Storage<const T> unpacked;             // [parts * width, block_k]
    Storage<const T> unpacked_transposed;  // [k, block_width]
    Buffer<Segment> segments;              // `count` for all vectors; or for each group, with its blocks
    Index count = 1;
    Buffer<Index> ends;   // with blocks, by group: the next group that reads from other blocks
    Index block_row = 0;  // with blocks: the numbers of a row
    const int* accumulators = nullptr;
    bool rounds = false;  // unpacked: rows and weights are rounded to bfloat16

    // The numbers of a row, from its first to the last that a segment has.
    Index row_numbers() const {
        if (ends.count()) return block_row;
        Index end = 0;
        for (Index s = 0; s < count; ++s) end = max(end, segments[s].a + segments[s].length);
        return end;
    }

    // Rows of the packed matrix in bfloat16: pairs do not reach from one segment to the next.
    Index pairs() const {
        if (ends.count()) return count * divide_up(shape.k / max<Index>(count, 1), 2);
        Index sum = 0;
        for (Index s = 0; s < count; ++s) sum += divide_up(segments[s].length, 2);
        return sum;
    }

    // Rows of a panel that is packed in this type of numbers.
    template <class Number>
    Index packed_rows() const {
        return sizeof(Number) == sizeof(Bf16Pair) && bf16.data() ? pairs() : shape.k;
    }

    // Whether rows are multiplied as bfloat16.
    bool takes_bf16() const { return kMultipliesBf16<T> && (bf16.data() || (dot() && rounds)); }

    bool dot() const { return static_cast<bool>(unpacked); }

    // The number of vectors of the panel that starts at `first`, and where it lies.
    Index panel(Index first, Index last) const {
        if (is_unpacked(first)) last = min(last, shape.width / lanes<T>);
        if (ends.count()) last = min(last, ends[first / shape.parts] * shape.parts);
        return min(vectors, last - first);
    }
    const Segment* segments_of(Index first) const {
        return segments.data() + (ends.count() ? first / shape.parts * count : 0);
    }
    bool is_unpacked(Index first) const { return unpacked_transposed && first < shape.width / lanes<T>; }
    const T* at(Index first) const {
        if (is_unpacked(first)) return unpacked_transposed.native + shape.place(first);
        return unpacked_transposed ? packed.data() : packed.data() + first * lanes<T> * shape.k;
    }
    Index ld(Index first, Index count) const {
        return is_unpacked(first) ? shape.block_width() : count * lanes<T>;
    }
};

// Sets the shape of a matrix of rows [parts * width, k / blocks].
template <class T>
void set_shape(Matrix<T>& m, Index parts, Index width, Index k, Index blocks) {
    m.shape = {parts, width, 0, blocks, k / blocks};
    m.shape.k = m.shape.max_blocks() * m.shape.block_k;
    const Segment all{0, k, 0, 0};
    m.segments = blocks == 1 ? Buffer<Segment>(1) : divide_segments(m.shape, &all, 1, false);
    if (blocks == 1) m.segments[0] = all;
    m.ends = panel_ends(m.shape);
    m.block_row = k;
}

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

// The same where the rows are of several blocks, or shorter than the panel: in numbers, or in pairs.
template <class T, class Number>
void pack_blocks(const Number* const* rows, const Shape<T>& shape, Index group, T* to, Index ld) {
    for (Index k = 0; k < shape.k; ++k) store(to + k * ld, Vec<T>{});
    shape.for_numbers_of(
        group, [&](Index lane, Index place, Index k) { to[place * ld + lane] = T(widened(rows[lane][k])); });
}
template <class T, class Number>
void pack_blocks(const Number* const* rows, const Shape<T>& shape, Index group, Bf16Pair* to, Index ld) {
    for (Index k = 0; k < shape.k; k += 2) clear(to + k / 2 * ld, lanes<T>);
    shape.for_numbers_of(group, [&](Index lane, Index place, Index k) {
        Bf16Pair& pair = to[place / 2 * ld + lane];
        (place % 2 ? pair.odd : pair.even) = rounded_to_bf16(static_cast<float>(widened(rows[lane][k])));
    });
}

// Packs vectors [first, last) of W [parts * width, block_k], transposed.
template <class T, class Number>
void pack_rows(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index K = m.shape.k;
    const bool whole = m.shape.block_k == K;
    for (Index from = first, count; from < last; from += count) {
        count = m.panel(from, last);
        const Index start = from * lanes<T>, ld = count * lanes<T>;
        for (Index v = 0; v < count; ++v) {
            const Index group = (from + v) / m.shape.parts, part = (from + v) % m.shape.parts;
            const Index valid = min<Index>(lanes<T>, m.shape.width - group * lanes<T>);
            const Number* rows[lanes<T>];
            point_at<T>(rows, W, m.shape, part, group);
            if constexpr (kMultipliesBf16<T>)
                if (m.bf16.data()) {
                    Bf16Pair* const to = m.bf16.data() + start * m.pairs() + v * lanes<T>;
                    if (whole) pack_pairs_of_rows(rows, valid, K, to, ld);
                    else pack_blocks<T>(rows, m.shape, group, to, ld);
                    continue;
                }
            T* const to = m.packed.data() + start * K + v * lanes<T>;
            if (whole) pack_vector(rows, valid, K, to, ld);
            else pack_blocks<T>(rows, m.shape, group, to, ld);
        }
    }
}

template <class T>
void pack(Matrix<T>& m, const Storage<const T>& W, Index first, Index last) {
    if (W.half) pack_rows(m, W.half, first, last);
    else pack_rows(m, W.native, first, last);
}

// Packs vectors [first, last) of W [k, block_width], not transposed; there is one part.
template <class T, class Number>
void pack_columns(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index width = m.shape.block_width();
    if (m.unpacked_transposed) first = max(first, m.shape.width / lanes<T>);
    for (Index from = first, count; from < last; from += count) {
        count = m.panel(from, last);
        T* to = const_cast<T*>(m.at(from));
        const Index start = from * lanes<T>, end = start + count * lanes<T>;
        const Segment* const segments = m.segments_of(from);
        for (Index s = 0; s < m.count; ++s)
            for (Index k = 0; k < segments[s].length; ++k) {
                T* at = to + (segments[s].b + k) * count * lanes<T>;
                const Index block = m.shape.block_of_row(from, k) * width;
                const Number* row = W + (segments[s].source + k) * width - block;
                const Index a = max(start, block), b = min(end, block + width);
                for (Index j = start; j < a; ++j) at[j - start] = 0;
                for (Index j = a; j < b; ++j) at[j - start] = T(widened(row[j]));
                for (Index j = b; j < end; ++j) at[j - start] = 0;
            }
    }
}

#if UNROLLED_MULTIPLIES_BF16
// A vector of numbers from `column` on of a row, which begins behind or before it; zeros outside of the row.
template <class Number>
Vec<float> load_columns(const Number* row, Index width, Index column) {
    if (column >= width || column + lanes<float> <= 0) return Vec<float>{};
    if (column >= 0) return load_part_as<float>(row + column, width - column);
    alignas(64) float numbers[lanes<float>] = {};
    for (Index k = 0; k < min(width, column + lanes<float>); ++k) numbers[k - column] = widened(row[k]);
    return load(numbers);
}

// The same in pairs along k.
template <class Number>
void pack_pairs_of_columns(Matrix<float>& m, const Number* W, Index first, Index last) {
    constexpr Index L = lanes<float>;
    const Index width = m.shape.block_width();
    for (Index from = first, count; from < last; from += count) {
        count = m.panel(from, last);
        Bf16Pair* const to = m.bf16.data() + from * L * m.pairs();
        const Segment* const segments = m.segments_of(from);
        const auto numbers = [&](const Segment& segment, Index k, Index column) {
            if (k >= segment.length) return Vec<float>{};
            const Index block = m.shape.block_of_row(from, k) * width;
            return load_columns(W + (segment.source + k) * width, width, column - block);
        };
        for (Index s = 0; s < m.count; ++s)
            for (Index k = 0; k < segments[s].length; k += 2)
                for (Index v = 0; v < count; ++v) {
                    const Index column = (from + v) * L;
                    store_bf16_pairs(
                        to + ((segments[s].b + k / 2) * count + v) * L,
                        rounded_pairs(numbers(segments[s], k, column), numbers(segments[s], k + 1, column)));
                }
    }
}
#endif

template <class T>
void pack_transposed(Matrix<T>& m, const Storage<const T>& W, Index first, Index last) {
    if constexpr (kMultipliesBf16<T>)
        if (m.bf16.data()) {
            if (W.half) return pack_pairs_of_columns(m, W.half, first, last);
            return pack_pairs_of_columns(m, W.native, first, last);
        }
    if (W.half) pack_columns(m, W.half, first, last);
    else pack_columns(m, W.native, first, last);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
