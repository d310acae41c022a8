"""A vocabulary of subwords: byte pair encoding by the library `tokenizers`.

It has the interface of `Vocabulary`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

import torch
from torch import Tensor

from unrolled.runtime._text import LETTERS, text_chunks
from unrolled.tasks.data._text_files import TextError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTES = [chr(byte) for byte in range(256)]
# For training, runs of letters, blanks and other signs are cut to this length: the time that the
# library takes grows with the square of their length.
_MAX_TRAINING_LENGTH = 4096


class SubwordState(TypedDict):
    """The state of a :class:`SubwordVocabulary` in a checkpoint."""

    unit: Literal["piece"]
    tokenizer: str
    characters_per_token: float


class SubwordVocabulary:
    """Subwords learned from a text by byte pair encoding (Sennrich et al. 2016).

    The 256 bytes are tokens too, so every text of every encoding is representable, and decoding
    returns the bytes that were encoded.

    Args:
        tokenizer: the vocabulary as the JSON of the library `tokenizers`.
        characters_per_token: bytes per token of the training text; a "character" in bits per
            character is a byte.

    Raises:
        ValueError: the JSON is damaged, or was not made by `SubwordVocabulary.of`.
    """

    unit: Literal["piece"] = "piece"

    def __init__(self, tokenizer: str, characters_per_token: float) -> None:
        self._tokenizer = _parse(tokenizer)
        self._json = tokenizer
        if not characters_per_token > 0:
            raise ValueError(
                "SubwordVocabulary: characters_per_token must be above 0, got "
                f"{characters_per_token}"
            )
        self.characters_per_token = float(characters_per_token)
        by_number = {i: piece for piece, i in self._tokenizer.get_vocab().items()}
        numbered = set(by_number) == set(range(len(by_number)))
        if not numbered or not set(_BYTES) <= set(by_number.values()):
            raise ValueError(
                "SubwordVocabulary: tokenizer must have tokens numbered from 0, all bytes among "
                f"them, got {len(by_number)} tokens"
            )
        self._pieces = [by_number[i].encode("latin-1") for i in range(len(by_number))]

    @classmethod
    def of(cls, text: bytes, size: int) -> "SubwordVocabulary":
        """Learn `size` tokens from a text, the same ones on every run.

        The result has fewer tokens if the text is so short that no pair occurs twice.

        Raises:
            ValueError: `size` is below 256, the number of bytes.
            TextError: the text is empty.
        """
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        if size < 256:
            raise ValueError(
                f"SubwordVocabulary.of: size must be at least 256, the single bytes, got {size}"
            )
        if not text:
            raise TextError("text: must not be empty to learn subwords from, got none")
        tokenizer = Tokenizer(models.BPE())
        training_pattern = Regex(_pattern(f"{{1,{_MAX_TRAINING_LENGTH}}}"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(training_pattern, "isolated")
        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=_BYTES, show_progress=False
        )
        tokenizer.train_from_iterator(text_chunks(text), trainer)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern("+")), "isolated")
        vocabulary = cls(tokenizer.to_str(), 1.0)
        vocabulary.characters_per_token = len(text) / len(vocabulary.encode(text))
        return vocabulary

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: bytes) -> Tensor:
        """Text to token numbers `[tokens]`, int32."""
        parts = [torch.empty(0, dtype=torch.int32)]
        for chunk in text_chunks(text):
            ids = self._tokenizer.encode(chunk, add_special_tokens=False).ids
            parts.append(torch.tensor(ids, dtype=torch.int32))
        return torch.cat(parts)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Token numbers to text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", "replace")

    def decode_bytes(self, tokens: Tensor | Sequence[int]) -> bytes:
        """Token numbers to the exact bytes that were encoded."""
        numbers: Sequence[int] = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return b"".join(self._pieces[i] for i in numbers)

    def state(self) -> SubwordState:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {
            "unit": self.unit,
            "tokenizer": self._json,
            "characters_per_token": self.characters_per_token,
        }

    @classmethod
    def from_state(cls, state: SubwordState) -> "SubwordVocabulary":
        """The vocabulary whose `state` this is.

        Raises:
            ValueError: the state is damaged, or of another vocabulary.
        """
        try:
            return cls(state["tokenizer"], state["characters_per_token"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"SubwordVocabulary: state must be that of a subword vocabulary ({error})"
            ) from None


def _pattern(repeated: str) -> str:
    """A regular expression for the parts within which tokens lie: a word with the blank before it,
    a run of other signs, a run of blanks, or a line end."""
    blanks = rf"[ \t\r\f\v]{repeated}"
    signs = rf" ?[^{LETTERS} \t\r\f\v\n]{repeated}"
    return rf" ?[{LETTERS}]{repeated}|\n|{blanks}(?= )|{blanks}|{signs}"


def _parse(text: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower class
        message = " ".join(str(error).split())
        raise ValueError(
            f"SubwordVocabulary: tokenizer must be the JSON of a tokenizer ({message})"
        ) from None
