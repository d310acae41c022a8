"""Batches of sequences of different lengths: which items go together, and padding."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]


class Buckets:
    """An endless stream of batches of items of similar length, the same on every run.

    Epoch e is a permutation of the items drawn from (seed, e), and epochs follow one another
    without a gap, so every batch has exactly `batch_size` items. The stream is cut into pools of
    `pool` batches; within a pool the items of one epoch are sorted by length and cut into batches,
    whose order is drawn from (seed, number of the pool). No item occurs a second time before every
    item occurred once, except in a batch that spans the end of an epoch.

    The batch of a step depends on its number alone, so that a run can resume at any step.

    Args:
        lengths: of all items, in any unit.
        batch_size: N, items of a batch.
        seed: 0 or more.
        pool: batches sorted together; at most a quarter of an epoch, so that batches differ from
            epoch to epoch.

    Raises:
        ValueError: there are no items, or an argument is out of its range.
    """

    def __init__(
        self, lengths: Sequence[int] | Tensor, batch_size: int, seed: int = 0, pool: int = 32
    ) -> None:
        if not len(lengths):
            raise ValueError("Buckets: lengths must have at least one item, got none")
        for name, value, minimum in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("pool", pool, 1),
        ):
            if value < minimum:
                raise ValueError(f"Buckets: {name} must be at least {minimum}, got {value}")
        self.batch_size = batch_size
        self.seed = seed
        self.pool = min(pool, max(1, len(lengths) // (4 * batch_size)))
        self._lengths: IntArray = np.asarray(lengths, dtype=np.int64)
        # A pool is requested once for each of its steps, and an epoch once for each of its pools.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._batches = lru_cache(maxsize=1)(self._draw_pool)

    def items(self, step: int) -> list[int]:
        """The numbers of the items in the batch of a step; steps count from 0."""
        if step < 0:
            raise ValueError(f"Buckets.items: step must be at least 0, got {step}")
        pool, batch = divmod(step, self.pool)
        return [int(item) for item in self._batches(pool)[batch]]

    def _draw_epoch(self, epoch: int) -> IntArray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._lengths))

    def _draw_pool(self, pool: int) -> list[IntArray]:
        size, count = self.pool * self.batch_size, len(self._lengths)
        position = np.arange(pool * size, (pool + 1) * size)
        epoch, position_in_epoch = np.divmod(position, count)
        item = np.empty(size, dtype=np.int64)
        for e in range(epoch[0], epoch[-1] + 1):
            item[epoch == e] = self._epoch(e)[position_in_epoch[epoch == e]]
        # Alternately rising and falling, so that a batch of two epochs has similar lengths.
        length = self._lengths[item] * np.where(epoch % 2, -1, 1)
        order = np.lexsort((length, epoch))
        batches = np.split(item[order], self.pool)
        ordered = epoch[order].reshape(self.pool, self.batch_size)
        # Batches are shuffled within their epoch; one of two epochs stays between them.
        shuffled = np.random.default_rng([self.seed, 1, pool]).permutation(self.pool)
        return [batches[i] for i in np.lexsort((shuffled, ordered[:, -1], ordered[:, 0]))]


def batches_by_length(lengths: Sequence[int] | Tensor, batch_size: int) -> list[list[int]]:
    """Every item once, sorted by length, in batches of `batch_size`; the final one may be smaller.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batches_by_length: batch_size must be at least 1, got {batch_size}")
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def pad(sequences: Sequence[Tensor], value: float) -> tuple[Tensor, Tensor]:
    """Put sequences `[T_n, …]` into one batch.

    Returns:
        `[T, N, …]` with T the longest, padded with `value`; and the lengths `[N]`, int64.

    Raises:
        ValueError: there are no sequences.
    """
    if not sequences:
        raise ValueError("pad: sequences must not be empty, got none")
    batch = torch.nn.utils.rnn.pad_sequence(list(sequences), padding_value=value)
    return batch, torch.tensor([len(sequence) for sequence in sequences])
