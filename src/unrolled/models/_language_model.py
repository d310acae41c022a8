"""The language model, which maps tokens to logits of the next token; callers carry the state."""

from typing import TypedDict

from typing_extensions import Unpack

from unrolled.models._cell_lookup import CellLike
from unrolled.models._sequence_model import SequenceModel


class LanguageModelOptions(TypedDict, total=False):
    """Options of :class:`SequenceModel` for a language model."""

    cell: CellLike
    num_layers: int
    input: str
    embedding_size: int
    dropout: float
    bidirectional: bool
    pooling: str | None
    initial: str


class LanguageModel(SequenceModel):
    """A :class:`SequenceModel` whose output at each step is the logits `[V]` of the next token.

    Args:
        vocabulary_size: V, the number of different tokens.
        embedding_size: width of the embedding; not used with one-hot input.
        options: those of :class:`SequenceModel`, except bidirectional, pooling and numeric input:
            a model that predicts the next token must not have seen it.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self, vocabulary_size: int, hidden_size: int = 256, **options: Unpack[LanguageModelOptions]
    ) -> None:
        if options.get("bidirectional"):
            raise ValueError("LanguageModel: bidirectional must be False, got True")
        if options.get("pooling"):
            raise ValueError(f"LanguageModel: pooling must be None, got {options['pooling']!r}")
        if options.get("input") == "numbers":
            raise ValueError("LanguageModel: input must be embedding or one-hot, got 'numbers'")
        options.setdefault("embedding_size", 128)
        super().__init__(vocabulary_size, vocabulary_size, hidden_size=hidden_size, **options)
        for name in ("input_size", "output_size", "bidirectional", "pooling"):
            del self.arguments[name]
        self.arguments = {"vocabulary_size": vocabulary_size, **self.arguments}
        self.vocabulary_size = vocabulary_size
