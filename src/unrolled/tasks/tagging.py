"""Tagging: a label for each token of a sentence (entities, parts of speech, kinds of code)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.models import Tagger
from unrolled.tasks.baselines import FrequentLabels
from unrolled.tasks.bucketing import pad
from unrolled.tasks.codecs.token_vocab import TokenVocabulary
from unrolled.tasks.data.conll import Sentence, read_conll, split_on_blanks
from unrolled.tasks.data.source import DataError, Source
from unrolled.tasks.data.unlabelled_sentences import read_unlabelled_sentences
from unrolled.tasks.entities import entity_scores, has_entities, malformed_labels
from unrolled.tasks.example_task import ExampleTask, split_examples
from unrolled.tasks.number_format import format_full
from unrolled.tasks.task import PredictionInput, Shard

__all__ = ["Tagging", "TaggingBatch", "TaggingCodec", "predict_tags"]

_NONE = -100


class TaggingBatch(NamedTuple):
    """Words `[T, N]`, lengths `[N]`, labels `[T, N]` (-100 where no word is), characters `[C, T·N]`
    and how many each word has `[T·N]`."""

    words: Tensor
    lengths: Tensor
    labels: Tensor
    characters: Tensor | None
    spellings: Tensor | None
    numbers: list[int]  # of the sentences
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own is of no use here
        """Tokens of this shard."""
        return int(self.lengths.sum())


class TaggingCodec:
    """Words, characters and labels, as numbers."""

    def __init__(
        self, words: TokenVocabulary, characters: TokenVocabulary | None, labels: TokenVocabulary
    ) -> None:
        self.words = words
        self.characters = characters
        self.labels = labels

    @classmethod
    def of(
        cls, sentences: Sequence[Sentence], config: Any, labelled: Sequence[Sentence] = ()
    ) -> "TaggingCodec":
        """Those of training sentences; labels also of those that are held out, ``labelled``."""
        tokens = [token for s in sentences for token in s.tokens]
        special = {"padding": True, "unknown": True}
        words = TokenVocabulary.of(tokens, min_count=config.min_count, what="word", **special)
        characters = None
        if config.characters and any(len(token) > 1 for token in tokens):
            spelt = (c for token in tokens for c in token)
            characters = TokenVocabulary.of(spelt, what="character", **special)
        labels = TokenVocabulary.of(label for s in (*sentences, *labelled) for label in s.labels)
        return cls(words, characters, labels)

    def split(self, line: str) -> list[str]:
        """A plain sentence as tokens: what stands between its blanks; its characters where every
        known word is one, blanks among them only where they are known."""
        if any(len(word) > 1 for word in self.words.entries):
            return split_on_blanks(line)
        return [c for c in line if c not in " \t" or c in self.words] if line.strip(" \t") else []

    def encode(self, tokens: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """Words `[T]`, and the characters of each, if they are read."""
        words = self.words.encode(tokens)
        if self.characters is None:
            return words, []
        return words, [self.characters.encode(token) for token in tokens]

    def pad(self, encoded: Sequence[tuple[Tensor, list[Tensor]]]) -> tuple[Tensor, ...]:
        """Words `[T, N]`, lengths `[N]`, and characters with their numbers, if they are read."""
        words, lengths = pad([one for one, _ in encoded], 0)
        if self.characters is None:
            return words, lengths
        T, N = words.shape
        spelt = [torch.empty(0, dtype=torch.int64) for _ in range(T * N)]
        for n, (_, spellings) in enumerate(encoded):
            spelt[n : len(spellings) * N : N] = spellings
        return words, lengths, *pad(spelt, 0)

    def batch(self, sentences: Sequence[Sequence[str]]) -> tuple[Tensor, ...]:
        """Sentences encoded and padded."""
        return self.pad([self.encode(tokens) for tokens in sentences])

    def state(self) -> dict[str, Any]:
        characters = None if self.characters is None else self.characters.state()
        return {
            "words": self.words.state(),
            "characters": characters,
            "labels": self.labels.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TaggingCodec":
        found = state["characters"]
        characters = None if found is None else TokenVocabulary.from_state(found)
        return cls(
            TokenVocabulary.from_state(state["words"]),
            characters,
            TokenVocabulary.from_state(state["labels"]),
        )


class Tagging(ExampleTask):
    """Cross-entropy of each token's label; entities, where the labels mark some, by their F1."""

    name = "tag"
    unit = "tokens"
    metric_names = ("loss", "accuracy", "entity_precision", "entity_recall", "entity_f1")
    baselines_use_training = True

    def __init__(
        self,
        config: Any,
        training: Sequence[Sentence],
        validation: Sequence[Sentence],
        codec: TaggingCodec | None = None,
    ) -> None:
        self.codec = codec or TaggingCodec.of(training, config, validation)
        self.entities = has_entities(self.codec.labels.entries)
        super().__init__(config, training, validation)

    @override
    @classmethod
    def read(cls, config: Any, codec: TaggingCodec | None = None, whole: bool = False) -> "Tagging":
        if not config.paths:
            from unrolled.tasks.datasets import python_tags

            training, validation = python_tags()
            return cls(config, training, validation, codec)
        files = {
            path: read_conll(path, config.column, config.token_column) for path in config.paths
        }
        if codec is None:
            _check_entities(files)
        else:
            _check_labels(files, codec)
        sentences = [sentence for path in config.paths for sentence in files[path]]
        return cls(config, *split_examples(sentences, config, whole), codec)

    @override
    @classmethod
    def read_inputs(
        cls, config: Any, codec: TaggingCodec, sources: Sequence[Source], texts: Sequence[str] = ()
    ) -> list[PredictionInput]:
        columns = {"label": config.column, "token": config.token_column, "split": codec.split}
        found = [PredictionInput(repr(text), codec.split(text)) for text in texts]
        empty = [item.name for item in found if not item.value]
        if empty:
            raise DataError(f"--text: wanted one token or more, got {empty[0]}")
        for source in sources:
            found += [
                PredictionInput(*sentence)
                for sentence in read_unlabelled_sentences(
                    source, codec.words, codec.labels, **columns
                )
            ]
        return found

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> TaggingCodec:
        return TaggingCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> Tagger:
        return Tagger(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: TaggingCodec) -> dict[str, Any]:
        return {
            "words": len(codec.words),
            "characters": 0 if codec.characters is None else len(codec.characters),
            "labels": len(codec.labels),
        }

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "embedding_size", "bidirectional")
        return self.codec_arguments(self.codec) | {
            name: getattr(self.config, name) for name in names
        }

    @override
    def length(self, example: Sentence) -> int:
        return len(example.tokens)

    @override
    def encode(self, example: Sentence) -> Any:
        return self.codec.encode(example.tokens), self.codec.labels.encode(example.labels)

    @override
    def collate(self, encoded: Sequence[Any], numbers: list[int], shard: Shard) -> TaggingBatch:
        own = encoded[shard.slice]
        total = sum(len(labels) for _, labels in encoded)
        if not own:
            none = torch.zeros(1, 0).long()
            return TaggingBatch(none, none[0], none, none, none[0], [], total)
        words, lengths, *spelt = self.codec.pad([tokens for tokens, _ in own])
        labels, _ = pad([labels for _, labels in own], _NONE)
        characters, spellings = spelt or (None, None)
        return TaggingBatch(
            words, lengths, labels, characters, spellings, numbers[shard.slice], total
        )

    @override
    def loss(self, model: Any, batch: TaggingBatch, carried: Any) -> tuple[Tensor, None]:
        logits = model(batch.words, batch.lengths, batch.characters, batch.spellings)
        return _cross_entropy(logits.float(), batch.labels), None

    @override
    def tally(
        self, model: Any, batch: TaggingBatch, carried: Any
    ) -> tuple[dict[str, Tensor], None]:
        logits = model(batch.words, batch.lengths, batch.characters, batch.spellings)
        guesses = logits.argmax(-1)
        inside = batch.labels != _NONE
        found = {
            "loss": _cross_entropy(logits.double(), batch.labels),
            "right": ((guesses == batch.labels) & inside).sum(),
            "tokens": inside.sum(),
        }
        if self.entities:
            wanted = [self.held_out[k].labels for k in batch.numbers]
            columns = [guesses[: len(w), n].tolist() for n, w in enumerate(wanted)]
            guessed = [self.codec.labels.decode(column) for column in columns]
            score = entity_scores(wanted, guessed).micro
            found["entities"] = torch.tensor([score.right, score.found, score.wanted])
        return found, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str]]:
        tokens = list(max(self.held_out, key=lambda s: len(s.tokens)).tokens)
        if text is not None:
            tokens = self.codec.split(text)
        if len(tokens) < 2:
            raise DataError(f"text: wanted two tokens or more, got {len(tokens)}")
        pieces = tokens if all(len(t) == 1 for t in tokens) else [f"{token} " for token in tokens]
        return tuple(self.codec.batch([tokens])), pieces

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        tokens = sums["tokens"].item()
        right, found, wanted = sums.get("entities", torch.zeros(3)).tolist()
        return {
            "loss": sums["loss"].item() / tokens,
            "accuracy": sums["right"].item() / tokens,
            "entity_precision": right / found if found else 0.0,
            "entity_recall": right / wanted if wanted else 0.0,
            "entity_f1": 2 * right / (found + wanted) if found + wanted else 0.0,
        }

    @override
    def format_scores(
        self, scores: dict[str, float], text: Callable[[float], str] = format_full
    ) -> str:
        shown = {k: v for k, v in scores.items() if self.entities or not k.startswith("entity")}
        return super().format_scores(shown, text)

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        wanted = [s.labels for s in self.held_out]
        every = FrequentLabels(self.training)
        guesses = {
            "majority": [[every.default] * len(labels) for labels in wanted],
            "unigram": [every(s.tokens) for s in self.held_out],
        }
        found = {}
        for name, guessed in guesses.items():
            pairs = [
                p for w, g in zip(wanted, guessed, strict=True) for p in zip(w, g, strict=True)
            ]
            right = sum(w == g for w, g in pairs)
            found[name] = {"accuracy": right / len(pairs)}
            if self.entities:
                found[name]["entity_f1"] = entity_scores(wanted, guessed).micro.f1
        return found


