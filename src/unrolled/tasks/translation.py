"""Sequence to sequence: text to text, by characters or words."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.models import EncoderDecoder
from unrolled.runtime.text import UNITS, join_tokens, split_tokens
from unrolled.tasks.bucketing import pad
from unrolled.tasks.codecs.token_vocab import TokenVocabulary
from unrolled.tasks.data.source import DataError, Source, read_lines
from unrolled.tasks.example_task import ExampleTask, split_examples
from unrolled.tasks.metrics import edit_distance
from unrolled.tasks.search import beam, greedy
from unrolled.tasks.task import PredictionInput, Shard

__all__ = [
    "Pair",
    "TextCodec",
    "Translation",
    "TranslationBatch",
    "TranslationCodec",
    "read_pairs",
    "translate",
]

_NONE = -100


class Pair(NamedTuple):
    """A source and its target."""

    source: str
    target: str


class TranslationBatch(NamedTuple):
    """Sources `[T, N]` and their lengths; targets after the begin `[U, N]`, what follows each
    `[U, N]` (-100 behind the end), and their lengths, the end's one included."""

    sources: Tensor
    source_lengths: Tensor
    targets: Tensor
    followers: Tensor
    target_lengths: Tensor
    numbers: list[int]  # of the pairs
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own is of no use here
        """Target tokens of this shard, with one end each."""
        return int(self.target_lengths.sum())


