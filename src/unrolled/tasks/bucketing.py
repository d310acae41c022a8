"""Batches of sequences of different lengths: which items go together, and padding.

Reading the items and moving them is left to the caller.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["Buckets", "batches_by_length", "pad"]


class Buckets:
    """An endless stream of batches, each of items of about the same length, the same on every run.

    Epoch e is a permutation of the items drawn from (seed, e), and epochs follow one another
    without a gap, so every batch has exactly `batch_size` items. The stream is cut into pools of
    `pool` batches; within a pool the items of one epoch are sorted by length and cut into batches,
    which come in an order drawn from (seed, number of the pool). No item comes a second time before
    each came once, but for the one batch in which an epoch ends and the next begins.

    A step's batch depends on its number alone: a run that is resumed at a step goes on as if it had
    never stopped.

    Args:
        lengths: of all items, in any unit.
        batch_size: N, items of a batch.
        seed: 0 or more.
        pool: batches sorted together; at most a quarter of an epoch is, so that batches differ
            from epoch to epoch.

    Raises:
        ValueError: there are no items, or an argument is out of its range.
    """

    def __init__(
        self, lengths: Sequence[int] | Tensor, batch_size: int, seed: int = 0, pool: int = 32
    ) -> None:
        for name, value, least in (
            ("lengths", len(lengths), 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("pool", pool, 1),
        ):
            if value < least:
                of = "items" if name == "lengths" else ""
                raise ValueError(
                    f"{name}: wanted at least {least} {of}".rstrip() + f", got {value}"
                )
        self.batch_size = batch_size
        self.seed = seed
        self.pool = min(pool, max(1, len(lengths) // (4 * batch_size)))
        self._lengths = np.asarray(lengths, dtype=np.int64)
        # A pool is asked for once a step, and an epoch by each of its pools.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._batches = lru_cache(maxsize=1)(self._draw_pool)

    def items(self, step: int) -> list[int]:
        """The numbers of the items of a step's batch; steps count from 0."""
        if step < 0:
            raise ValueError(f"step: wanted at least 0, got {step}")
        pool, batch = divmod(step, self.pool)
        return self._batches(pool)[batch].tolist()

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._lengths))

    def _draw_pool(self, pool: int) -> list[np.ndarray]:
        size, count = self.pool * self.batch_size, len(self._lengths)
        position = np.arange(pool * size, (pool + 1) * size)
        epoch, within = np.divmod(position, count)
        item = np.empty(size, dtype=np.int64)
        for e in range(epoch[0], epoch[-1] + 1):
            item[epoch == e] = self._epoch(e)[within[epoch == e]]
        # Rising and falling by turns: long ones meet long ones in a batch of two epochs.
        length = self._lengths[item] * np.where(epoch % 2, -1, 1)
        order = np.lexsort((length, epoch))
        batches = np.split(item[order], self.pool)
        first, last = (
            epoch[order][:: self.batch_size],
            epoch[order][self.batch_size - 1 :: self.batch_size],
        )
        # A batch may change places with others of its epoch; one of two epochs stays between them.
        chance = np.random.default_rng([self.seed, 1, pool]).permutation(self.pool)
        return [batches[i] for i in np.lexsort((chance, last, first))]


def batches_by_length(lengths: Sequence[int] | Tensor, batch_size: int) -> list[list[int]]:
    """Every item once, sorted by length, in batches of `batch_size`, the last one what is left.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: wanted at least 1, got {batch_size}")
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def pad(sequences: Sequence[Tensor], value: float) -> tuple[Tensor, Tensor]:
    """Put sequences `[T_n, …]` into one batch.

    Returns:
        `[T, N, …]`, T the longest, `value` behind the end of each; and the lengths `[N]`, int64.

    Raises:
        ValueError: there are no sequences.
    """
    if not sequences:
        raise ValueError("sequences: wanted one or more, got none")
    batch = torch.nn.utils.rnn.pad_sequence(list(sequences), padding_value=value)
    return batch, torch.tensor([len(sequence) for sequence in sequences])
