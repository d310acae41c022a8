"""The language model: tokens in, logits of the next token out, state carried by the caller."""

from typing import Any

from unrolled.models.sequence_model import SequenceModel

__all__ = ["LanguageModel"]


class LanguageModel(SequenceModel):
    """A :class:`SequenceModel` whose output at each step is the logits `[V]` of the next token.

    Args:
        vocabulary_size: V, the number of different tokens.
        embedding_size: width of the embedding; not used with one-hot input.
        options: those of :class:`SequenceModel` but bidirectional, pooling and numeric input: what
            predicts the next token must not have seen it.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    def __init__(self, vocabulary_size: int, hidden_size: int = 256, **options: Any) -> None:
        for name in ("bidirectional", "pooling"):
            if options.get(name):
                raise ValueError(f"{name}: wanted none in a language model, got {options[name]!r}")
        if options.get("input") == "numbers":
            raise ValueError("input: wanted embedding or one-hot, got 'numbers'")
        options.setdefault("embedding_size", 128)
        super().__init__(vocabulary_size, vocabulary_size, hidden_size=hidden_size, **options)
        dropped = ("input_size", "output_size", "bidirectional", "pooling")
        kept = {name: value for name, value in self.arguments.items() if name not in dropped}
        self.arguments = {"vocabulary_size": vocabulary_size, **kept}
        self.vocabulary_size = vocabulary_size
