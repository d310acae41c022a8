"""Vocabularies: text to token numbers and back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.tasks.data.text_files import TextError

__all__ = ["Vocabulary", "build_vocabulary", "vocabulary_from_state"]


class Vocabulary:
    """The tokens of a character language model: the 256 bytes, or the characters that were seen.

    With bytes every text of every encoding is representable, and a "character" in bits per
    character is a byte. With characters the text is UTF-8 (what is not, becomes U+FFFD) and only
    the characters seen when the vocabulary was made have a number.

    Args:
        characters: the known characters, each once, in the order of their numbers; None for bytes.
    """

    characters_per_token = 1.0

    def __init__(self, characters: str | None = None) -> None:
        if characters is not None and len(set(characters)) != len(characters):
            raise ValueError("characters: wanted each character once")
        self.characters = characters
        self._number = {c: i for i, c in enumerate(characters or "")}

    @classmethod
    def of(cls, text: bytes) -> "Vocabulary":
        """The vocabulary of the characters in a text, in the order of their code points."""
        return cls("".join(sorted(set(text.decode("utf-8", "replace")))))

    @property
    def unit(self) -> str:
        """What one token is, in a word: "byte" or "character"."""
        return "byte" if self.characters is None else "character"

    def __len__(self) -> int:
        return 256 if self.characters is None else len(self.characters)

    def encode(self, text: bytes) -> Tensor:
        """Turn a text into token numbers `[tokens]`, in the smallest dtype that holds them.

        Raises:
            TextError: the text has characters that the vocabulary has not.
        """
        if self.characters is None:
            return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else _no_tokens()
        decoded = text.decode("utf-8", "replace")
        unknown = sorted(set(decoded) - self._number.keys())
        if unknown:
            shown = " ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
            raise TextError(f"text: wanted characters of the vocabulary, got {shown}")
        return torch.tensor([self._number[c] for c in decoded], dtype=torch.int32)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Turn token numbers into text; bytes that are not UTF-8 become U+FFFD."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        if self.characters is None:
            return bytes(numbers).decode("utf-8", "replace")
        return "".join(self.characters[i] for i in numbers)

    def state(self) -> dict[str, Any]:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {"unit": self.unit, "characters": self.characters}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Vocabulary":
        return cls(state["characters"])


def build_vocabulary(config: Any, text: bytes) -> Any:
    """The vocabulary that a configuration asks for: bytes, or learned from the text."""
    if config.vocabulary == "bytes":
        return Vocabulary()
    if config.vocabulary == "characters":
        return Vocabulary.of(text)
    from unrolled.tasks.codecs.subword import SubwordVocabulary

    learned = len(text) - round(len(text) * config.validation_fraction)
    return SubwordVocabulary.of(text[:learned], config.vocabulary_size)


def vocabulary_from_state(state: dict[str, Any]) -> Any:
    """The vocabulary of a state, of either kind."""
    if state["unit"] != "piece":
        return Vocabulary.from_state(state)
    from unrolled.tasks.codecs.subword import SubwordVocabulary

    return SubwordVocabulary.from_state(state)


def _no_tokens() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)
