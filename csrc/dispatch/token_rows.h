// Where tokens are in the caller's arrays. src/unrolled/_token_rows.py orders ragged batches by length.
#pragma once

#include "support/types.h"

namespace unrolled {

// The row of token (t, n). Sequences are numbered from the longest; tokens step by step.
struct TokenRows {
    const Index* table = nullptr;  // [total] by token number; null if the batch is dense
    Index start = 0;               // dense: row start + t * stride_t + n * stride_n
    Index stride_t = 0, stride_n = 0;

    [[gnu::always_inline]] Index dense_row(Index t, Index n) const {
        return start + t * stride_t + n * stride_n;
    }
};

// Of a dense array [T, N] or, batch first, [N, T]; reverse: the last step is read first.
constexpr TokenRows dense_token_rows(Index T, Index N, bool batch_first, bool reverse) {
    const Index stride_t = batch_first ? 1 : N, stride_n = batch_first ? T : 1;
    return {nullptr, reverse ? (T - 1) * stride_t : 0, reverse ? -stride_t : stride_t, stride_n};
}

}  // namespace unrolled
