"""Types of the arguments and results of layers."""

from collections.abc import Sequence
from typing import Protocol, TypeVar, overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = [
    "Device",
    "HiddenState",
    "InitialState",
    "LayerCall",
    "Lengths",
    "Resets",
    "StepCall",
]

HiddenState = Tensor | tuple[Tensor, ...]
"""States of a layer or a cell: one tensor, or a tuple if the cell has several states."""

InitialState = Tensor | Sequence[Tensor]
"""States as an argument, where a list is allowed for a tuple."""

Lengths = Tensor | ArrayLike
"""Length of each sequence, [N] integers: a tensor, an array or a list."""

Resets = Tensor | ArrayLike
"""True where an episode begins, [T, N] bool: a tensor, an array or nested lists."""

Device = torch.device | str | int | None
"""The device of parameters, as in torch.nn; None for the default device."""

State = TypeVar("State", covariant=True)


class LayerCall(Protocol[State]):
    """A call of a layer whose final states are a ``State``: it returns output in the form of the
    input."""

    @overload
    def __call__(
        self,
        input: Tensor,
        hx: InitialState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: InitialState | None = None,
    ) -> tuple[Tensor, State]: ...

    @overload
    def __call__(
        self,
        input: PackedSequence,
        hx: InitialState | None = None,
        *,
        lengths: None = None,
        resets: Resets | None = None,
        reset_state: InitialState | None = None,
    ) -> tuple[PackedSequence, State]: ...


class StepCall(Protocol[State]):
    """A call of a single step's module whose new states are a ``State``."""

    def __call__(
        self,
        input: Tensor,
        hx: InitialState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: InitialState | None = None,
    ) -> State: ...