def predict_tags(
    model: Tagger, codec: TaggingCodec, sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The likeliest label of each token.

    Raises:
        DataError: a sentence has no tokens.
    """
    for n, tokens in enumerate(sentences):
        if not tokens:
            raise DataError(f"sentence {n + 1}: wanted one token or more, got none")
    device = next(model.parameters()).device
    given = [tensor.to(device) for tensor in codec.batch(sentences)]
    with torch.no_grad():
        guesses = model(*given).argmax(-1)
    columns = [guesses[: len(tokens), n].tolist() for n, tokens in enumerate(sentences)]
    return [codec.labels.decode(column) for column in columns]


def _check_labels(files: Mapping[str, Sequence[Sentence]], codec: TaggingCodec) -> None:
    """Hold the labels of files to those that a model knows."""
    for path, sentences in files.items():
        for sentence in sentences:
            for label, line in zip(sentence.labels, sentence.lines, strict=True):
                codec.labels.encode([label], f"{path}, line {line}")


def _check_entities(files: Mapping[str, Sequence[Sentence]]) -> None:
    """Refuse a label that marks no entity among those that do: it would leave entities unscored."""
    malformed = malformed_labels(
        label for sentences in files.values() for s in sentences for label in s.labels
    )
    for path, sentences in files.items() if malformed else ():
        for sentence in sentences:
            for label, line in zip(sentence.labels, sentence.lines, strict=True):
                if label in malformed:
                    raise DataError(
                        f"{path}, line {line}: wanted O, or one of B, I, L, U, E, S with - and a "
                        f"type, as most labels of these data are, got {label!r}"
                    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    flat = logits.flatten(0, 1)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=_NONE, reduction="sum")
