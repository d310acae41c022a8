"""Tagging: a label for each token of a sentence (entities, parts of speech, tokens of code)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.config import TaggingConfig
from unrolled.models import Tagger
from unrolled.nn.types import HiddenState
from unrolled.tasks._baselines import FrequentLabels
from unrolled.tasks._bucketing import pad
from unrolled.tasks._entities import entity_scores, has_entities, malformed_labels
from unrolled.tasks._example_task import ExampleTask
from unrolled.tasks._metrics import IGNORED
from unrolled.tasks._number_format import format_full
from unrolled.tasks._task import PredictionInput, Shard
from unrolled.tasks.codecs._tagging import EncodedSentence, TaggingCodec, TaggingState
from unrolled.tasks.data._conll import Sentence, read_conll
from unrolled.tasks.data._source import DataError, Source
from unrolled.tasks.data._splitting import split_examples
from unrolled.tasks.data._unlabelled_sentences import ColumnGuide, read_unlabelled_sentences

EncodedExample = tuple[EncodedSentence, Tensor]
"""A sentence as tensors, and its labels `[T]`."""


class TaggingBatch(NamedTuple):
    """Words `[T, N]`, lengths `[N]`, labels `[T, N]` (-100 for padding), characters `[C, T·N]` and
    how many each word has `[T·N]`."""

    words: Tensor
    lengths: Tensor
    labels: Tensor
    characters: Tensor | None
    spellings: Tensor | None
    numbers: list[int]  # of the sentences
    total: int

    @property
    def size(self) -> int:
        """Tokens of this shard."""
        return int(self.lengths.sum())


class Tagging(
    ExampleTask[TaggingConfig, Tagger, TaggingCodec, TaggingBatch, Sentence, EncodedExample]
):
    """Cross-entropy of each token's label; if the labels mark entities, their F1."""

    name = "tag"
    unit = "tokens"
    metric_names = ("loss", "accuracy", "entity_precision", "entity_recall", "entity_f1")
    baselines_use_training = True

    def __init__(
        self,
        config: TaggingConfig,
        training: Sequence[Sentence],
        validation: Sequence[Sentence],
        codec: TaggingCodec | None = None,
    ) -> None:
        codec = codec or TaggingCodec.of(training, config, validation)
        self.marks_entities = has_entities(codec.labels.entries)
        super().__init__(config, codec, training, validation)

    @override
    @classmethod
    def read(
        cls,
        config: TaggingConfig,
        codec: TaggingCodec | None = None,
        validate_on_all: bool = False,
    ) -> "Tagging":
        if not config.paths:
            from unrolled.tasks import datasets

            return cls(config, *datasets.python_tags(), codec)
        files = {
            path: read_conll(path, config.column, config.token_column) for path in config.paths
        }
        if codec is None:
            _check_entities(files)
        else:
            _check_labels(files, codec)
        sentences = [sentence for path in config.paths for sentence in files[path]]
        return cls(config, *split_examples(sentences, config, validate_on_all), codec)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: TaggingConfig,
        codec: TaggingCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput[list[str]]]:
        inputs = [PredictionInput(repr(text), codec.split(text)) for text in texts]
        empty = [item.name for item in inputs if not item.value]
        if empty:
            raise DataError(f"--text must have at least one token, got {empty[0]}")
        guide = ColumnGuide(codec.words, codec.labels, config.column, config.token_column)
        for source in sources:
            for location, tokens in read_unlabelled_sentences(source, guide, codec.split):
                inputs.append(PredictionInput(location, tokens))
        return inputs

    @override
    @classmethod
    def codec_from_state(cls, state: TaggingState) -> TaggingCodec:
        return TaggingCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> Tagger:
        return Tagger(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: TaggingCodec) -> dict[str, object]:
        return {
            "words": len(codec.words),
            "characters": 0 if codec.characters is None else len(codec.characters),
            "labels": len(codec.labels),
        }

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "embedding_size", "bidirectional")
        options = {name: getattr(self.config, name) for name in names}
        return self.codec_arguments(self.codec) | options

    @override
    def length(self, example: Sentence) -> int:
        return len(example.tokens)

    @override
    def encode(self, example: Sentence) -> EncodedExample:
        return self.codec.encode(example.tokens), self.codec.labels.encode(example.labels)

    @override
    def collate(
        self, encoded: Sequence[EncodedExample], numbers: list[int], shard: Shard
    ) -> TaggingBatch:
        examples = encoded[shard.slice]
        total = sum(len(labels) for _, labels in encoded)
        if not examples:
            empty = torch.zeros(1, 0).long()
            return TaggingBatch(empty, empty[0], empty, empty, empty[0], [], total)
        words, lengths, characters, spellings = self.codec.pad([tokens for tokens, _ in examples])
        labels, _ = pad([labels for _, labels in examples], IGNORED)
        return TaggingBatch(
            words, lengths, labels, characters, spellings, numbers[shard.slice], total
        )

    @override
    def loss(
        self, model: Tagger, batch: TaggingBatch, carried: HiddenState | None
    ) -> tuple[Tensor, None]:
        logits = model(batch.words, batch.lengths, batch.characters, batch.spellings)
        return _cross_entropy(logits.float(), batch.labels), None

    @override
    def tally(
        self, model: Tagger, batch: TaggingBatch, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], None]:
        logits = model(batch.words, batch.lengths, batch.characters, batch.spellings)
        predicted = logits.argmax(-1)
        mask = batch.labels != IGNORED
        sums = {
            "loss": _cross_entropy(logits.double(), batch.labels),
            "correct": ((predicted == batch.labels) & mask).sum(),
            "tokens": mask.sum(),
        }
        if self.marks_entities:
            expected = [self.validation_examples[k].labels for k in batch.numbers]
            rows = [
                self.codec.labels.decode(predicted[: len(labels), n].tolist())
                for n, labels in enumerate(expected)
            ]
            score = entity_scores(expected, rows).micro
            sums["entities"] = torch.tensor([score.correct, score.predicted, score.expected])
        return sums, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor, ...], list[str]]:
        tokens = list(max(self.validation_examples, key=lambda s: len(s.tokens)).tokens)
        if text is not None:
            tokens = self.codec.split(text)
        if len(tokens) < 2:
            raise DataError(f"text: must have at least two tokens, got {len(tokens)}")
        labels = tokens if all(len(t) == 1 for t in tokens) else [f"{token} " for token in tokens]
        inputs = self.codec.batch([tokens])
        return tuple(tensor for tensor in inputs if tensor is not None), labels

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        tokens = sums["tokens"].item()
        correct, predicted, expected = sums.get("entities", torch.zeros(3)).tolist()
        total = predicted + expected
        return {
            "loss": sums["loss"].item() / tokens,
            "accuracy": sums["correct"].item() / tokens,
            "entity_precision": correct / predicted if predicted else 0.0,
            "entity_recall": correct / expected if expected else 0.0,
            "entity_f1": 2 * correct / total if total else 0.0,
        }

    @override
    def format_scores(
        self, scores: dict[str, float], format_number: Callable[[float], str] = format_full
    ) -> str:
        if not self.marks_entities:
            scores = {k: v for k, v in scores.items() if not k.startswith("entity")}
        return super().format_scores(scores, format_number)

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        expected = [sentence.labels for sentence in self.validation_examples]
        frequent = FrequentLabels(self.training_examples)
        predictions = {
            "majority": [[frequent.default] * len(labels) for labels in expected],
            "unigram": [frequent(sentence.tokens) for sentence in self.validation_examples],
        }
        scores = {}
        for name, predicted in predictions.items():
            scores[name] = {"accuracy": _accuracy(expected, predicted)}
            if self.marks_entities:
                scores[name]["entity_f1"] = entity_scores(expected, predicted).micro.f1
        return scores