class TextCodec:
    """Texts of sources, or of targets, as tokens: characters, or words and single signs.

    Blanks before a word are not kept; written, words are put one blank apart, signs close to what
    comes before.
    """

    def __init__(self, unit: str, tokens: TokenVocabulary) -> None:
        self.unit = unit
        self.tokens = tokens

    @classmethod
    def of(cls, texts: Sequence[str], unit: str, min_count: int) -> "TextCodec":
        """That of training texts."""
        found = (token for text in texts for token in split_tokens(text, unit))
        what = "character" if unit == "characters" else "word"
        options: dict[str, Any] = {"padding": True, "unknown": True, "what": what}
        return cls(unit, TokenVocabulary.of(found, min_count=min_count, **options))

    def encode(self, text: str) -> Tensor:
        return self.tokens.encode(split_tokens(text, self.unit))

    def decode(self, numbers: Sequence[int]) -> str:
        return join_tokens(self.tokens.decode(numbers), self.unit)

    def normal(self, text: str) -> str:
        """A text as it would be written."""
        return join_tokens(split_tokens(text, self.unit), self.unit)

    def state(self) -> dict[str, Any]:
        return {"unit": self.unit, "tokens": self.tokens.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TextCodec":
        if state["unit"] not in UNITS:
            raise ValueError(f"unit: wanted characters or words, got {state['unit']!r}")
        return cls(state["unit"], TokenVocabulary.from_state(state["tokens"]))


class TranslationCodec:
    """Tokens of sources and of targets, as numbers; targets have a begin and an end.

    Args:
        source, target: the two sides.
        limit: tokens of a target that is written, its end among them, at most.

    Raises:
        ValueError: the limit is no whole number above 0.
    """

    def __init__(self, source: TextCodec, target: TextCodec, limit: int = 200) -> None:
        if type(limit) is not int or limit < 1:
            raise ValueError(f"limit: wanted at least 1, got {limit!r}")
        self.source = source
        self.target = target
        self.limit = limit
        # Beyond the tokens: none can be taken for them.
        self.begin, self.end = len(target.tokens), len(target.tokens) + 1

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], config: Any, held_out: Sequence[Pair] = ()
    ) -> "TranslationCodec":
        """Those of training pairs. A target may become twice as long as the longest of them and of
        those that are ``held_out``."""
        units = (config.source_unit, config.target_unit)
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        made = zip(sides, units, strict=True)
        source, target = (TextCodec.of(texts, unit, config.min_count) for texts, unit in made)
        every = (len(target.encode(pair.target)) for pair in (*pairs, *held_out))
        return cls(source, target, 2 * (max(every, default=0) + 1))

    @property
    def target_size(self) -> int:
        return len(self.target.tokens) + 2

    def sources(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encoded and padded `[T, N]`, and the lengths."""
        return pad([self.source.encode(text) for text in texts], 0)

    def target_of(self, text: str) -> tuple[Tensor, Tensor]:
        """A target after the begin, and what follows each of its tokens: both `[U]`."""
        tokens = self.target.encode(text)
        before = torch.cat([tokens.new_tensor([self.begin]), tokens])
        return before, torch.cat([tokens, tokens.new_tensor([self.end])])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a hypothesis."""
        return self.target.decode([token for token in tokens if token < self.begin])

    def state(self) -> dict[str, Any]:
        sides = {"source": self.source.state(), "target": self.target.state()}
        return sides | {"limit": self.limit}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TranslationCodec":
        source, target = (TextCodec.from_state(state[name]) for name in ("source", "target"))
        return cls(source, target, state.get("limit", 200))  # earlier versions kept none


class Translation(ExampleTask):
    """Cross-entropy of each next token of the target, given the right ones before it."""

    name = "seq2seq"
    unit = "tokens"
    metric_names = ("loss", "exact", "error_rate")

    def __init__(
        self,
        config: Any,
        training: Sequence[Pair],
        validation: Sequence[Pair],
        codec: TranslationCodec | None = None,
    ) -> None:
        self.codec = codec or TranslationCodec.of(training, config, validation)
        super().__init__(config, training, validation)

    @override
    @classmethod
    def read(
        cls, config: Any, codec: TranslationCodec | None = None, whole: bool = False
    ) -> "Translation":
        if not config.paths:
            from unrolled.tasks.datasets import dates, numbers

            makers: dict[str, list[Any]] = {"dates": [dates], "numbers": [numbers]}
            chosen = makers.get(config.data, [dates, numbers])
            both = zip(*(one() for one in chosen), strict=True)
            training, validation = ([Pair(*pair) for one in p for pair in one] for p in both)
            return cls(config, training, validation, codec)
        pairs = [p for path in config.paths for p in read_pairs(path, config.max_length)]
        return cls(config, *split_examples(pairs, config, whole), codec)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: Any,
        codec: TranslationCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput]:
        """The source on each line, alone or before a tab and its target. A blank line is an item
        too, the empty text, so that lines of both sides go together."""
        found = []
        for text in texts:
            _check_length("--text", [text], config.max_length)
            found.append(PredictionInput(repr(text), text))
        for source in sources:
            for where, sides in _sides(source, config.max_length):
                if len(sides) > 2 or (sides and not sides[0].strip()):
                    got = "\t".join(sides)[:60]
                    raise DataError(f"{where}: wanted a source, got {got!r}")
                found.append(PredictionInput(where, sides[0] if sides else ""))
        return found

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> TranslationCodec:
        return TranslationCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> EncoderDecoder:
        return EncoderDecoder(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: TranslationCodec) -> dict[str, Any]:
        return {"source_size": len(codec.source.tokens), "target_size": codec.target_size}

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "embedding_size", "attention")
        given = {name: getattr(self.config, name) for name in (*names, "bidirectional")}
        return self.codec_arguments(self.codec) | given

    @override
    def length(self, example: Pair) -> int:
        return len(example.source) + len(example.target)

    @override
    def encode(self, example: Pair) -> tuple[Tensor, Tensor, Tensor]:
        return self.codec.source.encode(example.source), *self.codec.target_of(example.target)

    @override
    def collate(
        self, encoded: Sequence[tuple[Tensor, ...]], numbers: list[int], shard: Shard
    ) -> TranslationBatch:
        own = encoded[shard.slice]
        total = sum(len(target) for _, target, _ in encoded)
        if not own:
            none = torch.zeros(1, 0).long()
            return TranslationBatch(none, none[0], none, none, none[0], [], total)
        sources, targets, followers = zip(*own, strict=True)
        before, ends = pad(targets, 0)
        after, _ = pad(followers, _NONE)
        return TranslationBatch(*pad(sources, 0), before, after, ends, numbers[shard.slice], total)

    @override
    def loss(self, model: Any, batch: TranslationBatch, carried: Any) -> tuple[Tensor, None]:
        logits = model(batch.sources, batch.targets, batch.source_lengths, batch.target_lengths)
        return _cross_entropy(logits.float(), batch.followers), None

    @override
    def tally(
        self, model: Any, batch: TranslationBatch, carried: Any
    ) -> tuple[dict[str, Tensor], None]:
        pairs = [self.held_out[k] for k in batch.numbers]
        wanted = [self.codec.target.normal(pair.target) for pair in pairs]
        texts = [pair.source for pair in pairs]
        found = translate(model, self.codec, texts, width=self.config.beam)
        both = list(zip(wanted, found, strict=True))
        return {
            "loss": self.loss(model, batch, None)[0].double(),
            "count": torch.tensor(batch.count),
            "exact": torch.tensor(sum(a == b for a, b in both)),
            "edits": torch.tensor(sum(edit_distance(a, b) for a, b in both)),
            "characters": torch.tensor(sum(map(len, wanted))),
            "pairs": torch.tensor(len(wanted)),
        }, None

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str]]:
        pair = max(self.held_out, key=lambda p: len(p.source))
        source, lengths = self.codec.sources([pair.source if text is None else text])
        if len(source) < 2:
            raise DataError(f"text: wanted two tokens or more, got {len(source)}")
        target = self.codec.target_of(pair.target)[0][:, None]
        pieces = self.codec.source.tokens.decode(source[:, 0])
        if self.codec.source.unit == "words":
            pieces = [f"{piece} " for piece in pieces]
        return (source, target, lengths), pieces

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
    """A target for each source: greedily, or the best of a beam of ``width`` hypotheses; of at most
    ``limit`` tokens, the codec's by default.

    Raises:
        DataError: a source is empty.
    """
    if not sources:
        return []
    for n, text in enumerate(sources):
        if not len(codec.source.encode(text)):
            raise DataError(f"source {n + 1}: wanted one token or more, got {text!r}")
    device = next(model.parameters()).device
    encoded, lengths = codec.sources(sources)
    ends = {"begin": codec.begin, "end": codec.end, "limit": limit or codec.limit}
    if width == 1:
        found = greedy(model, encoded.to(device), lengths, **ends)
        return [codec.decode(hypothesis.tokens) for hypothesis in found]
    rows = [encoded[:length, n].to(device) for n, length in enumerate(lengths.tolist())]
    best = [beam(model, row, width=width, **ends)[0] for row in rows]
    return [codec.decode(hypothesis.tokens) for hypothesis in best]


