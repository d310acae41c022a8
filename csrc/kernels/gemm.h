// Products of rows with a matrix, and the gradient of a matrix over many tokens.
#pragma once

#include "kernels/buffer.h"
#include "kernels/low_precision.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Products of so few rows read the weights where they lie: packing them would cost more.
constexpr Index kFewRows = 8;

// The vectors of a matrix: unit by unit, within it part by part, so that all gates of a unit stand
// together, and threads that share the units share the vectors.
template <class T>
struct Shape {
    Index parts, width;  // columns: parts * width
    Index k;             // rows in all segments
    Index groups() const { return divide_up(width, lanes<T>); }  // vectors of one part
    Index vectors() const { return groups() * parts; }
};

// A share of the vectors: whole groups of units.
struct Share {
    Index first, last;
};

// Groups of `width` units for one of `count` threads; two groups or more stay together, so that no
// two threads write to one cache line.
template <class T>
Share share_units(Index width, Index me, Index count) {
    const Index all = divide_up(width, lanes<T>);
    if (count == 1) return {0, all};
    constexpr Index grain = UNROLLED_BYTES < 64 ? 64 / UNROLLED_BYTES : 1;
    const Index blocks = divide_up(all, grain);
    return {least(all, blocks * me / count * grain), least(all, blocks * (me + 1) / count * grain)};
}

// A matrix for products with rows: packed [panel][k][vector][lane], or read where it lies, which
// small calls do: the weights in `plain` by dot products, a transposed product's in `lying` (but for
// the last vector, which may reach beyond a row and is packed).
//
// `onto` says for each part where its sums start from and go to: a block of the row of inputs, or
// (-1) its own place from the bias.
template <class T>
struct Matrix {
    Shape<T> shape;
    Index vectors = 1;            // of a panel
    Buffer<T> packed;
    Buffer<Halves> brief;         // the same in bfloat16, two k side by side, or
    Buffer<Tinies> tiny;          // in int8, with a scale for each lane of each vector
    Buffer<T> scales;
    Lines<const T> plain;         // [parts * width, k]
    Lines<const T> lying;         // [k, width]
    Buffer<Segment> segments;
    Index count = 1;              // of segments
    const int* onto = nullptr;

    bool dot() const { return static_cast<bool>(plain); }

    // Vectors of the panel that starts at one, and where its numbers are.
    Index panel(Index first, Index last) const {
        const Index whole = shape.width / lanes<T>;
        if (lying && first < whole) return least(vectors, least(last, whole) - first);
        return least(vectors, last - first);
    }
    bool lies(Index first) const { return lying && first < shape.width / lanes<T>; }
    const T* at(Index first) const {
        if (lies(first)) return lying.own + first * lanes<T>;
        return lying ? packed.data() : packed.data() + first * lanes<T> * shape.k;
    }
    Index ld(Index first, Index count) const {
        return lies(first) ? shape.width : count * lanes<T>;
    }
};

// One vector of columns, at steps of ld: `some` rows of W, transposed; zeros beyond them.
template <class T, class Number>
void pack_vector(const Number* const* rows, Index some, Index K, T* to, Index ld) {
    Index k = 0;
    for (; some == lanes<T> && k + lanes<T> <= K; k += lanes<T>) {
        Vec<T> block[lanes<T>];
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) block[l] = load_as<T>(rows[l] + k);
        transpose<T>(block);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) store(to + (k + l) * ld, block[l]);
    }
    for (; k < K; ++k)
        for (Index l = 0; l < lanes<T>; ++l) to[k * ld + l] = l < some ? T(value_of(rows[l][k])) : T(0);
}

