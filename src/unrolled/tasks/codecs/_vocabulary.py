"""Vocabularies of language models: text to token numbers and back."""

from collections.abc import Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor

from unrolled.config import LanguageModelConfig
from unrolled.tasks.codecs._subword import SubwordState, SubwordVocabulary
from unrolled.tasks.data._text_files import TextError


class VocabularyState(TypedDict):
    """The state of a :class:`Vocabulary` in a checkpoint."""

    unit: Literal["byte", "character"]
    characters: str | None


class Vocabulary:
    """The tokens of a character language model: the 256 bytes, or the characters of a text.

    With bytes every text of every encoding is representable, and a "character" in bits per
    character is a byte. With characters the text is UTF-8 (invalid bytes become U+FFFD) and only
    the characters of the vocabulary have a number.

    Args:
        characters: distinct characters, in the order of their numbers; None for bytes.
    """

    characters_per_token = 1.0

    def __init__(self, characters: str | None = None) -> None:
        if characters is not None and len(set(characters)) != len(characters):
            raise ValueError(
                f"Vocabulary: characters must be distinct, got {len(characters)} characters, "
                f"{len(set(characters))} of them distinct"
            )
        self.characters = characters
        self._numbers = {c: i for i, c in enumerate(characters or "")}

    @classmethod
    def of(cls, text: bytes) -> "Vocabulary":
        """The vocabulary of the characters in a text, in the order of their code points."""
        return cls("".join(sorted(set(text.decode("utf-8", "replace")))))

    @property
    def unit(self) -> Literal["byte", "character"]:
        """The unit of a token: byte or character."""
        return "byte" if self.characters is None else "character"

    def __len__(self) -> int:
        return 256 if self.characters is None else len(self.characters)

    def encode(self, text: bytes) -> Tensor:
        """Text to token numbers `[tokens]`, uint8 for bytes, int32 for characters.

        Raises:
            TextError: the text has characters that are not in the vocabulary.
        """
        if self.characters is None:
            return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else _no_tokens()
        decoded = text.decode("utf-8", "replace")
        unknown = sorted(set(decoded) - self._numbers.keys())
        if unknown:
            shown = " ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
            raise TextError(f"text: characters must be in the vocabulary, got {shown}")
        return torch.tensor([self._numbers[c] for c in decoded], dtype=torch.int32)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Token numbers to text; bytes that are not UTF-8 become U+FFFD."""
        numbers: Sequence[int] = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        if self.characters is None:
            return bytes(numbers).decode("utf-8", "replace")
        return "".join(self.characters[i] for i in numbers)

    def state(self) -> VocabularyState:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {"unit": self.unit, "characters": self.characters}

    @classmethod
    def from_state(cls, state: VocabularyState) -> "Vocabulary":
        """The vocabulary whose `state` this is."""
        return cls(state["characters"])


def build_vocabulary(config: LanguageModelConfig, text: bytes) -> Vocabulary | SubwordVocabulary:
    """The vocabulary of a configuration: bytes, or learned from the text."""
    if config.vocabulary == "bytes":
        return Vocabulary()
    if config.vocabulary == "characters":
        return Vocabulary.of(text)
    training_size = len(text) - round(len(text) * config.validation_fraction)
    return SubwordVocabulary.of(text[:training_size], config.vocabulary_size)


def vocabulary_from_state(
    state: VocabularyState | SubwordState,
) -> Vocabulary | SubwordVocabulary:
    """The vocabulary, of either class, whose `state` this is."""
    if state["unit"] == "piece":
        return SubwordVocabulary.from_state(state)
    return Vocabulary.from_state(state)


def _no_tokens() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)
