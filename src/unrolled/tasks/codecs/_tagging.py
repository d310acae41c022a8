"""The codec of taggers: words, their characters, and labels."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from unrolled.config import TaggingConfig
from unrolled.tasks._bucketing import pad
from unrolled.tasks.codecs._token_vocab import TokenVocabulary, TokenVocabularyState
from unrolled.tasks.data._conll import Sentence, split_on_blanks


class TaggingState(TypedDict):
    """The state of a :class:`TaggingCodec` in a checkpoint."""

    words: TokenVocabularyState
    characters: TokenVocabularyState | None
    labels: TokenVocabularyState


class EncodedSentence(NamedTuple):
    """Words `[T]`, and the characters of each, if the model reads them."""

    words: Tensor
    spellings: list[Tensor]


class TaggerInputs(NamedTuple):
    """The arguments of a tagger: words `[T, N]`, lengths `[N]`, characters `[C, T·N]` and how many
    each word has, `[T·N]`."""

    words: Tensor
    lengths: Tensor
    characters: Tensor | None
    spellings: Tensor | None


class TaggingCodec:
    """Vocabularies of words, characters (None if they are not read) and labels."""

    def __init__(
        self,
        words: TokenVocabulary,
        characters: TokenVocabulary | None,
        labels: TokenVocabulary,
    ) -> None:
        self.words = words
        self.characters = characters
        self.labels = labels

    @classmethod
    def of(
        cls,
        training: Sequence[Sentence],
        config: TaggingConfig,
        validation: Sequence[Sentence] = (),
    ) -> "TaggingCodec":
        """The codec of training sentences; labels of the validation part are known too."""
        tokens = [token for sentence in training for token in sentence.tokens]
        words = TokenVocabulary.of(
            tokens, min_count=config.min_count, padding=True, unknown=True, entry_type="word"
        )
        characters = None
        if config.characters and any(len(token) > 1 for token in tokens):
            characters = TokenVocabulary.of(
                (character for token in tokens for character in token),
                padding=True,
                unknown=True,
                entry_type="character",
            )
        sentences = (*training, *validation)
        labels = TokenVocabulary.of(label for s in sentences for label in s.labels)
        return cls(words, characters, labels)

    def split(self, line: str) -> list[str]:
        """A plain sentence as tokens: split at blanks; or into characters, if every word of the
        vocabulary is one (blanks only if they are in the vocabulary)."""
        if any(len(word) > 1 for word in self.words.entries):
            return split_on_blanks(line)
        return [c for c in line if c not in " \t" or c in self.words] if line.strip(" \t") else []

    def encode(self, tokens: Sequence[str]) -> EncodedSentence:
        """A sentence as tensors."""
        words = self.words.encode(tokens)
        if self.characters is None:
            return EncodedSentence(words, [])
        return EncodedSentence(words, [self.characters.encode(token) for token in tokens])

    def pad(self, sentences: Sequence[EncodedSentence]) -> TaggerInputs:
        """A batch of encoded sentences."""
        words, lengths = pad([sentence.words for sentence in sentences], 0)
        if self.characters is None:
            return TaggerInputs(words, lengths, None, None)
        T, N = words.shape
        spellings = [torch.empty(0, dtype=torch.int64) for _ in range(T * N)]
        for n, sentence in enumerate(sentences):
            spellings[n : len(sentence.spellings) * N : N] = sentence.spellings
        return TaggerInputs(words, lengths, *pad(spellings, 0))

    def batch(self, sentences: Sequence[Sequence[str]]) -> TaggerInputs:
        """A batch of sentences, encoded and padded."""
        return self.pad([self.encode(tokens) for tokens in sentences])

    def state(self) -> TaggingState:
        """Plain values from which `from_state` makes the same codec."""
        return {
            "words": self.words.state(),
            "characters": None if self.characters is None else self.characters.state(),
            "labels": self.labels.state(),
        }

    @classmethod
    def from_state(cls, state: TaggingState) -> "TaggingCodec":
        """The codec whose `state` this is."""
        characters = state["characters"]
        return cls(
            TokenVocabulary.from_state(state["words"]),
            None if characters is None else TokenVocabulary.from_state(characters),
            TokenVocabulary.from_state(state["labels"]),
        )
