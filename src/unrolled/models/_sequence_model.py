"""The model of most tasks: an encoder of tokens or numbers, recurrent layers, and a linear head.

The model of sequence-to-sequence tasks is in ``_encoder_decoder``.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unrolled.models._cell_lookup import CellLike, make_stack
from unrolled.models._initial_state import LearnedInitialState
from unrolled.models._pooling import Pooling
from unrolled.nn.types import HiddenState, Lengths

InputName = Literal["embedding", "one-hot", "numbers"]


class OneHot(nn.Module):
    """Maps indices `[...]` below `num_classes` to unit vectors `[..., num_classes]`.

    An embedding is its product with a weight: `embedding(i) == OneHot(V)(i) @ embedding.weight`.

    Raises:
        RuntimeError: an index is negative or not below `num_classes`.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # Follows `.to(dtype)` and `.to(device)`, as a weight would.
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        zeros = self.get_buffer("unit").new_zeros(*indices.shape, self.num_classes)
        return zeros.scatter_(-1, indices.unsqueeze(-1), 1.0)

    def extra_repr(self) -> str:
        return str(self.num_classes)


class SequenceModel(nn.Module):
    """An encoder (embedding, one-hot, or none for numbers), recurrent layers, and a linear head.

    Args:
        input_size: the number V of different tokens, or the width F of numeric inputs.
        output_size: width of the head.
        hidden_size: H, the width of each recurrent layer.
        cell: a cell, its class, or its name (``GRU``, ``path/to/file.py:MyCell``), see
            ``find_cell``.
        num_layers: L, the number of stacked recurrent layers.
        input: "embedding" looks up a learned vector for each token; "one-hot" feeds the unit
            vector of width V; "numbers" feeds `[T, N, F]` unchanged.
        embedding_size: width of the embedding; not used with other inputs.
        dropout: probability of dropout after the encoder, between the layers and before the head.
        bidirectional: whether the layers read in both directions.
        pooling: what the head is applied to: each step (None), the "last" state, or the "mean",
            "max" or "attention" over all steps.
        initial: the initial state, "zero" or "learned".

    Raises:
        ValueError: an argument is out of range.
        unrolled.models.CellNameError: there is no cell of this name.
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
        check_sizes("SequenceModel", sizes, dropout)
        self.arguments: dict[str, object] = {
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
        # Named `start` since checkpoints have its parameters under this name.
        self.start = LearnedInitialState(self.recurrent) if initial == "learned" else None

    def forward(
        self, input: Tensor, state: HiddenState | None = None, lengths: Lengths | None = None
    ) -> tuple[Tensor, HiddenState]:
        """Map tokens `[T, N]` (or numbers `[T, N, F]`) and an initial state to the head's output,
        `[T, N, outputs]` or `[N, outputs]`, and the final state.

        A state is `[L·D, N, H]`, or a tuple for cells with several; None is the initial state of
        the model. Splitting a sequence and passing on the state gives the same outputs.
        ``lengths`` `[N]` are those of the sequences; later steps are ignored.
        """
        hidden, final_state = self._run_layers(input, state, lengths)
        if self.pooling is not None:
            hidden = self.pooling(hidden, final_state, lengths)
        return self.head(self.dropout(hidden)), final_state

    def forward_prefixes(self, input: Tensor, state: HiddenState | None = None) -> Tensor:
        """The head's output for each prefix of the sequence: `[T, N, outputs]`.

        Raises:
            ValueError: the model is bidirectional.
        """
        if self.recurrent.bidirectional:
            raise ValueError(
                "SequenceModel.forward_prefixes: bidirectional must be False, got True; the second "
                "direction starts at the end of the sequence"
            )
        hidden, _ = self._run_layers(input, state, None)
        if self.pooling is not None:
            hidden = self.pooling.forward_prefixes(hidden)
        output: Tensor = self.head(self.dropout(hidden))
        return output

    def _run_layers(
        self, input: Tensor, state: HiddenState | None, lengths: Lengths | None
    ) -> tuple[Tensor, HiddenState]:
        if state is None and self.start is not None:
            state = self.start(input.shape[1])
        hidden: Tensor
        final_state: HiddenState
        hidden, final_state = self.recurrent(
            self.dropout(self.encoder(input)), state, lengths=lengths
        )
        return hidden, final_state


def check_sizes(model: str, sizes: dict[str, int], dropout: float) -> None:
    """Check that the sizes of a model are at least 1 and that its dropout is a probability."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{model}: {name} must be at least 1, got {size}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"{model}: dropout must be a probability in [0, 1), got {dropout}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"SequenceModel: {name} must be one of {', '.join(choices)}, got {value!r}"
        )
