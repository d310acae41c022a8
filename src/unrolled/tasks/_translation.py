"""Sequence to sequence: text to text, by characters or words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.config import TranslationConfig
from unrolled.models import EncoderDecoder
from unrolled.nn.types import HiddenState
from unrolled.tasks._bucketing import pad
from unrolled.tasks._example_task import ExampleTask
from unrolled.tasks._metrics import IGNORED, edit_distance
from unrolled.tasks._search import beam, greedy
from unrolled.tasks._task import PredictionInput, Shard
from unrolled.tasks.codecs._translation import Pair, TranslationCodec, TranslationState
from unrolled.tasks.data._source import DataError, Source, read_lines
from unrolled.tasks.data._splitting import split_examples

_MAX_SHOWN = 60
"""Characters of a line that a message shows."""


class EncodedPair(NamedTuple):
    """Source tokens `[T]`; the decoder's inputs, and the next token of each, both `[U]`."""

    source: Tensor
    inputs: Tensor
    next_tokens: Tensor


class TranslationBatch(NamedTuple):
    """Sources `[T, N]` and their lengths; the decoder's inputs `[U, N]`, the next token of each
    `[U, N]` (-100 for padding), and their lengths, which include the end token."""

    sources: Tensor
    source_lengths: Tensor
    inputs: Tensor
    next_tokens: Tensor
    target_lengths: Tensor
    numbers: list[int]  # of the pairs
    total: int

    @property
    def size(self) -> int:
        """Target tokens of this shard, with an end token for each target."""
        return int(self.target_lengths.sum())


class Translation(
    ExampleTask[
        TranslationConfig, EncoderDecoder, TranslationCodec, TranslationBatch, Pair, EncodedPair
    ]
):
    """Cross-entropy of each next token of the target, given the true ones before it."""

    name = "seq2seq"
    unit = "tokens"
    metric_names = ("loss", "exact", "error_rate")

    def __init__(
        self,
        config: TranslationConfig,
        training: Sequence[Pair],
        validation: Sequence[Pair],
        codec: TranslationCodec | None = None,
    ) -> None:
        codec = codec or TranslationCodec.of(training, config, validation)
        super().__init__(config, codec, training, validation)

    @override
    @classmethod
    def read(
        cls,
        config: TranslationConfig,
        codec: TranslationCodec | None = None,
        validate_on_all: bool = False,
    ) -> "Translation":
        if not config.paths:
            return cls(config, *_built_in_pairs(config.data), codec)
        pairs = [pair for path in config.paths for pair in read_pairs(path, config.max_length)]
        return cls(config, *split_examples(pairs, config, validate_on_all), codec)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: TranslationConfig,
        codec: TranslationCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput[str]]:
        """The source on each line, alone or before a tab and its target. A blank line is an item
        too, the empty text, so that the lines of input and output correspond."""
        inputs = []
        for text in texts:
            _check_length("--text", [text], config.max_length)
            inputs.append(PredictionInput(repr(text), text))
        for source in sources:
            for location, sides in _read_sides(source, config.max_length):
                if len(sides) > 2 or (sides and not sides[0].strip()):
                    line = "\t".join(sides)[:_MAX_SHOWN]
                    raise DataError(f"{location}: must have a source, got {line!r}")
                inputs.append(PredictionInput(location, sides[0] if sides else ""))
        return inputs

    @override
    @classmethod
    def codec_from_state(cls, state: TranslationState) -> TranslationCodec:
        return TranslationCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> EncoderDecoder:
        return EncoderDecoder(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: TranslationCodec) -> dict[str, object]:
        return {"source_size": len(codec.source.tokens), "target_size": codec.target_size}

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "embedding_size", "attention")
        options = {name: getattr(self.config, name) for name in (*names, "bidirectional")}
        return self.codec_arguments(self.codec) | options

    @override
    def length(self, example: Pair) -> int:
        return len(example.source) + len(example.target)

    @override
    def encode(self, example: Pair) -> EncodedPair:
        inputs, next_tokens = self.codec.encode_target(example.target)
        return EncodedPair(self.codec.source.encode(example.source), inputs, next_tokens)

    @override
    def collate(
        self, encoded: Sequence[EncodedPair], numbers: list[int], shard: Shard
    ) -> TranslationBatch:
        pairs = encoded[shard.slice]
        total = sum(len(pair.inputs) for pair in encoded)
        if not pairs:
            empty = torch.zeros(1, 0).long()
            return TranslationBatch(empty, empty[0], empty, empty, empty[0], [], total)
        sources, source_lengths = pad([pair.source for pair in pairs], 0)
        inputs, target_lengths = pad([pair.inputs for pair in pairs], 0)
        next_tokens, _ = pad([pair.next_tokens for pair in pairs], IGNORED)
        return TranslationBatch(
            sources,
            source_lengths,
            inputs,
            next_tokens,
            target_lengths,
            numbers[shard.slice],
            total,
        )

    @override
    def loss(
        self, model: EncoderDecoder, batch: TranslationBatch, carried: HiddenState | None
    ) -> tuple[Tensor, None]:
        logits = model(batch.sources, batch.inputs, batch.source_lengths, batch.target_lengths)
        return _cross_entropy(logits.float(), batch.next_tokens), None

    @override
    def tally(
        self, model: EncoderDecoder, batch: TranslationBatch, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], None]:
        pairs = [self.validation_examples[k] for k in batch.numbers]
        expected = [self.codec.target.normalize(pair.target) for pair in pairs]
        sources = [pair.source for pair in pairs]
        predicted = translate(model, self.codec, sources, width=self.config.beam)
        edits = [edit_distance(a, b) for a, b in zip(expected, predicted, strict=True)]
        return {
            "loss": self.loss(model, batch, None)[0].double(),
            "count": torch.tensor(batch.size),
            "exact": torch.tensor(edits.count(0)),
            "edits": torch.tensor(sum(edits)),
            "characters": torch.tensor(sum(map(len, expected))),
            "pairs": torch.tensor(len(expected)),
        }, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor, ...], list[str]]:
        pair = max(self.validation_examples, key=lambda p: len(p.source))
        source, lengths = self.codec.encode_sources([pair.source if text is None else text])
        if len(source) < 2:
            raise DataError(f"text: must have at least two tokens, got {len(source)}")
        inputs = self.codec.encode_target(pair.target)[0][:, None]
        labels = self.codec.source.tokens.decode(source[:, 0])
        if self.codec.source.unit == "words":
            labels = [f"{label} " for label in labels]
        return (source, inputs, lengths), labels

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {
            "loss": (sums["loss"] / sums["count"]).item(),
            "exact": sums["exact"].item() / sums["pairs"].item(),
            "error_rate": sums["edits"].item() / max(1, sums["characters"].item()),
        }