def predict_tags(
    model: Tagger, codec: TaggingCodec, sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The most likely label of each token.

    Raises:
        DataError: a sentence has no tokens.
    """
    for n, tokens in enumerate(sentences, 1):
        if not tokens:
            raise DataError(f"sentence {n}: must have at least one token, got none")
    device = next(model.parameters()).device
    inputs = [None if x is None else x.to(device) for x in codec.batch(sentences)]
    with torch.no_grad():
        predicted = model(*inputs).argmax(-1)
    columns = [predicted[: len(tokens), n].tolist() for n, tokens in enumerate(sentences)]
    return [codec.labels.decode(column) for column in columns]


def _accuracy(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    correct = [
        label == prediction
        for labels, predictions in zip(expected, predicted, strict=True)
        for label, prediction in zip(labels, predictions, strict=True)
    ]
    return sum(correct) / len(correct)


def _labels_with_location(
    files: Mapping[str, Sequence[Sentence]],
) -> Iterator[tuple[str, str]]:
    for path, sentences in files.items():
        for sentence in sentences:
            for label, line in zip(sentence.labels, sentence.lines, strict=True):
                yield label, f"{path}, line {line}"


def _check_labels(files: Mapping[str, Sequence[Sentence]], codec: TaggingCodec) -> None:
    """Check that a model knows the labels of files."""
    for label, location in _labels_with_location(files):
        codec.labels.encode([label], location)


def _check_entities(files: Mapping[str, Sequence[Sentence]]) -> None:
    """Refuse a label that marks no entity if most do: it would leave all entities unscored."""
    malformed = malformed_labels(label for label, _ in _labels_with_location(files))
    if not malformed:
        return
    for label, location in _labels_with_location(files):
        if label in malformed:
            raise DataError(
                f"{location}: must be O, or one of B, I, L, U, E, S with - and a type, as most "
                f"labels of these data are, got {label!r}"
            )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    logits = logits.flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
