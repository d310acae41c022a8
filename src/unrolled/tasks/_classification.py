"""Classification: a label for each text, or for each numeric sequence."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.config import ClassificationConfig
from unrolled.models import SequenceModel
from unrolled.nn.types import HiddenState
from unrolled.tasks._baselines import majority_class
from unrolled.tasks._bucketing import Buckets, batches_by_length
from unrolled.tasks._metrics import accuracy, class_counts, macro_f1
from unrolled.tasks._task import PredictionInput, Shard, Task
from unrolled.tasks.codecs._classification import (
    ClassificationCodec,
    ClassificationState,
    pad_nonempty,
)
from unrolled.tasks.data._labelled_sequences import (
    LabelledSequences,
    SequenceValue,
    inputs_from_table,
    inputs_from_texts,
    is_table,
    read_sequences,
)
from unrolled.tasks.data._source import DataError, Source
from unrolled.tasks.data._tables import read_table


class ClassificationBatch(NamedTuple):
    """Inputs `[T, N]` (characters) or `[T, N, F]` (numbers), lengths `[N]`, labels `[N]`."""

    inputs: Tensor
    lengths: Tensor
    labels: Tensor
    total: int

    @property
    def size(self) -> int:
        """Sequences of this shard."""
        return len(self.labels)


class Classification(
    Task[ClassificationConfig, SequenceModel, ClassificationCodec, ClassificationBatch]
):
    """Cross-entropy of the label, predicted from the pooled outputs of the recurrent layers."""

    name = "classify"
    unit = "sequences"
    metric_names = ("loss", "accuracy", "macro_f1")
    baselines_use_training = True

    def __init__(
        self,
        config: ClassificationConfig,
        data: LabelledSequences,
        codec: ClassificationCodec | None = None,
        validate_on_all: bool = False,
    ) -> None:
        self.config = config
        self.codec = codec or ClassificationCodec.of(data, config)
        self.digest = _digest(data)
        self.data = data
        numbers = range(len(data.labels))
        self.training_items = [n for n in numbers if validate_on_all or not data.held_out[n]]
        self.validation_items = [n for n in numbers if validate_on_all or data.held_out[n]]
        if not self.training_items or not self.validation_items:
            raise DataError(
                "data: must have sequences for training and for validation, got "
                f"{len(self.training_items)} and {len(self.validation_items)}"
            )
        self.targets = torch.cat(
            [
                self.codec.labels.encode([label], data.location(n))
                for n, label in enumerate(data.labels)
            ]
        )
        self._encoded = [self.codec.encode(sequence) for sequence in data.inputs]
        self._lengths = [len(sequence) for sequence in self._encoded]
        lengths = [self._lengths[n] for n in self.training_items]
        self.buckets = Buckets(lengths, config.batch_size, config.seed)

    @override
    @classmethod
    def read(
        cls,
        config: ClassificationConfig,
        codec: ClassificationCodec | None = None,
        validate_on_all: bool = False,
    ) -> "Classification":
        columns = None if codec is None else codec.columns
        data = read_sequences(config, validate_on_all, columns)
        return cls(config, data, codec, validate_on_all)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: ClassificationConfig,
        codec: ClassificationCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput[SequenceValue]]:
        reads_texts = codec.characters is not None
        inputs: list[PredictionInput[SequenceValue]] = []
        inputs += [PredictionInput(repr(text), text) for text in texts]
        for source in sources:
            if is_table(config, source, reads_texts):
                table = read_table(source)
                inputs += inputs_from_table(config, table, reads_texts, codec.columns)
            else:
                inputs += inputs_from_texts(config, source)
        return inputs

    @override
    @classmethod
    def codec_from_state(cls, state: ClassificationState) -> ClassificationCodec:
        return ClassificationCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> SequenceModel:
        return SequenceModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: ClassificationCodec) -> dict[str, object]:
        if codec.characters is not None:
            arguments: dict[str, object] = {
                "input_size": len(codec.characters),
                "input": "embedding",
            }
        else:
            assert codec.mean is not None
            arguments = {"input_size": len(codec.mean), "input": "numbers"}
        return arguments | {"output_size": len(codec.labels)}

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial", "embedding_size")
        options = {
            name: getattr(self.config, name) for name in (*names, "bidirectional", "pooling")
        }
        return self.codec_arguments(self.codec) | options

    def _batch(self, items: Sequence[int], shard: Shard) -> ClassificationBatch:
        numbers = list(items)[shard.slice]
        if not numbers:
            step = self._encoded[0]
            empty = torch.empty(0).long()
            inputs = step.new_zeros(1, 0, *step.shape[1:])
            return ClassificationBatch(inputs, empty, empty, len(items))
        inputs, lengths = pad_nonempty([self._encoded[n] for n in numbers])
        return ClassificationBatch(inputs, lengths, self.targets[numbers], len(items))

    @override
    def batch(self, step: int, shard: Shard) -> ClassificationBatch:
        return self._batch([self.training_items[k] for k in self.buckets.items(step)], shard)

    @override
    def validation(self, shard: Shard) -> Iterator[ClassificationBatch]:
        lengths = [self._lengths[n] for n in self.validation_items]
        for items in batches_by_length(lengths, self.config.batch_size):
            batch = self._batch([self.validation_items[k] for k in items], shard)
            if batch.size:
                yield batch

    @override
    def loss(
        self, model: SequenceModel, batch: ClassificationBatch, carried: HiddenState | None
    ) -> tuple[Tensor, None]:
        logits, _ = model(batch.inputs, lengths=batch.lengths)
        return F.cross_entropy(logits.float(), batch.labels, reduction="sum"), None

    @override
    def tally(
        self, model: SequenceModel, batch: ClassificationBatch, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], None]:
        logits, _ = model(batch.inputs, lengths=batch.lengths)
        total = F.cross_entropy(logits.double(), batch.labels, reduction="sum")
        counts = class_counts(batch.labels, logits.argmax(-1), len(self.codec.labels))
        return {"loss": total, "classes": counts}, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor], list[str] | None]:
        longest = max(self.validation_items, key=lambda n: self._lengths[n])
        sequence = self.data.inputs[longest] if text is None else text
        inputs = self.codec.encode(sequence)[:, None]
        if len(inputs) < 2:
            raise DataError(f"text: must have at least two characters, got {len(inputs)}")
        return (inputs,), list(sequence[: len(inputs)]) if isinstance(sequence, str) else None

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        counts = sums["classes"]
        loss = (sums["loss"] / counts[0].sum()).item()
        return {"loss": loss, "accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        majority = majority_class(self.targets[self.training_items])
        targets = self.targets[self.validation_items]
        predicted = torch.full_like(targets, majority)
        counts = class_counts(targets, predicted, len(self.codec.labels))
        return {"majority": {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}}


def class_probabilities(
    model: SequenceModel, codec: ClassificationCodec, sequences: Sequence[SequenceValue]
) -> Tensor:
    """Probabilities `[N, classes]` of the labels of texts or numeric sequences."""
    inputs, lengths = codec.batch(sequences)
    device = next(model.parameters()).device
    with torch.no_grad():
        logits, _ = model(inputs.to(device), lengths=lengths)
    return torch.softmax(logits.double(), -1).cpu()


def prefix_probabilities(
    model: SequenceModel, codec: ClassificationCodec, sequence: SequenceValue
) -> Tensor:
    """Probabilities `[T, classes]` for each prefix of one sequence, as it arrives.

    Raises:
        ValueError: the model reads in both directions.
    """
    encoded = codec.encode(sequence)
    if not len(encoded):
        return torch.empty(0, len(codec.labels), dtype=torch.float64)
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = model.forward_prefixes(encoded[:, None].to(device))
    return torch.softmax(logits[:, 0].double(), -1).cpu()


def _digest(data: LabelledSequences) -> str:
    digest = hashlib.sha256()
    for sequence, label, held_out in zip(data.inputs, data.labels, data.held_out, strict=True):
        raw = sequence.encode() if isinstance(sequence, str) else sequence.numpy().tobytes()
        digest.update(raw + b"\0" + label.encode() + b"\0" + bytes([held_out]))
    return digest.hexdigest()
