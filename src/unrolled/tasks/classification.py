"""Classification: a label for each text, or for each numeric sequence."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.limits import brief
from unrolled.models import SequenceModel
from unrolled.tasks.baselines import majority_class
from unrolled.tasks.bucketing import Buckets, batches_by_length, pad
from unrolled.tasks.codecs.standardization import check_standardization, mean_and_deviation
from unrolled.tasks.codecs.token_vocab import TokenVocabulary
from unrolled.tasks.data.labelled_sequences import (
    LabelledSequences,
    inputs_from_table,
    inputs_from_texts,
    is_table,
    read_sequences,
)
from unrolled.tasks.data.source import DataError, Source
from unrolled.tasks.data.tables import read_table
from unrolled.tasks.metrics import accuracy, class_counts, macro_f1
from unrolled.tasks.task import PredictionInput, Shard, Task

__all__ = ["Classification", "ClassificationBatch", "ClassificationCodec", "LabelledSequences"]


class ClassificationBatch(NamedTuple):
    """Inputs `[T, N]` (characters) or `[T, N, F]` (numbers), lengths `[N]`, labels `[N]`."""

    inputs: Tensor
    lengths: Tensor
    labels: Tensor
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own is of no use here
        """Sequences of this shard."""
        return len(self.labels)


class ClassificationCodec:
    """Characters (or the scale of numbers) and labels, as numbers.

    Args:
        characters: of texts; None: the sequences are numeric.
        labels: of the classes.
        mean, deviation: `[F]` of numeric sequences.
        max_length: of texts; what is longer is cut.
        columns: of numeric sequences from tables, the names of the steps of the longest.

    Raises:
        ValueError: the parts contradict each other, or a scale is no scale.
    """

    def __init__(
        self,
        characters: TokenVocabulary | None,
        labels: TokenVocabulary,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        max_length: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if (characters is None) == (mean is None):
            raise ValueError("characters, mean: wanted one of the two, got both or none")
        if mean is not None:
            check_standardization(mean, deviation)
        if not (max_length is None or (isinstance(max_length, int) and max_length > 0)):
            raise ValueError(f"max_length: wanted at least 1, got {max_length!r}")
        self.characters = characters
        self.labels = labels
        self.mean = mean
        self.deviation = deviation
        self.max_length = max_length
        self.columns = None if columns is None else tuple(columns)

    @classmethod
    def of(cls, sequences: LabelledSequences, config: Any) -> "ClassificationCodec":
        """Those of the sequences that are not held out."""
        kept = [n for n, out in enumerate(sequences.held_out) if not out]
        labels = TokenVocabulary.of(sequences.labels)
        if len(labels) == 1:
            raise DataError(
                f"data: wanted two labels or more, got {brief(labels.entries[0])} alone"
            )
        if len(labels) == len(sequences.labels) > 2:
            raise DataError(
                f"data: wanted labels that come again, got {len(labels)} sequences with a label of "
                "their own each; name the column of the labels with --label"
            )
        if sequences.of_text:
            limit = config.max_length
            seen = (c for n in kept for c in sequences.inputs[n][:limit])
            characters = TokenVocabulary.of(
                seen, min_count=config.min_count, padding=True, unknown=True, what="character"
            )
            return cls(characters, labels, max_length=limit)
        mean, deviation = mean_and_deviation(torch.cat([sequences.inputs[n] for n in kept]))
        return cls(None, labels, mean, deviation, columns=sequences.columns)

    def encode(self, sequence: Any) -> Tensor:
        """A text as characters' numbers `[T]`, or numbers `[T, F]` in standard units."""
        if self.characters is not None:
            if not isinstance(sequence, str):
                raise DataError("input: wanted a text, the model reads characters; got numbers")
            return self.characters.encode(list(sequence[: self.max_length]))
        if isinstance(sequence, str):
            raise DataError("input: wanted numbers, which the model reads; got a text")
        assert self.mean is not None
        assert self.deviation is not None
        if sequence.shape[1:] != self.mean.shape:
            width = len(self.mean)
            raise DataError(f"input: wanted {width} numbers a step, got {sequence.shape[-1]}")
        return ((sequence.double() - self.mean) / self.deviation).float()

    def batch(self, sequences: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Encoded and padded, and the lengths."""
        return _padded([self.encode(sequence) for sequence in sequences])

    def state(self) -> dict[str, Any]:
        characters = None if self.characters is None else self.characters.state()
        columns = {} if self.columns is None else {"columns": list(self.columns)}
        return {
            "characters": characters,
            "labels": self.labels.state(),
            "mean": self.mean,
            "deviation": self.deviation,
            "max_length": self.max_length,
        } | columns

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ClassificationCodec":
        found = state["characters"]
        characters = None if found is None else TokenVocabulary.from_state(found)
        labels = TokenVocabulary.from_state(state["labels"])
        scale = (state["mean"], state["deviation"])
        # Runs of before have no columns.
        return cls(characters, labels, *scale, state["max_length"], state.get("columns"))


class Classification(Task):
    """Cross-entropy of the label, from the pooled outputs of the recurrent layers."""

    name = "classify"
    unit = "sequences"
    metric_names = ("loss", "accuracy", "macro_f1")
    baselines_use_training = True

    def __init__(
        self,
        config: Any,
        data: LabelledSequences,
        codec: ClassificationCodec | None = None,
        whole: bool = False,
    ) -> None:
        self.config = config
        self.codec = codec or ClassificationCodec.of(data, config)
        self.digest = _digest(data)
        self.data = data
        kept = [n for n, out in enumerate(data.held_out) if whole or not out]
        self.kept = kept
        self.out = [n for n, out in enumerate(data.held_out) if whole or out]
        if not kept or not self.out:
            raise DataError(
                f"data: wanted sequences for training and for validation, got {len(kept)} and "
                f"{len(self.out)}"
            )
        self.targets = torch.cat(
            [
                self.codec.labels.encode([label], data.place(n))
                for n, label in enumerate(data.labels)
            ]
        )
        self.encoded = [self.codec.encode(sequence) for sequence in data.inputs]
        self.lengths = [len(sequence) for sequence in self.encoded]
        self.buckets = Buckets([self.lengths[n] for n in kept], config.batch_size, config.seed)

    @override
    @classmethod
    def read(
        cls, config: Any, codec: ClassificationCodec | None = None, whole: bool = False
    ) -> "Classification":
        columns = None if codec is None else codec.columns
        return cls(config, read_sequences(config, whole, columns), codec, whole)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: Any,
        codec: ClassificationCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput]:
        found = [PredictionInput(repr(text), text) for text in texts]
        for source in sources:
            if is_table(config, source, codec.characters is not None):
                found += inputs_from_table(config, read_table(source), codec)
            else:
                found += inputs_from_texts(config, source)
        return found

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> ClassificationCodec:
        return ClassificationCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> SequenceModel:
        return SequenceModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: ClassificationCodec) -> dict[str, Any]:
        if codec.mean is None:
            assert codec.characters is not None
            sizes: dict[str, Any] = {"input_size": len(codec.characters), "input": "embedding"}
        else:
            sizes = {"input_size": len(codec.mean), "input": "numbers"}
        return sizes | {"output_size": len(codec.labels)}

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial", "embedding_size")
        given = {name: getattr(self.config, name) for name in (*names, "bidirectional", "pooling")}
        return self.codec_arguments(self.codec) | given

    def _batch(self, items: Sequence[int], shard: Shard) -> ClassificationBatch:
        own = list(items)[shard.slice]
        if not own:
            one = self.encoded[0]
            none = one.new_zeros(1, 0, *one.shape[1:])
            return ClassificationBatch(none, *(torch.empty(0).long(),) * 2, len(items))
        inputs, lengths = _padded([self.encoded[n] for n in own])
        return ClassificationBatch(inputs, lengths, self.targets[own], len(items))

    @override
    def batch(self, step: int, shard: Shard) -> ClassificationBatch:
        return self._batch([self.kept[k] for k in self.buckets.items(step)], shard)

    @override
    def validation(self, shard: Shard) -> Iterator[ClassificationBatch]:
        for items in batches_by_length([self.lengths[n] for n in self.out], self.config.batch_size):
            batch = self._batch([self.out[k] for k in items], shard)
            if batch.count:
                yield batch

    @override
    def loss(self, model: Any, batch: ClassificationBatch, carried: Any) -> tuple[Tensor, None]:
        logits, _ = model(batch.inputs, lengths=batch.lengths)
        return F.cross_entropy(logits.float(), batch.labels, reduction="sum"), None

    @override
    def tally(
        self, model: Any, batch: ClassificationBatch, carried: Any
    ) -> tuple[dict[str, Tensor], None]:
        logits, _ = model(batch.inputs, lengths=batch.lengths)
        total = F.cross_entropy(logits.double(), batch.labels, reduction="sum")
        counts = class_counts(batch.labels, logits.argmax(-1), len(self.codec.labels))
        return {"loss": total, "classes": counts}, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str] | None]:
        longest = max(self.out, key=lambda n: self.lengths[n])
        sequence = self.data.inputs[longest] if text is None else text
        inputs = self.codec.encode(sequence)[:, None]
        if len(inputs) < 2:
            raise DataError(f"text: wanted two characters or more, got {len(inputs)}")
        return (inputs,), list(sequence[: len(inputs)]) if isinstance(sequence, str) else None

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        counts = sums["classes"]
        loss = (sums["loss"] / counts[0].sum()).item()
        return {"loss": loss, "accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        common = majority_class(self.targets[self.kept])
        wanted = self.targets[self.out]
        counts = class_counts(wanted, torch.full_like(wanted, common), len(self.codec.labels))
        return {"majority": {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}}


def class_probabilities(
    model: SequenceModel, codec: ClassificationCodec, sequences: Sequence[Any]
) -> Tensor:
    """Probabilities `[N, classes]` of the labels of texts or numeric sequences."""
    inputs, lengths = codec.batch(sequences)
    device = next(model.parameters()).device
    with torch.no_grad():
        logits, _ = model(inputs.to(device), lengths=lengths)
    return torch.softmax(logits.double(), -1).cpu()


def prefix_probabilities(model: SequenceModel, codec: ClassificationCodec, sequence: Any) -> Tensor:
    """Probabilities `[T, classes]` after each step of one sequence, as it arrives.

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


def _padded(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One batch and the lengths; a step of padding where no sequence has one (empty texts)."""
    inputs, lengths = pad(sequences, 0)
    return (inputs if len(inputs) else inputs.new_zeros(1, *inputs.shape[1:])), lengths


def _digest(data: LabelledSequences) -> str:
    found = hashlib.sha256()
    for sequence, label, out in zip(data.inputs, data.labels, data.held_out, strict=True):
        raw = sequence.encode() if isinstance(sequence, str) else sequence.numpy().tobytes()
        found.update(raw + b"\0" + label.encode() + b"\0" + bytes([out]))
    return found.hexdigest()