def read_pairs(path: Source, limit: int) -> list[Pair]:
    """Pairs from a file with a source, a tab and its target on each line; blank lines are passed
    over.

    Raises:
        DataError: a line has no or more tabs, or an empty or too long side; the message names it.
    """
    pairs = []
    for where, sides in _sides(path, limit):
        if not sides:
            continue
        if len(sides) != 2 or not all(side.strip() for side in sides):
            got = "\t".join(sides)[:60]
            raise DataError(f"{where}: wanted a source, a tab and its target, got {got!r}")
        pairs.append(Pair(*sides))
    return pairs


def _sides(path: Source, limit: int) -> Iterator[tuple[str, list[str]]]:
    """The place of each line of a file, and what its tabs separate; nothing on a blank line."""
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}, line {number}"
        sides = line.split("\t") if line.strip() else []
        _check_length(where, sides, limit)
        yield where, sides


def _check_length(where: str, sides: Sequence[str], limit: int) -> None:
    longest = max(map(len, sides), default=0)
    if longest > limit:
        raise DataError(
            f"{where}: wanted at most {limit} characters a side, got {longest}; the limit is the "
            "run's --max-length"
        )


def _cross_entropy(logits: Tensor, followers: Tensor) -> Tensor:
    flat = logits.flatten(0, 1)
    return F.cross_entropy(flat, followers.flatten(), ignore_index=_NONE, reduction="sum")