// Packs vectors [first, last) of W [parts * width, k] as Wᵀ.
template <class T, class Number>
void pack_rows(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index K = m.shape.k, width = m.shape.width;
    for (Index from = first; from < last; from += m.vectors) {
        const Index count = least<Index>(m.vectors, last - from);
        T* to = m.packed.data() + from * lanes<T> * K;
        for (Index v = 0; v < count; ++v) {
            const Index group = (from + v) / m.shape.parts, part = (from + v) % m.shape.parts;
            const Index start = group * lanes<T>, some = least<Index>(lanes<T>, width - start);
            const Number* rows[lanes<T>];
            for (Index l = 0; l < lanes<T>; ++l)
                rows[l] = W + (part * width + start + least(l, some - 1)) * K;
            pack_vector(rows, some, K, to + v * lanes<T>, count * lanes<T>);
        }
    }
}

template <class T>
void pack(Matrix<T>& m, const Lines<const T>& W, Index first, Index last) {
    if (W.brief) pack_rows(m, W.brief, first, last);
    else pack_rows(m, W.own, first, last);
}

// Packs vectors [first, last) of W [k, width] as it is; parts is 1.
template <class T, class Number>
void pack_columns(Matrix<T>& m, const Number* W, Index first, Index last) {
    const Index width = m.shape.width;
    if (m.lying) first = most(first, width / lanes<T>);
    for (Index from = first; from < last; from += m.vectors) {
        const Index count = m.panel(from, last);
        T* to = const_cast<T*>(m.at(from));
        const Index start = from * lanes<T>, some = least(count * lanes<T>, width - start);
        for (Index s = 0; s < m.count; ++s)
            for (Index k = 0; k < m.segments[s].length; ++k) {
                T* at = to + (m.segments[s].b + k) * count * lanes<T>;
                const Number* row = W + (m.segments[s].source + k) * width + start;
                for (Index j = 0; j < some; ++j) at[j] = T(value_of(row[j]));
                for (Index j = some; j < count * lanes<T>; ++j) at[j] = 0;
            }
    }
}

template <class T>
void pack_transposed(Matrix<T>& m, const Lines<const T>& W, Index first, Index last) {
    if (W.brief) pack_columns(m, W.brief, first, last);
    else pack_columns(m, W.own, first, last);
}

// The two rows that a product may write: inputs, and its own results from a bias.
template <class T>
struct Target {
    T* inputs;
    Index inputs_stride;
    T* own;
    Index own_stride;
    const T* bias;  // padded as a row of results
};

// Rows of W for one vector of units; those beyond the last are it once more.
template <class T, class Number>
void point_at(const Number* (&W)[lanes<T>], const Number* all, const Shape<T>& shape, Index part,
              Index group) {
    for (Index l = 0; l < lanes<T>; ++l)
        W[l] = all + (part * shape.width + least(group * lanes<T> + l, shape.width - 1)) * shape.k;
}

template <class T>
void multiply_dots(const T* const* rows, Index count, const Matrix<T>& m, const Lane<T>& lane,
                   Index part, Index group) {
    const T* W[lanes<T>];
    point_at<T>(W, m.plain.own, m.shape, part, group);
    for (Index r = 0; r < count; ++r)
        store(lane.to + r * lane.to_stride,
              dots(W, rows[r], m.shape.k, load(lane.from + r * lane.from_stride)));
}

// The same with bfloat16, and rows that are unzipped. For several rows the weights are widened and
// unzipped first, which makes the same sums in the same order.
template <class T>
void multiply_brief(const T* const* rows, Index count, const Matrix<T>& m, const Lane<T>& lane,
                    Index part, Index group, T* space) {
    const Half* W[lanes<T>];
    point_at<T>(W, m.plain.brief, m.shape, part, group);
    const Index K = m.shape.k;
    if (count == 1)
        return store(lane.to, dots_brief(W, rows[0], K, load(lane.from)));
    const T* wide[lanes<T>];
    for (Index l = 0; l < lanes<T>; ++l) {
        unzip(W[l], K, space + l * K);
        wide[l] = space + l * K;
    }
    for (Index r = 0; r < count; ++r)
        store(lane.to + r * lane.to_stride,
              dots(wide, rows[r], K, load(lane.from + r * lane.from_stride)));
}

