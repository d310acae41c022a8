"""Tasks whose data are two lists of examples: each is encoded once, and batches are bucketed.

What an example is, and what a batch of them holds, is defined by the tasks.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar, override

from unrolled.config import DataConfig
from unrolled.tasks._bucketing import Buckets, batches_by_length
from unrolled.tasks._task import BatchT, CodecT, ModelT, Shard, Task

DataConfigT = TypeVar("DataConfigT", bound=DataConfig, default=Any)
ExampleT = TypeVar("ExampleT", bound=tuple[object, ...], default=Any)
EncodedT = TypeVar("EncodedT", default=Any)


class ExampleTask(
    Task[DataConfigT, ModelT, CodecT, BatchT],
    Generic[DataConfigT, ModelT, CodecT, BatchT, ExampleT, EncodedT],
):
    """A task of examples: tuples that begin with an input and a target.

    Args:
        training, validation: the examples; those of a batch have about the same `length`.
    """

    def __init__(
        self,
        config: DataConfigT,
        codec: CodecT,
        training: Sequence[ExampleT],
        validation: Sequence[ExampleT],
    ) -> None:
        self.config = config
        self.codec = codec
        self.training_examples = list(training)
        self.validation_examples = list(validation)
        examples = [*self.training_examples, *self.validation_examples]
        pairs = repr([example[:2] for example in examples])
        self.digest = hashlib.sha256(pairs.encode()).hexdigest()
        self._training = [self.encode(example) for example in self.training_examples]
        self._validation = [self.encode(example) for example in self.validation_examples]
        lengths = [self.length(example) for example in self.training_examples]
        self.buckets = Buckets(lengths, config.batch_size, config.seed)

    @abstractmethod
    def length(self, example: ExampleT) -> int:
        """The length by which examples are bucketed."""

    @abstractmethod
    def encode(self, example: ExampleT) -> EncodedT:
        """An example as tensors."""

    @abstractmethod
    def collate(self, encoded: Sequence[EncodedT], numbers: list[int], shard: Shard) -> BatchT:
        """A shard of a batch of encoded examples, given their numbers in the list."""

    @override
    def batch(self, step: int, shard: Shard) -> BatchT:
        numbers = self.buckets.items(step)
        return self.collate([self._training[n] for n in numbers], numbers, shard)

    @override
    def validation(self, shard: Shard) -> Iterator[BatchT]:
        lengths = [self.length(example) for example in self.validation_examples]
        for numbers in batches_by_length(lengths, self.config.batch_size):
            if numbers[shard.slice]:
                yield self.collate([self._validation[n] for n in numbers], numbers, shard)
