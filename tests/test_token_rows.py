"""Where tokens lie, against a search over all positions."""

import numpy as np
import pytest

from unrolled._token_rows import (
    BatchLayout,
    IntArray,
    Major,
    TokenRows,
    dense_strides,
    layout_of_lengths,
)

T, N = 5, 4
LENGTHS = np.array([3, 5, 0, 3])


def positions(rows: TokenRows) -> list[list[int]]:
    """The rows of each step."""
    steps = np.split(rows.row_of_each(), np.cumsum(rows.batch_sizes)[:-1])
    return [step.tolist() for step in steps]


def expected_positions(major: Major, lengths: IntArray, reverse: bool) -> list[list[int]]:
    """By definition: sequences by falling length, each read from its own end in reverse."""
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    steps = []
    for step in range(max(lengths)):
        active = [n for n in order if lengths[n] > step]
        times = [lengths[n] - 1 - step if reverse else step for n in active]
        if major == "packed":  # tokens of earlier steps, then those of longer sequences
            rows = [
                sum(min(length, t) for length in lengths) + order.index(n)
                for n, t in zip(active, times, strict=True)
            ]
        elif major == "batch":
            rows = [n * T + t for n, t in zip(active, times, strict=True)]
        else:
            rows = [t * len(lengths) + n for n, t in zip(active, times, strict=True)]
        steps.append([int(row) for row in rows])
    return steps


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("major", ["time", "batch"])
@pytest.mark.parametrize("lengths", [LENGTHS, np.full(N, T), np.array([1, 1, 1, 2])])
def test_rows_of_padded_batches(major: Major, lengths: IntArray, reverse: bool) -> None:
    layout = layout_of_lengths(T, N, major, lengths)
    rows = layout.token_rows(reverse)
    assert positions(rows) == expected_positions(major, lengths, reverse)
    assert rows.rows == T * N
    assert rows is layout.token_rows(reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_of_packed_batches(reverse: bool) -> None:
    lengths = np.sort(LENGTHS)[::-1]
    rows = BatchLayout(T, N, "packed", lengths).token_rows(reverse)
    assert positions(rows) == expected_positions("packed", lengths, reverse)
    assert rows.rows == lengths.sum()


def test_equal_lengths_are_dense() -> None:
    layout = layout_of_lengths(T, N, "time", np.full(N, T))
    assert layout.lengths is None
    assert layout.token_rows(reverse=True).table is None
    assert dense_strides(T, N, batch_first=False, reverse=True) == (16, -4, 1)
    assert dense_strides(T, N, batch_first=True, reverse=False) == (0, 1, 5)


def test_equal_lengths_keep_their_order() -> None:
    order = layout_of_lengths(T, N, "time", LENGTHS).order
    assert order is not None
    assert order.tolist() == [1, 0, 3, 2]


def test_no_token_at_all_is_one_empty_step() -> None:
    rows = layout_of_lengths(T, N, "time", np.zeros(N, np.int64)).token_rows(reverse=False)
    assert rows.batch_sizes == [0]
    assert rows.row_of_each().tolist() == []


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("count", [1, 3])
def test_repeated_batches_interleave_sequences(lengths: IntArray | None, count: int) -> None:
    rows = layout_of_lengths(T, N, "time", lengths).token_rows(reverse=True)
    repeated = rows.repeated(count)
    expected = [
        [row + batch * T * N for row in step for batch in range(count)] for step in positions(rows)
    ]
    assert positions(repeated) == expected
    assert (repeated.N, repeated.rows) == (count * N, count * T * N)


def test_one_repeated_sequence_keeps_its_strides() -> None:
    repeated = BatchLayout(T, 1).token_rows(reverse=True).repeated(3)
    assert repeated.table is None
    assert positions(repeated)[0] == [4, 9, 14]


def test_steps_of_a_layout() -> None:
    part = layout_of_lengths(T, N, "batch", LENGTHS).steps(2, 4)
    assert part.T == 2
    assert part.lengths is not None
    assert part.lengths.tolist() == [2, 1, 1, 0]


def test_the_sequence_of_each_token() -> None:
    ragged = layout_of_lengths(T, N, "time", LENGTHS).token_rows(reverse=False)
    assert ragged.sequence_of_each().tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0]
    dense = BatchLayout(2, 3).token_rows(reverse=False)
    assert dense.sequence_of_each().tolist() == [0, 1, 2, 0, 1, 2]
