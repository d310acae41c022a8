"""The sequences of a batch, and the episodes that resets cut them into.

An episode lasts from one cut to the next. It is run as a separate sequence, so nothing before a cut
can affect what follows it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from unrolled._token_rows import BatchLayout, IntArray, TokenRows
from unrolled.engines._torch_modes import to_numpy


@dataclass(frozen=True)
class Episodes:
    """The E episodes of a batch in one direction, longest first."""

    rows: TokenRows  # of their tokens; an episode counts as a sequence
    initial: IntArray  # [E] index into [states, reset states]: the episode's initial state
    final: IntArray  # [N] index into [final states of episodes, states]: the sequence's final state


@dataclass(frozen=True, eq=False)
class Batch:
    """The sequences of a call: the layout of their tokens, and where resets cut them."""

    layout: BatchLayout
    resets: Tensor | None = None  # [T, N] bool on the CPU, in the order of the layout
    symbolic_lengths: Tensor | None = None
    """[N] lengths, in the caller's order, whose values only the operator may read; the layout is
    then that of the whole padded batch."""

    @property
    def T(self) -> int:  # noqa: N802
        return self.layout.T

    @property
    def N(self) -> int:  # noqa: N802
        return self.layout.N

    @property
    def is_dense(self) -> bool:
        """Whether every row is a token and no sequence is cut."""
        lengths = (self.layout.lengths, self.symbolic_lengths)
        return self.resets is None and all(length is None for length in lengths)

    def episodes(self, reverse: bool) -> Episodes:
        """The episodes in one direction; computed once for all layers."""
        return self._reverse_episodes if reverse else self._forward_episodes

    @cached_property
    def _forward_episodes(self) -> Episodes:
        return find_episodes(self.layout, self.resets, reverse=False)

    @cached_property
    def _reverse_episodes(self) -> Episodes:
        return find_episodes(self.layout, self.resets, reverse=True)

    def steps(self, start: int, end: int) -> "Batch":
        """A batch of the steps from ``start`` to ``end`` only."""
        resets = None if self.resets is None else self.resets[start:end]
        return Batch(self.layout.steps(start, end), resets)


def find_episodes(layout: BatchLayout, resets: Tensor | None, reverse: bool) -> Episodes:
    """The episodes of a batch; here the lengths of the layout may be in any order."""
    T, N = layout.T, layout.N
    sequence_lengths = layout.lengths_or_full()
    cuts = np.zeros((T, N), np.bool_) if resets is None else to_numpy(resets, np.bool_)
    begins = cuts.T.copy()
    begins[:, 0] = True
    begins &= np.arange(T) < sequence_lengths[:, None]
    n, start = begins.nonzero()
    E = len(n)
    is_final = np.append(n[1:] != n[:-1], True)[:E]
    stop = np.where(is_final, sequence_lengths[n], np.append(start[1:], 0)[:E])
    order = np.argsort(start - stop, kind="stable")
    n, start, stop = n[order], start[order], stop[order]
    rows = layout.rows_of_spans(n, start, stop - start, reverse)
    at_begin, at_end = start == 0, stop == sequence_lengths[n]
    opens, closes = (at_end, at_begin) if reverse else (at_begin, at_end)
    if not reverse:
        opens = opens & ~cuts[0][n]
    final = np.arange(N) + E
    final[n[closes]] = np.arange(E)[closes]
    return Episodes(rows, np.where(opens, n, n + N), final)
