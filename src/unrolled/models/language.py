"""The language model: tokens in, logits of the next token out, state carried by the caller."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unrolled.nn import GRU, LSTM, RNN

__all__ = ["CellName", "InputName", "LanguageModel", "OneHot", "State"]

CellName = Literal["GRU", "LSTM", "RNN"]
InputName = Literal["embedding", "one-hot"]
State = Tensor | tuple[Tensor, Tensor]

_LAYERS: dict[str, type[nn.Module]] = {"GRU": GRU, "LSTM": LSTM, "RNN": RNN}


class OneHot(nn.Module):
    """Turn indices into unit vectors: `[...]` integers below `num_classes` to `[..., num_classes]`.

    An embedding is this times its weight: `embedding(i) == OneHot(V)(i) @ embedding.weight`.

    Raises:
        RuntimeError: an index is negative or not below `num_classes`.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # Follows `.to(dtype)` and `.to(device)`, as a weight would.
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        one = self.get_buffer("one")
        zeros = one.new_zeros(*indices.shape, self.num_classes)
        return zeros.scatter_(-1, indices.unsqueeze(-1), 1.0)

    def extra_repr(self) -> str:
        return str(self.num_classes)


class LanguageModel(nn.Module):
    """Encoder (embedding or one-hot), recurrent layers, linear layer to the logits.

    Args:
        vocabulary_size: V, the number of different tokens.
        hidden_size: H, the width of each recurrent layer.
        cell: "GRU", "LSTM" or "RNN".
        num_layers: recurrent layers, one above the other.
        input: "embedding" looks a learned vector up; "one-hot" feeds the unit vector of width V.
        embedding_size: width of the embedding; not used with one-hot input.
        dropout: probability, after the encoder, between the layers and before the linear layer.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int = 256,
        cell: CellName = "GRU",
        num_layers: int = 1,
        input: InputName = "embedding",
        embedding_size: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_choice("cell", cell, get_args(CellName))
        _check_choice("input", input, get_args(InputName))
        sizes = {
            "vocabulary_size": vocabulary_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}: wanted at least 1, got {size}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: wanted a probability in [0, 1), got {dropout}")
        self.arguments: dict[str, Any] = {**sizes, "cell": cell, "input": input, "dropout": dropout}
        self.vocabulary_size = vocabulary_size
        self.encoder: nn.Module
        if input == "embedding":
            self.encoder, width = nn.Embedding(vocabulary_size, embedding_size), embedding_size
        else:
            self.encoder, width = OneHot(vocabulary_size), vocabulary_size
        between = dropout if num_layers > 1 else 0.0
        self.recurrent = _LAYERS[cell](width, hidden_size, num_layers=num_layers, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map tokens `[T, N]` and the state before them to logits `[T, N, V]` and the state after.

        A state is `[L, N, H]`, for LSTM the pair of h and c; None stands for zeros. Splitting a
        sequence and carrying the state changes nothing.
        """
        hidden, state = self.recurrent(self.dropout(self.encoder(tokens)), state)
        return self.head(self.dropout(hidden)), state


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")
