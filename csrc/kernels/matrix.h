// Matrices of products in the forms that suit their calls, and how they are packed.
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
    bool rounds = false;  // unpacked: rows and weights are rounded to bfloat16

    // The numbers of a row, from its first to the last that a segment has.
    Index row_numbers() const {
        Index end = 0;
        for (Index s = 0; s < count; ++s) end = max(end, segments[s].a + segments[s].length);
        return end;
    }

    // Rows of the packed matrix in bfloat16: pairs do not reach from one segment to the next.
    Index pairs() const {
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
        const Index count = min<Index>(m.vectors, last - from), start = from * lanes<T>;
        for (Index v = 0; v < count; ++v) {
            const Index group = (from + v) / m.shape.parts, part = (from + v) % m.shape.parts;
            const Index unit = group * lanes<T>, valid = min<Index>(lanes<T>, width - unit);
            const Number* rows[lanes<T>];
            for (Index l = 0; l < lanes<T>; ++l) rows[l] = W + (part * width + unit + min(l, valid - 1)) * K;
            if constexpr (kMultipliesBf16<T>)
                if (m.bf16.data()) {
                    pack_pairs_of_rows(rows, valid, K, m.bf16.data() + start * m.pairs() + v * lanes<T>,
                                       count * lanes<T>);
                    continue;
                }
            pack_vector(rows, valid, K, m.packed.data() + start * K + v * lanes<T>, count * lanes<T>);
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

#if UNROLLED_MULTIPLIES_BF16
// The same in pairs along k.
template <class Number>
void pack_pairs_of_columns(Matrix<float>& m, const Number* W, Index first, Index last) {
    constexpr Index L = lanes<float>;
    const Index width = m.shape.width;
    const auto number = [&](Index row, Index column) {
        return column < width ? load_part_as<float>(W + row * width + column, width - column) : Vec<float>{};
    };
    for (Index from = first; from < last; from += m.vectors) {
        const Index count = min(m.vectors, last - from);
        Bf16Pair* const to = m.bf16.data() + from * L * m.pairs();
        for (Index s = 0; s < m.count; ++s)
            for (Index k = 0; k < m.segments[s].length; k += 2)
                for (Index v = 0; v < count; ++v) {
                    const Index row = m.segments[s].source + k, column = (from + v) * L;
                    const Vec<float> second =
                        k + 1 < m.segments[s].length ? number(row + 1, column) : Vec<float>{};
                    store_bf16_pairs(to + ((m.segments[s].b + k / 2) * count + v) * L,
                                     rounded_pairs(number(row, column), second));
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