def translate(
    model: EncoderDecoder,
    codec: TranslationCodec,
    sources: Sequence[str],
    *,
    width: int = 1,
    limit: int | None = None,
) -> list[str]:
    """A target for each source, by greedy search or a beam of ``width`` hypotheses, of at most
    ``limit`` tokens (the codec's limit by default).

    Raises:
        DataError: a source is empty.
    """
    if not sources:
        return []
    for n, text in enumerate(sources, 1):
        if not len(codec.source.encode(text)):
            raise DataError(f"source {n}: must have at least one token, got {text!r}")
    device = next(model.parameters()).device
    encoded, lengths = codec.encode_sources(sources)
    begin, end, limit = codec.begin, codec.end, limit or codec.limit
    if width == 1:
        hypotheses = greedy(model, encoded.to(device), lengths, begin=begin, end=end, limit=limit)
        return [codec.decode(hypothesis.tokens) for hypothesis in hypotheses]
    rows = [encoded[:length, n].to(device) for n, length in enumerate(lengths.tolist())]
    beams = [beam(model, row, width=width, begin=begin, end=end, limit=limit) for row in rows]
    return [codec.decode(ranked[0].tokens) for ranked in beams]


def read_pairs(source: Source, limit: int) -> list[Pair]:
    """Pairs from a file with a source, a tab and its target on each line; blank lines are skipped.

    Raises:
        DataError: a line has no tab or several, or an empty or too long side; the message names
            the line.
    """
    pairs = []
    for location, sides in _read_sides(source, limit):
        if not sides:
            continue
        if len(sides) != 2 or not all(side.strip() for side in sides):
            line = "\t".join(sides)[:_MAX_SHOWN]
            raise DataError(f"{location}: must have a source, a tab and its target, got {line!r}")
        pairs.append(Pair(*sides))
    return pairs


def _built_in_pairs(name: str) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs of dates, of numbers, or of both."""
    from unrolled.tasks import datasets

    parts = []
    if name in ("dates", "both"):
        parts.append(datasets.dates())
    if name in ("numbers", "both"):
        parts.append(datasets.numbers())
    training = [Pair(*pair) for part in parts for pair in part[0]]
    return training, [Pair(*pair) for part in parts for pair in part[1]]


def _read_sides(source: Source, limit: int) -> Iterator[tuple[str, list[str]]]:
    """The location of each line, and its fields between tabs; none for a blank line."""
    for number, line in enumerate(read_lines(source), 1):
        location = f"{source}, line {number}"
        sides = line.split("\t") if line.strip() else []
        _check_length(location, sides, limit)
        yield location, sides


def _check_length(location: str, sides: Sequence[str], limit: int) -> None:
    longest = max(map(len, sides), default=0)
    if longest > limit:
        raise DataError(
            f"{location}: source and target must have at most {limit} characters, got {longest}; "
            "the limit is the run's --max-length"
        )


def _cross_entropy(logits: Tensor, next_tokens: Tensor) -> Tensor:
    logits = logits.flatten(0, 1)
    return F.cross_entropy(logits, next_tokens.flatten(), ignore_index=IGNORED, reduction="sum")
