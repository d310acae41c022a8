"""Tasks whose data are two lists of examples: cut apart, encoded once, put into batches.

What an example is, and what a batch of them holds, is left to the tasks.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from typing_extensions import override

from unrolled.tasks.bucketing import Buckets, batches_by_length
from unrolled.tasks.data.source import DataError
from unrolled.tasks.task import Shard, Task

__all__ = ["ExampleTask", "choose_validation", "split_examples"]


def choose_validation(count: int, config: Any) -> list[bool]:
    """Which of so many examples are for validation: drawn by the seed, at least one of two.

    Raises:
        DataError: there are fewer than two.
    """
    if count < 2:
        raise DataError(f"data: wanted two examples or more, got {count}")
    wanted = min(count - 1, max(1, round(count * config.validation_fraction)))
    generator = torch.Generator().manual_seed(config.seed)
    found = torch.zeros(count, dtype=torch.bool)
    found[torch.randperm(count, generator=generator)[:wanted]] = True
    return found.tolist()


def split_examples(
    examples: Sequence[Any], config: Any, whole: bool
) -> tuple[list[Any], list[Any]]:
    """Examples for training and for validation; all for both with ``whole``.

    Raises:
        DataError: there are fewer than two.
    """
    if whole:
        return list(examples), list(examples)
    chosen = list(zip(examples, choose_validation(len(examples), config), strict=True))
    return [one for one, out in chosen if not out], [one for one, out in chosen if out]


class ExampleTask(Task):
    """A task of examples, tuples that begin with what is read and what is wanted.

    Args:
        training, validation: the examples; those of a batch are of about the same `length`.
    """

    def __init__(self, config: Any, training: Sequence[Any], validation: Sequence[Any]) -> None:
        self.config = config
        self.training, self.held_out = list(training), list(validation)
        both = (self.training, self.held_out)
        read = repr([one[:2] for part in both for one in part])
        self.digest = hashlib.sha256(read.encode()).hexdigest()
        self.encoded = [[self.encode(one) for one in part] for part in both]
        self._lengths = [[self.length(one) for one in part] for part in both]
        self.buckets = Buckets(self._lengths[0], config.batch_size, config.seed)

    @abstractmethod
    def length(self, example: Any) -> int:
        """What examples are put together by."""

    @abstractmethod
    def encode(self, example: Any) -> Any:
        """An example as tensors."""

    @abstractmethod
    def collate(self, encoded: Sequence[Any], numbers: list[int], shard: Shard) -> Any:
        """A share of a batch of encoded examples, whose ``numbers`` in their list it keeps."""

    def _batch(self, part: int, items: list[int], shard: Shard) -> Any:
        return self.collate([self.encoded[part][k] for k in items], items, shard)

    @override
    def batch(self, step: int, shard: Shard) -> Any:
        return self._batch(0, self.buckets.items(step), shard)

    @override
    def validation(self, shard: Shard) -> Iterator[Any]:
        for items in batches_by_length(self._lengths[1], self.config.batch_size):
            if items[shard.slice]:
                yield self._batch(1, items, shard)