// Numbers of space that products of so many rows with a matrix in bfloat16 need.
template <class T>
Index brief_space(Index rows, Index K) {
    return (rows + lanes<T>) * K;
}

// The rows unzipped into space, one after the other.
template <class T>
void unzip_rows(const T* const* rows, Index count, Index K, const T** unzipped, T* space) {
    for (Index r = 0; r < count; ++r) {
        unzip(rows[r], K, space + r * K);
        unzipped[r] = space + r * K;
    }
}

// While the tiles of one panel run, each fetches its share of the panel that comes next: of weights that
// lie beyond the second-level cache its first tile would else wait for all.
template <class T>
Fetch fetch_next(const Matrix<T>& m, Index next, Index vectors, Index tiles) {
    if (m.lying || tiles == 0) return {};
    const Index bytes = vectors * lanes<T> * static_cast<Index>(sizeof(T));  // of a k
    return {reinterpret_cast<const char*>(m.at(next)), bytes / tiles};
}

// Whether a matrix of such numbers lies beyond what a cache of the third level keeps from step to step.
template <class Number, class T>
bool is_far(const Matrix<T>& m) {
    constexpr Index kNear = 8'000'000;
    return m.shape.vectors() * lanes<T> * m.shape.k * static_cast<Index>(sizeof(Number)) > kNear;
}

// All rows times one panel.
template <class T, class Number>
void run_tiles(const T* const* rows, Index count, Index tall, const Matrix<T>& m, const Number* B,
               Index from, Index some, const Lane<T>* lane, Fetch fetch) {
    const Index ld = m.ld(from, some);
    for (Index r = 0; r < count; r += tall) {
        const int R = static_cast<int>(least<Index>(tall, count - r));
        tile_for<T, Number>(R, static_cast<int>(some))(
            rows + r, m.segments.data(), static_cast<int>(m.count), B, ld, lane, r, fetch);
        fetch.at += fetch.pace * m.shape.k;
    }
}

// Rows [count] times the vectors of the groups [share.first, share.last). `space` as brief_space has
// it, where the matrix is in bfloat16 as it lies.
template <class T>
void multiply(const T* const* rows, Index count, const Matrix<T>& m, Share share,
              const Target<T>& target, T* space = nullptr) {
    const Index parts = m.shape.parts, block_pitch = pitch(m.shape.width);
    const Index first = share.first * parts, last = share.last * parts;
    const int tall = m.vectors <= kTallVectors ? kTall : kWide / static_cast<int>(m.vectors);
    const T* unzipped[kFewRows];
    if (m.plain.brief) unzip_rows(rows, count, m.shape.k, unzipped, space);
    Lane<T> lane[kWide];
    Index some = 1, group = share.first, part = 0;
    for (Index from = first; from < last; from += some) {
        if (!m.dot()) some = m.panel(from, last);
        for (Index v = 0; v < some; ++v) {
            const int block = m.onto ? m.onto[part] : -1;
            const Index at = (block >= 0 ? block : part) * block_pitch + group * lanes<T>;
            if (block >= 0)
                lane[v] = {target.inputs + at, target.inputs_stride, target.inputs + at,
                           target.inputs_stride};
            else
                lane[v] = {target.bias + at, 0, target.own + at, target.own_stride};
            if (m.plain.own) multiply_dots(rows, count, m, lane[0], part, group);
            if (m.plain.brief)
                multiply_brief(unzipped, count, m, lane[0], part, group, space + count * m.shape.k);
            if (++part == parts) {
                part = 0;
                ++group;
            }
        }
        if (m.dot()) continue;
        if (m.lying.brief && m.lies(from)) {
            if constexpr (sizeof(T) == sizeof(float))
                run_tiles(rows, count, tall, m, m.lying.brief + from * lanes<T>, from, some, lane,
                          Fetch{nullptr, 0, is_far<Half>(m)});
            continue;
        }
        if constexpr (sizeof(T) == sizeof(float)) {
            const Index start = from * lanes<T> * divide_up(m.shape.k, 2);
            if (m.brief.data()) {
                run_tiles(rows, count, tall, m, m.brief.data() + start, from, some, lane,
                          Fetch{nullptr, 0, is_far<Half>(m)});
                continue;
            }
            if (m.tiny.data()) {
                for (Index v = 0; v < some; ++v)
                    lane[v].scale = m.scales.data() + (from + v) * lanes<T>;
                run_tiles(rows, count, tall, m, m.tiny.data() + start, from, some, lane,
                          Fetch{nullptr, 0, is_far<Tiny>(m)});
                continue;
            }
        }
        Fetch fetch = fetch_next(m, from + some < last ? from + some : first, some, count / tall);
        fetch.far = is_far<T>(m);
        run_tiles(rows, count, tall, m, m.at(from), from, some, lane, fetch);
    }
}

