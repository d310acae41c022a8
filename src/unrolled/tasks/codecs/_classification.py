"""The codec of classifiers: characters or standardized numbers, and labels."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from unrolled._limits import brief
from unrolled.config import ClassificationConfig
from unrolled.tasks._bucketing import pad
from unrolled.tasks.codecs._standardization import check_standardization, mean_and_deviation
from unrolled.tasks.codecs._token_vocab import TokenVocabulary, TokenVocabularyState
from unrolled.tasks.data._labelled_sequences import LabelledSequences, SequenceValue
from unrolled.tasks.data._source import DataError


class ClassificationState(TypedDict):
    """The state of a :class:`ClassificationCodec` in a checkpoint; first versions had no
    columns."""

    characters: TokenVocabularyState | None
    labels: TokenVocabularyState
    mean: Tensor | None
    deviation: Tensor | None
    max_length: int | None
    columns: NotRequired[list[str]]


class ClassificationCodec:
    """Characters (or the mean and deviation of numbers), and labels.

    Args:
        characters: of texts; None for numeric sequences.
        labels: of the classes.
        mean, deviation: `[F]` of numeric sequences.
        max_length: of texts; longer ones are cut.
        columns: for numeric sequences from tables, the names of the steps of the longest.

    Raises:
        ValueError: the arguments contradict each other, or the mean or deviation is invalid.
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
            count = "none" if mean is None else "both"
            raise ValueError(
                f"ClassificationCodec: one of characters and mean must be passed, got {count}"
            )
        if mean is not None:
            check_standardization(mean, deviation)
        if not (max_length is None or (isinstance(max_length, int) and max_length > 0)):
            raise ValueError(
                f"ClassificationCodec: max_length must be at least 1, got {max_length!r}"
            )
        self.characters = characters
        self.labels = labels
        self.mean = mean
        self.deviation = deviation
        self.max_length = max_length
        self.columns = None if columns is None else tuple(columns)

    @classmethod
    def of(cls, data: LabelledSequences, config: ClassificationConfig) -> "ClassificationCodec":
        """The codec of the training part of the data."""
        labels = TokenVocabulary.of(data.labels)
        _check_labels(labels, len(data.labels))
        training = [
            value
            for value, held_out in zip(data.inputs, data.held_out, strict=True)
            if not held_out
        ]
        if data.are_texts:
            texts = [value for value in training if isinstance(value, str)]
            limit = config.max_length
            characters = TokenVocabulary.of(
                (character for text in texts for character in text[:limit]),
                min_count=config.min_count,
                padding=True,
                unknown=True,
                entry_type="character",
            )
            return cls(characters, labels, max_length=limit)
        numbers = [value for value in training if isinstance(value, Tensor)]
        mean, deviation = mean_and_deviation(torch.cat(numbers))
        return cls(None, labels, mean, deviation, columns=data.columns)

    def encode(self, sequence: SequenceValue) -> Tensor:
        """A text as the numbers of its characters `[T]`, or numbers `[T, F]` standardized."""
        if self.characters is not None:
            if not isinstance(sequence, str):
                raise DataError("input: must be a text, as the model reads characters, got numbers")
            return self.characters.encode(list(sequence[: self.max_length]))
        if isinstance(sequence, str):
            raise DataError("input: must be numbers, as the model reads numbers, got a text")
        assert self.mean is not None
        assert self.deviation is not None
        if sequence.shape[1:] != self.mean.shape:
            raise DataError(
                f"input: must have {len(self.mean)} numbers at each step, got {sequence.shape[-1]}"
            )
        return ((sequence.double() - self.mean) / self.deviation).float()

    def batch(self, sequences: Sequence[SequenceValue]) -> tuple[Tensor, Tensor]:
        """Sequences encoded and padded, and their lengths."""
        return pad_nonempty([self.encode(sequence) for sequence in sequences])

    def state(self) -> ClassificationState:
        """Plain values and tensors from which `from_state` makes the same codec."""
        state: ClassificationState = {
            "characters": None if self.characters is None else self.characters.state(),
            "labels": self.labels.state(),
            "mean": self.mean,
            "deviation": self.deviation,
            "max_length": self.max_length,
        }
        if self.columns is not None:
            state["columns"] = list(self.columns)
        return state

    @classmethod
    def from_state(cls, state: ClassificationState) -> "ClassificationCodec":
        """The codec whose `state` this is."""
        characters = state["characters"]
        return cls(
            None if characters is None else TokenVocabulary.from_state(characters),
            TokenVocabulary.from_state(state["labels"]),
            state["mean"],
            state["deviation"],
            state["max_length"],
            state.get("columns"),
        )


def pad_nonempty(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One batch and the lengths; one step of padding if all sequences are empty."""
    inputs, lengths = pad(sequences, 0)
    return (inputs if len(inputs) else inputs.new_zeros(1, *inputs.shape[1:])), lengths


def _check_labels(labels: TokenVocabulary, count: int) -> None:
    """Refuse labels that do not form classes."""
    if len(labels) == 1:
        raise DataError(
            f"data: must have at least two labels, got {brief(labels.entries[0])} alone"
        )
    if len(labels) == count > 2:
        raise DataError(
            f"data: labels must occur more than once, got {count} sequences with {count} labels; "
            "name the column of the labels with --label"
        )
