// The shape of a matrix whose vectors read all numbers of a row, or, block-diagonal, those of their blocks.
#pragma once

#include "kernels/bf16.h"

namespace unrolled {
namespace UNROLLED_BUILD {

struct BlockRange {
    Index first, count;
};

// The vectors of a matrix: unit by unit, within it part by part, so that all gates of a unit stand
// together and threads that share the units share the vectors. A group is the vectors of `lanes` units,
// one for each part.
//
// A dense matrix is one block. Of a block-diagonal one a vector reads the numbers of the blocks that its
// units belong to; where they are several, what is packed has zeros.
template <class T>
struct Shape {
    Index parts = 1, width = 0;                                  // columns: parts * width
    Index k = 0;                                                 // rows that a vector reads at most
    Index blocks = 1;                                            // of each part
    Index block_k = k;                                           // rows that a block reads
    Index groups() const { return divide_up(width, lanes<T>); }  // vectors of one part
    Index vectors() const { return groups() * parts; }

    Index block_width() const { return width / blocks; }
    Index block_of(Index unit) const { return blocks == 1 ? 0 : unit / block_width(); }
    BlockRange blocks_of(Index group) const {
        if (blocks == 1) return {0, 1};
        const Index first = block_of(group * lanes<T>);
        return {first, block_of(min((group + 1) * lanes<T>, width) - 1) - first + 1};
    }
    // Where a group begins in a row of a transposed matrix: within its block.
    Index place(Index group) const { return group * lanes<T> - blocks_of(group).first * block_width(); }

    // The block of row k of a segment of the panel that starts at a group.
    Index block_of_row(Index group, Index k) const {
        return blocks == 1 ? 0 : blocks_of(group).first + k / block_k;
    }

    // For each number of a vector: calls work(lane, row in the panel, k within the block).
    template <class F>
    void for_numbers_of(Index group, F work) const {
        const Index first = blocks_of(group).first;
        for (Index l = 0; l < lanes<T> && group * lanes<T> + l < width; ++l) {
            const Index start = (block_of(group * lanes<T> + l) - first) * block_k;
            for (Index k = 0; k < block_k; ++k) work(l, start + k, k);
        }
    }

    // The most blocks that a vector reads.
    Index max_blocks() const {
        Index count = 1;
        for (Index group = 0; blocks > 1 && group < groups(); ++group)
            count = max(count, blocks_of(group).count);
        return count;
    }
};

// The rows of W of one vector of units; lanes after the last unit repeat it.
template <class T, class Number>
void point_at(const Number** W, const Number* all, const Shape<T>& shape, Index part, Index group) {
    for (Index l = 0; l < lanes<T>; ++l)
        W[l] = all + (part * shape.width + min(group * lanes<T> + l, shape.width - 1)) * shape.block_k;
}

// The numbers of a row that each unit of a vector reads.
template <class T, class Number>
void point_at_sources(const Number** sources, const Number* row, const Shape<T>& shape, Index group) {
    for (Index l = 0; l < lanes<T>; ++l)
        sources[l] = row + shape.block_of(min(group * lanes<T> + l, shape.width - 1)) * shape.block_k;
}

// As dots(), with a row for each lane.
template <class T>
Vec<T> dots_by_lane(const T* const* W, const T* const* a, Index K, Vec<T> start) {
    Vec<T> acc[lanes<T>];
    for (int l = 0; l < lanes<T>; ++l) {
        acc[l] = Vec<T>{};
        for (Index k = 0; k < K; k += lanes<T>)
            acc[l] += load_part(a[l] + k, K - k) * load_part(W[l] + k, K - k);
    }
    return start + sums<T>(acc);
}

#if UNROLLED_MULTIPLIES_BF16
template <class Number>
Vec<float> dots_bf16_pairs_by_lane(const Number* const* W, const Half* const* a, Index K, Vec<float> start) {
    Vec<float> acc[lanes<float>];
    for (int l = 0; l < lanes<float>; ++l) {
        acc[l] = Vec<float>{};
        for (Index k = 0; k < K; k += 2 * lanes<float>)
            add_bf16_products(acc[l], round_neighbors(a[l] + k, K - k), round_neighbors(W[l] + k, K - k));
    }
    return start + sums<float>(acc);
}
#endif

// By group the next one that reads from other blocks. No panel reaches beyond it: it would have to read
// the numbers of more blocks.
template <class T>
Buffer<Index> panel_ends(const Shape<T>& shape) {
    if (shape.blocks == 1) return {};
    Buffer<Index> ends(shape.groups());
    for (Index group = shape.groups() - 1; group >= 0; --group) {
        ends[group] = group + 1;
        if (group + 1 == shape.groups()) continue;
        const BlockRange here = shape.blocks_of(group), next = shape.blocks_of(group + 1);
        if (here.first == next.first && here.count == next.count) ends[group] = ends[group + 1];
    }
    return ends;
}

// For each group the parts of segments of all blocks that its blocks read, packed as numbers or in pairs.
template <class T>
Buffer<Segment> divide_segments(const Shape<T>& shape, const Segment* all, Index count, bool in_pairs) {
    Buffer<Segment> segments(shape.groups() * count);
    for (Index group = 0; group < shape.groups(); ++group) {
        const BlockRange blocks = shape.blocks_of(group);
        const Index skipped = blocks.first * shape.block_k, length = blocks.count * shape.block_k;
        const Index packed_rows = in_pairs ? divide_up(length, 2) : length;
        for (Index s = 0; s < count; ++s)
            segments[group * count + s] = {all[s].a + skipped, length, s * packed_rows,
                                           all[s].source + skipped};
    }
    return segments;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