// Tokens of one step in the sum of a weight's gradient: the sums are made chunk by chunk.
constexpr Index kChunk = 256;

// Packs [tokens][R] blocks of columns of D, row pitch ld, from column `at` on.
template <class T, int R>
void pack_slopes(const T* D, Index ld, Index tokens, T* to) {
    for (Index k = 0; k < tokens; ++k)
        for (int r = 0; r < R; ++r) to[k * R + r] = D[k * ld + r];
}

template <class T>
using OuterFunction = void (*)(const T*, const T*, Index, T*, Index, Index, bool);

template <class T, int V>
OuterFunction<T> find_outer(int v, bool tall) {
    if constexpr (V == 0) return nullptr;
    else if (v == V) return tall ? outer<T, kTall, V> : outer<T, 1, V>;
    else return find_outer<T, V - 1>(v, tall);
}

// Rows [m0, m1) of C [·, K] (+)= Dᵀ S over some tokens: D by columns of rows with pitch ld, S by row
// pointers. `space` has room for kChunk * (m1 - m0 + panel) numbers.
template <class T>
void weight_gradient(const T* D, Index ld, Index m0, Index m1, const T* const* S, Index K,
                     Index tokens, T* C, bool first, T* space) {
    if (tokens == 1) return outer_few<T, 1>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 2) return outer_few<T, 2>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 3) return outer_few<T, 3>(D, ld, S, m0, m1, K, C, first);
    if (tokens == 4) return outer_few<T, 4>(D, ld, S, m0, m1, K, C, first);
    constexpr Index panel = kTallVectors * lanes<T>;
    const Index tall_end = m0 + (m1 - m0) / kTall * kTall;
    for (Index m = m0; m < tall_end; m += kTall)
        pack_slopes<T, kTall>(D + m, ld, tokens, space + (m - m0) * tokens);
    for (Index m = tall_end; m < m1; ++m)
        pack_slopes<T, 1>(D + m, ld, tokens, space + (m - m0) * tokens);
    T* B = space + round_up((m1 - m0) * tokens, lanes<T>);
    for (Index k = 0; k < K; k += panel) {
        const Index columns = least(panel, K - k), vectors = divide_up(columns, lanes<T>);
        const Index last = columns - (vectors - 1) * lanes<T>;
        for (Index i = 0; i < tokens; ++i)
            for (Index v = 0; v < vectors; ++v)
                store(B + (i * vectors + v) * lanes<T>,
                      load_part(S[i] + k + v * lanes<T>, v + 1 < vectors ? lanes<T> : last));
        const OuterFunction<T> tall = find_outer<T, kTallVectors>(static_cast<int>(vectors), true);
        const OuterFunction<T> flat = find_outer<T, kTallVectors>(static_cast<int>(vectors), false);
        for (Index m = m0; m < tall_end; m += kTall)
            tall(space + (m - m0) * tokens, B, tokens, C + m * K + k, K, last, first);
        for (Index m = tall_end; m < m1; ++m)
            flat(space + (m - m0) * tokens, B, tokens, C + m * K + k, K, last, first);
    }
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
