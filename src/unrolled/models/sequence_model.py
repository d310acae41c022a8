"""The model of most tasks: tokens or numbers in, recurrent layers, a head on each step or on all
of them. The language model is one; sequence to sequence is ``translation``'s.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unrolled.models.cell_lookup import CellLike, Lengths, State, make_stack
from unrolled.models.initial_state import LearnedInitialState
from unrolled.models.pooling import Pooling

__all__ = ["InputName", "OneHot", "SequenceModel"]

InputName = Literal["embedding", "one-hot", "numbers"]


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


class SequenceModel(nn.Module):
    """Encoder (embedding, one-hot or numbers as they are), recurrent layers, linear head.

    Args:
        input_size: the number V of different tokens, or the width F of numeric inputs.
        output_size: width of the head.
        hidden_size: H, the width of each recurrent layer.
        cell: a cell, its class, or a name of it (``GRU``, ``path/to/file.py:MyCell``), see
            ``find_cell``.
        num_layers: recurrent layers, one above the other.
        input: "embedding" looks a learned vector up; "one-hot" feeds the unit vector of width V;
            "numbers" feeds `[T, N, F]` as it is.
        embedding_size: width of the embedding; not used with other inputs.
        dropout: probability, after the encoder, between the layers and before the head.
        bidirectional: read in both directions.
        pooling: the head is on each step (None), or on the "last" state, or on the "mean", "max" or
            "attention" over all steps.
        initial: state before the first step: "zero", or "learned".

    Raises:
        ValueError: an argument is out of its range; the message names it.
        unrolled.models.CellNameError: there is no such cell.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden_size: int = 128,
        cell: CellLike = "GRU",
        num_layers: int = 1,
        input: str = "embedding",
        embedding_size: int = 64,
        dropout: float = 0.0,
        bidirectional: bool = False,
        pooling: str | None = None,
        initial: str = "zero",
    ) -> None:
        super().__init__()
        _check_choice("input", input, get_args(InputName))
        _check_choice("initial", initial, ("zero", "learned"))
        sizes = {
            "input_size": input_size,
            "output_size": output_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
        }
        check_sizes(sizes, dropout)
        self.arguments: dict[str, Any] = {
            **sizes,
            "cell": cell,
            "input": input,
            "dropout": dropout,
            "bidirectional": bidirectional,
            "pooling": pooling,
            "initial": initial,
        }
        self.encoder: nn.Module = nn.Identity()
        width = input_size
        if input == "embedding":
            self.encoder, width = nn.Embedding(input_size, embedding_size), embedding_size
        elif input == "one-hot":
            self.encoder = OneHot(input_size)
        self.recurrent = make_stack(
            cell,
            width,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        width = self.recurrent.spec.output_size
        D = self.recurrent.spec.num_directions
        self.pooling = None if pooling is None else Pooling(pooling, width, D)
        self.head = nn.Linear(width, output_size)
        self.start = LearnedInitialState(self.recurrent) if initial == "learned" else None

    def forward(
        self, input: Tensor, state: State | None = None, lengths: Lengths | None = None
    ) -> tuple[Tensor, State]:
        """Map tokens `[T, N]` (or numbers `[T, N, F]`) and the state before them to the head's
        output, `[T, N, outputs]` or `[N, outputs]`, and the state after.

        A state is `[L·D, N, H]`, for cells with several a tuple; None stands for the initial one.
        Splitting a sequence and carrying the state changes nothing. ``lengths`` `[N]` says where
        the sequences end; what lies behind never matters.
        """
        hidden, state = self._hidden(input, state, lengths)
        if self.pooling is not None:
            hidden = self.pooling(hidden, state, lengths)
        return self.head(self.dropout(hidden)), state

    def forward_prefixes(self, input: Tensor, state: State | None = None) -> Tensor:
        """What the head would say if the sequence ended at each step: `[T, N, outputs]`.

        Raises:
            ValueError: the model reads in both directions.
        """
        if self.recurrent.bidirectional:
            raise ValueError(
                "bidirectional: wanted a model of one direction, got two: what the second says of "
                "a step, it says after all that follow"
            )
        hidden, _ = self._hidden(input, state, None)
        if self.pooling is not None:
            hidden = self.pooling.forward_prefixes(hidden)
        return self.head(self.dropout(hidden))

    def _hidden(
        self, input: Tensor, state: State | None, lengths: Lengths | None
    ) -> tuple[Tensor, State]:
        if state is None and self.start is not None:
            state = self.start(input.shape[1])
        hidden, state = self.recurrent(self.dropout(self.encoder(input)), state, lengths=lengths)
        return hidden, state


def check_sizes(sizes: dict[str, int], dropout: float) -> None:
    """Refuse sizes below 1 and what is no probability."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: wanted at least 1, got {size}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: wanted a probability in [0, 1), got {dropout}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")
