"""Where the tokens of a batch are in memory, for layers, engines and the runtime.

A batch is a matrix [rows, width]: time-major, batch-first and packed data are viewed in this form
without a copy. This module needs only NumPy.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Major = Literal["time", "batch", "packed"]


@dataclass(frozen=True, eq=False)
class TokenRows:
    """The row of each token of a sweep in one direction, step by step, longest sequence first.

    In a dense batch token (t, n) is row ``start + t * stride_t + n * stride_n``. In a ragged batch
    step t has ``counts[t]`` tokens, and ``table`` [total] holds the row of each.
    """

    T: int
    N: int
    rows: int  # of the matrix
    start: int = 0
    stride_t: int = 0
    stride_n: int = 0
    counts: IntArray | None = None
    table: IntArray | None = None

    @classmethod
    def of_packed(cls, batch_sizes: list[int], N: int) -> "TokenRows":
        """The rows of a packed batch, in order."""
        counts = np.array(batch_sizes, np.int64)
        total = int(counts.sum())
        return cls(len(counts), N, total, counts=counts, table=np.arange(total))

    @property
    def batch_sizes(self) -> list[int]:
        """The number of tokens of each step."""
        return [self.N] * self.T if self.counts is None else self.counts.tolist()

    def row_of_each(self) -> IntArray:
        """[total] the row of each token."""
        if self.table is not None:
            return self.table
        t, n = np.arange(self.T), np.arange(self.N)
        return (self.start + t[:, None] * self.stride_t + n * self.stride_n).ravel()

    def sequence_of_each(self) -> IntArray:
        """[total] the index of each token's sequence; sequence 0 is the longest."""
        if self.counts is None:
            return np.tile(np.arange(self.N), self.T)
        return _sequence_of_each(self.counts)

    def repeated(self, count: int) -> "TokenRows":
        """The rows of ``count`` batches of this layout, one after the other in a matrix ``count``
        times as long; sequence n of batch b becomes sequence n * count + b."""
        N, rows = self.N * count, self.rows * count
        if self.table is None and self.N == 1:
            return TokenRows(self.T, N, rows, self.start, self.stride_t, self.rows)
        table = self.row_of_each()[:, None] + np.arange(count) * self.rows
        counts = np.full(self.T, N) if self.counts is None else self.counts * count
        return TokenRows(self.T, N, rows, counts=counts, table=table.ravel())


@dataclass(frozen=True, eq=False)
class BatchLayout:
    """How the tokens of a batch are laid out in its matrix.

    Sequence n, in order of falling length, has the tokens t < lengths[n] and is the caller's
    sequence order[n]. Token (t, n) is row t * N + order[n] in a time-major batch and order[n] * T +
    t in a batch-first one; all other rows are padding: never read, written as zeros. A packed batch
    has the tokens of each step side by side, longest sequence first, without padding.
    """

    T: int
    N: int
    major: Major = "time"
    lengths: IntArray | None = None  # [N], falling; None: all T
    order: IntArray | None = None  # [N]; None: n itself

    @property
    def rows(self) -> int:
        """The number of rows of the matrix."""
        if self.major == "packed" and self.lengths is not None:
            return int(self.lengths.sum())
        return self.T * self.N

    def lengths_or_full(self) -> IntArray:
        """[N] the length of each sequence."""
        return np.full(self.N, self.T) if self.lengths is None else self.lengths

    def token_rows(self, reverse: bool) -> TokenRows:
        """The rows of all tokens in one direction; computed once."""
        return self._reverse_rows if reverse else self._forward_rows

    @cached_property
    def _forward_rows(self) -> TokenRows:
        return self._token_rows(reverse=False)

    @cached_property
    def _reverse_rows(self) -> TokenRows:
        return self._token_rows(reverse=True)

    def _token_rows(self, reverse: bool) -> TokenRows:
        if self.lengths is None:
            strides = dense_strides(self.T, self.N, self.major == "batch", reverse)
            return TokenRows(self.T, self.N, self.T * self.N, *strides)
        starts = np.zeros(self.N, np.int64)
        return self.rows_of_spans(np.arange(self.N), starts, self.lengths, reverse)

    def rows_of_spans(
        self, n: IntArray, starts: IntArray, lengths: IntArray, reverse: bool
    ) -> TokenRows:
        """The rows of spans of sequences, each taken as a sequence: span k holds ``lengths[k]``
        tokens of sequence ``n[k]``, from ``starts[k]`` on. ``lengths`` must not increase."""
        counts = _count_active(lengths)
        span = _sequence_of_each(counts)
        step = np.repeat(np.arange(len(counts)), counts)
        t = starts[span] + (lengths[span] - 1 - step if reverse else step)
        table = self._rows(t, n[span])
        return TokenRows(len(counts), len(lengths), self.rows, counts=counts, table=table)

    def _rows(self, t: IntArray, n: IntArray) -> IntArray:
        """The rows of tokens (t, n)."""
        if self.major == "packed":
            counts = np.full(self.T, self.N)
            if self.lengths is not None:
                counts = _count_active(self.lengths, self.T)
            first_rows: IntArray = counts.cumsum() - counts
            return first_rows[t] + n
        if self.order is not None:
            n = self.order[n]
        return n * self.T + t if self.major == "batch" else t * self.N + n

    def steps(self, start: int, end: int) -> "BatchLayout":
        """The layout of a matrix that holds only the steps from ``start`` to ``end``."""
        lengths = None if self.lengths is None else (self.lengths - start).clip(0, end - start)
        return BatchLayout(end - start, self.N, self.major, lengths, self.order)


def layout_of_lengths(T: int, N: int, major: Major, lengths: IntArray | None) -> BatchLayout:
    """The layout of a padded batch whose sequences have these lengths, in the caller's order."""
    if lengths is None or bool((lengths == T).all()):
        return BatchLayout(T, N, major)
    order = np.argsort(-lengths, kind="stable")
    return BatchLayout(T, N, major, lengths[order], order)


def dense_strides(T: int, N: int, batch_first: bool, reverse: bool) -> tuple[int, int, int]:
    """The row of the first token that is read, the stride of steps, and that of sequences."""
    stride_t, stride_n = (1, T) if batch_first else (N, 1)
    return ((T - 1) * stride_t, -stride_t, stride_n) if reverse else (0, stride_t, stride_n)


def _count_active(lengths: IntArray, T: int | None = None) -> IntArray:
    """[T] the number of sequences that have step t, for lengths that do not increase; by default T
    is the longest length, and at least 1."""
    if T is None:
        T = max(1, int(lengths[0])) if len(lengths) else 1
    return len(lengths) - np.searchsorted(lengths[::-1], np.arange(T), side="right")


def _sequence_of_each(counts: IntArray) -> IntArray:
    """[total] the index of each token among the tokens of its step."""
    ahead = counts.cumsum() - counts
    return np.arange(int(counts.sum())) - np.repeat(ahead, counts)
