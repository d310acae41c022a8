"""A vocabulary of pieces of words: byte pair encoding by the library `tokenizers`.

Does what `vocabulary.Vocabulary` does, for the same callers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unrolled.runtime.text import LETTERS, text_chunks
from unrolled.tasks.data.text_files import TextError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["SubwordVocabulary"]

_BYTES = [chr(byte) for byte in range(256)]
# Words, runs of blanks and of other signs are learned from in parts of so many bytes: the time that
# the library takes grows with the square of their length.
_LONGEST_LEARNED = 4096


def _pattern(repeated: str) -> str:
    """What a piece lies within: a word and the blank before it, a run of other signs, a run of
    blanks, or a line end."""
    blanks = rf"[ \t\r\f\v]{repeated}"
    signs = rf" ?[^{LETTERS} \t\r\f\v\n]{repeated}"
    return rf" ?[{LETTERS}]{repeated}|\n|{blanks}(?= )|{blanks}|{signs}"


class SubwordVocabulary:
    """Pieces of words, learned from a text by byte pair encoding (Sennrich et al. 2016).

    The 256 bytes are pieces too, so every text of every encoding is representable, and what is
    encoded comes back to the byte.

    Args:
        tokenizer: the vocabulary as the JSON of the library `tokenizers`.
        characters_per_token: bytes of the text it was learned from for each of its pieces; a
            "character" in bits per character is a byte.

    Raises:
        ValueError: the JSON is damaged, or is none that `Pieces.of` made.
    """

    unit = "piece"

    def __init__(self, tokenizer: str, characters_per_token: float) -> None:
        self._tokenizer = _parse(tokenizer)
        self._json = tokenizer
        if not characters_per_token > 0:
            raise ValueError(f"characters_per_token: wanted above 0, got {characters_per_token}")
        self.characters_per_token = float(characters_per_token)
        by_number = {i: piece for piece, i in self._tokenizer.get_vocab().items()}
        if set(by_number) != set(range(len(by_number))) or not set(_BYTES) <= set(
            by_number.values()
        ):
            raise ValueError("tokenizer: wanted pieces numbered from 0, all bytes among them")
        self._pieces = [by_number[i].encode("latin-1") for i in range(len(by_number))]

    @classmethod
    def of(cls, text: bytes, size: int) -> "SubwordVocabulary":
        """Learn `size` pieces from a text, the same ones on every run.

        Fewer where the text is so short that no pair of pieces comes twice.

        Raises:
            ValueError: `size` is below 256, the number of the bytes.
            TextError: there is no text.
        """
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        if size < 256:
            raise ValueError(f"size: wanted at least 256, the single bytes, got {size}")
        if not text:
            raise TextError("text: wanted some text to learn pieces from, got none")
        tokenizer = Tokenizer(models.BPE())
        learned = Regex(_pattern(f"{{1,{_LONGEST_LEARNED}}}"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(learned, "isolated")
        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=_BYTES, show_progress=False
        )
        tokenizer.train_from_iterator(text_chunks(text), trainer)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern("+")), "isolated")
        pieces = cls(tokenizer.to_str(), 1.0)
        pieces.characters_per_token = len(text) / len(pieces.encode(text))
        return pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: bytes) -> Tensor:
        """Turn a text into token numbers `[tokens]`, int32."""
        parts = [torch.empty(0, dtype=torch.int32)]
        for block in text_chunks(text):
            ids = self._tokenizer.encode(block, add_special_tokens=False).ids
            parts.append(torch.tensor(ids, dtype=torch.int32))
        return torch.cat(parts)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Turn token numbers into text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", "replace")

    def decode_bytes(self, tokens: Tensor | Sequence[int]) -> bytes:
        """Turn token numbers into the very bytes that were encoded."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return b"".join(self._pieces[i] for i in numbers)

    def state(self) -> dict[str, Any]:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {
            "unit": self.unit,
            "tokenizer": self._json,
            "characters_per_token": self.characters_per_token,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "SubwordVocabulary":
        """The vocabulary that `state` came from.

        Raises:
            ValueError: the state is damaged, or another vocabulary's.
        """
        try:
            return cls(state["tokenizer"], state["characters_per_token"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"state: wanted that of a vocabulary of pieces ({error})") from None


def _parse(text: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        said = " ".join(str(error).split())
        raise ValueError(f"tokenizer: wanted the JSON of a tokenizer ({said})") from None
