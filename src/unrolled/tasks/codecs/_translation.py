"""The codec of translators: texts of sources and of targets, by characters or words."""

from collections.abc import Sequence
from typing import NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from unrolled.config import TranslationConfig
from unrolled.runtime._text import UNITS, join_tokens, split_tokens
from unrolled.tasks._bucketing import pad
from unrolled.tasks.codecs._token_vocab import TokenVocabulary, TokenVocabularyState


class Pair(NamedTuple):
    """A source and its target."""

    source: str
    target: str


class TextState(TypedDict):
    """The state of a :class:`TextCodec` in a checkpoint."""

    unit: str
    tokens: TokenVocabularyState


class TranslationState(TypedDict):
    """The state of a :class:`TranslationCodec` in a checkpoint; the first versions had no limit."""

    source: TextState
    target: TextState
    limit: NotRequired[int]


class TextCodec:
    """Converts texts to tokens (characters, or words and single punctuation marks) and back.

    Spaces before a word are not kept: in the output, words are separated by one space, and
    punctuation marks follow without a space.
    """

    def __init__(self, unit: str, tokens: TokenVocabulary) -> None:
        self.unit = unit
        self.tokens = tokens

    @classmethod
    def of(cls, texts: Sequence[str], unit: str, min_count: int) -> "TextCodec":
        """The codec of training texts."""
        tokens = (token for text in texts for token in split_tokens(text, unit))
        entry_type = "character" if unit == "characters" else "word"
        vocabulary = TokenVocabulary.of(
            tokens, min_count=min_count, padding=True, unknown=True, entry_type=entry_type
        )
        return cls(unit, vocabulary)

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, `[tokens]`."""
        return self.tokens.encode(split_tokens(text, self.unit))

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens."""
        return join_tokens(self.tokens.decode(numbers), self.unit)

    def normalize(self, text: str) -> str:
        """A text as the codec would write it."""
        return join_tokens(split_tokens(text, self.unit), self.unit)

    def state(self) -> TextState:
        """Plain values from which `from_state` makes the same codec."""
        return {"unit": self.unit, "tokens": self.tokens.state()}

    @classmethod
    def from_state(cls, state: TextState) -> "TextCodec":
        """The codec whose `state` this is."""
        if state["unit"] not in UNITS:
            raise ValueError(f"TextCodec: unit must be characters or words, got {state['unit']!r}")
        return cls(state["unit"], TokenVocabulary.from_state(state["tokens"]))


class TranslationCodec:
    """The tokens of sources and of targets; targets have a begin and an end token.

    Args:
        source, target: the codecs of the two sides.
        limit: the maximum number of tokens of a generated target, including its end.

    Raises:
        ValueError: the limit is not a positive integer.
    """

    def __init__(self, source: TextCodec, target: TextCodec, limit: int = 200) -> None:
        if type(limit) is not int or limit < 1:
            raise ValueError(f"TranslationCodec: limit must be at least 1, got {limit!r}")
        self.source = source
        self.target = target
        self.limit = limit
        # Numbered after all tokens, so that no token has the same number.
        self.begin, self.end = len(target.tokens), len(target.tokens) + 1

    @classmethod
    def of(
        cls, training: Sequence[Pair], config: TranslationConfig, validation: Sequence[Pair] = ()
    ) -> "TranslationCodec":
        """The codec of training pairs. The limit is twice the length of the longest target of the
        training and validation parts."""
        source = TextCodec.of(
            [pair.source for pair in training], config.source_unit, config.min_count
        )
        target = TextCodec.of(
            [pair.target for pair in training], config.target_unit, config.min_count
        )
        lengths = (len(target.encode(pair.target)) for pair in (*training, *validation))
        return cls(source, target, 2 * (max(lengths, default=0) + 1))

    @property
    def target_size(self) -> int:
        """The number of target tokens, begin and end included."""
        return len(self.target.tokens) + 2

    def encode_sources(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sources encoded and padded `[T, N]`, and their lengths."""
        return pad([self.source.encode(text) for text in texts], 0)

    def encode_target(self, text: str) -> tuple[Tensor, Tensor]:
        """The inputs of the decoder, which begin with the begin token, and the next token of each:
        both `[U]`."""
        tokens = self.target.encode(text)
        inputs = torch.cat([tokens.new_tensor([self.begin]), tokens])
        return inputs, torch.cat([tokens, tokens.new_tensor([self.end])])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a hypothesis."""
        return self.target.decode([token for token in tokens if token < self.begin])

    def state(self) -> TranslationState:
        """Plain values from which `from_state` makes the same codec."""
        return {
            "source": self.source.state(),
            "target": self.target.state(),
            "limit": self.limit,
        }

    @classmethod
    def from_state(cls, state: TranslationState) -> "TranslationCodec":
        """The codec whose `state` this is."""
        source = TextCodec.from_state(state["source"])
        target = TextCodec.from_state(state["target"])
        return cls(source, target, state.get("limit", 200))
