"""Sequence to sequence: text to text, by characters or words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.models import EncoderDecoder
from unrolled.runtime.text import UNITS, cut, written
from unrolled.tasks.lengths import pad
from unrolled.tasks.listed import Listed, parts
from unrolled.tasks.metrics import edit_distance
from unrolled.tasks.reading import DataError, Source, read_utf8
from unrolled.tasks.search import beam, greedy
from unrolled.tasks.task import Input, Share
from unrolled.tasks.words import Words

__all__ = ["Alphabets", "Pair", "Pairs", "Side", "Translation", "predict", "read_pairs"]

_NONE = -100


class Pair(NamedTuple):
    """A source and its target."""

    source: str
    target: str


class Pairs(NamedTuple):
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
        """Target tokens of this share, with one end each."""
        return int(self.target_lengths.sum())


class Side:
    """Texts of sources, or of targets, as tokens: characters, or words and single signs.

    Blanks before a word are not kept; written, words are put one blank apart, signs close to what
    comes before.
    """

    def __init__(self, unit: str, tokens: Words) -> None:
        self.unit = unit
        self.tokens = tokens

    @classmethod
    def of(cls, texts: Sequence[str], unit: str, min_count: int) -> "Side":
        """That of training texts."""
        found = (token for text in texts for token in cut(text, unit))
        what = "character" if unit == "characters" else "word"
        options: dict[str, Any] = {"padding": True, "unknown": True, "what": what}
        return cls(unit, Words.of(found, min_count=min_count, **options))

    def encode(self, text: str) -> Tensor:
        return self.tokens.encode(cut(text, self.unit))

    def decode(self, numbers: Sequence[int]) -> str:
        return written(self.tokens.decode(numbers), self.unit)

    def normal(self, text: str) -> str:
        """A text as it would be written."""
        return written(cut(text, self.unit), self.unit)

    def state(self) -> dict[str, Any]:
        return {"unit": self.unit, "tokens": self.tokens.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Side":
        if state["unit"] not in UNITS:
            raise ValueError(f"unit: wanted characters or words, got {state['unit']!r}")
        return cls(state["unit"], Words.from_state(state["tokens"]))


class Alphabets:
    """Tokens of sources and of targets, as numbers; targets have a begin and an end."""

    def __init__(self, source: Side, target: Side) -> None:
        self.source = source
        self.target = target
        # Beyond the tokens: none can be taken for them.
        self.begin, self.end = len(target.tokens), len(target.tokens) + 1

    @classmethod
    def of(cls, pairs: Sequence[Pair], config: Any) -> "Alphabets":
        """Those of training pairs."""
        units = (config.source_unit, config.target_unit)
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        made = zip(sides, units, strict=True)
        return cls(*(Side.of(texts, unit, config.min_count) for texts, unit in made))

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
        return {"source": self.source.state(), "target": self.target.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Alphabets":
        return cls(Side.from_state(state["source"]), Side.from_state(state["target"]))


class Translation(Listed):
    """Cross-entropy of each next token of the target, given the right ones before it."""

    name = "seq2seq"
    unit = "tokens"
    measures = ("loss", "exact", "error_rate")

    def __init__(
        self,
        config: Any,
        training: Sequence[Pair],
        validation: Sequence[Pair],
        codec: Alphabets | None = None,
    ) -> None:
        self.codec = codec or Alphabets.of(training, config)
        super().__init__(config, training, validation)
        self.limit = 2 * max((len(after) for _, _, after in self.encoded[1]), default=1)

    @override
    @classmethod
    def read(
        cls, config: Any, codec: Alphabets | None = None, whole: bool = False
    ) -> "Translation":
        if not config.paths:
            from unrolled.tasks.datasets import dates, numbers

            makers: dict[str, list[Any]] = {"dates": [dates], "numbers": [numbers]}
            chosen = makers.get(config.data, [dates, numbers])
            both = zip(*(one() for one in chosen), strict=True)
            training, validation = ([Pair(*pair) for one in p for pair in one] for p in both)
            return cls(config, training, validation, codec)
        pairs = [p for path in config.paths for p in read_pairs(path, config.max_length)]
        return cls(config, *parts(pairs, config, whole), codec)

    @override
    @classmethod
    def inputs(
        cls, config: Any, codec: Alphabets, sources: Sequence[Source], texts: Sequence[str] = ()
    ) -> list[Input]:
        """An empty line is an item too, so that lines of both sides go together."""
        found = [Input(repr(text), text) for text in texts]
        for source in sources:
            lines = read_utf8(source).splitlines()
            found += [Input(f"{source}, line {n}", line) for n, line in enumerate(lines, 1)]
        return found

    @override
    @classmethod
    def codec_of(cls, state: dict[str, Any]) -> Alphabets:
        return Alphabets.from_state(state)

    @override
    @classmethod
    def make(cls, arguments: dict[str, Any]) -> EncoderDecoder:
        return EncoderDecoder(**arguments)

    @override
    @classmethod
    def sizes(cls, codec: Alphabets) -> dict[str, Any]:
        return {"source_size": len(codec.source.tokens), "target_size": codec.target_size}

    @override
    def arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "embedding_size", "attention")
        given = {name: getattr(self.config, name) for name in (*names, "bidirectional")}
        return self.sizes(self.codec) | given

    @override
    def length(self, example: Pair) -> int:
        return len(example.source) + len(example.target)

    @override
    def encode(self, example: Pair) -> tuple[Tensor, Tensor, Tensor]:
        return self.codec.source.encode(example.source), *self.codec.target_of(example.target)

    @override
    def collate(
        self, encoded: Sequence[tuple[Tensor, ...]], numbers: list[int], share: Share
    ) -> Pairs:
        own = encoded[share.items]
        total = sum(len(target) for _, target, _ in encoded)
        if not own:
            none = torch.zeros(1, 0).long()
            return Pairs(none, none[0], none, none, none[0], [], total)
        sources, targets, followers = zip(*own, strict=True)
        before, ends = pad(targets, 0)
        after, _ = pad(followers, _NONE)
        return Pairs(*pad(sources, 0), before, after, ends, numbers[share.items], total)

    @override
    def loss(self, model: Any, batch: Pairs, carried: Any) -> tuple[Tensor, None]:
        logits = model(batch.sources, batch.targets, batch.source_lengths, batch.target_lengths)
        return _cross_entropy(logits.float(), batch.followers), None

    @override
    def tally(self, model: Any, batch: Pairs, carried: Any) -> tuple[dict[str, Tensor], None]:
        pairs = [self.held_out[k] for k in batch.numbers]
        wanted = [self.codec.target.normal(pair.target) for pair in pairs]
        texts = [pair.source for pair in pairs]
        found = predict(model, self.codec, texts, width=self.config.beam, limit=self.limit)
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
            "exact": (sums["exact"] / sums["pairs"]).item(),
            "error_rate": (sums["edits"] / sums["characters"].clamp(min=1)).item(),
        }


def predict(
    model: EncoderDecoder,
    codec: Alphabets,
    sources: Sequence[str],
    *,
    width: int = 1,
    limit: int = 200,
) -> list[str]:
    """A target for each source: greedily, or the best of a beam of ``width`` hypotheses.

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
    ends = {"begin": codec.begin, "end": codec.end, "limit": limit}
    if width == 1:
        found = greedy(model, encoded.to(device), lengths, **ends)
        return [codec.decode(hypothesis.tokens) for hypothesis in found]
    rows = [encoded[:length, n].to(device) for n, length in enumerate(lengths.tolist())]
    best = [beam(model, row, width=width, **ends)[0] for row in rows]
    return [codec.decode(hypothesis.tokens) for hypothesis in best]


def read_pairs(path: Source, limit: int) -> list[Pair]:
    """Pairs from a file with a source, a tab and its target on each line; empty lines are passed
    over.

    Raises:
        DataError: a line has no or more tabs, or an empty or too long side; the message names it.
    """
    pairs = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip():
            continue
        sides = line.split("\t")
        where = f"{path}, line {number}"
        if len(sides) != 2 or not all(side.strip() for side in sides):
            raise DataError(f"{where}: wanted a source, a tab and its target, got {line[:60]!r}")
        if max(map(len, sides)) > limit:
            got = max(map(len, sides))
            raise DataError(
                f"{where}: wanted at most {limit} characters a side, got {got}; --max-length"
            )
        pairs.append(Pair(*sides))
    return pairs


def _cross_entropy(logits: Tensor, followers: Tensor) -> Tensor:
    flat = logits.flatten(0, 1)
    return F.cross_entropy(flat, followers.flatten(), ignore_index=_NONE, reduction="sum")
