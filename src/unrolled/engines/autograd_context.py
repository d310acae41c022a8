"""Functions of autograd and their ``ctx``, typed."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor


class AutogradContext(Protocol):
    """What torch offers on it; subclasses name what is kept beside tensors."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def save_for_forward(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...


class AutogradFunction(torch.autograd.Function):
    """A function of autograd whose ``apply`` has a type."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *arguments: object) -> tuple[Tensor, ...]: ...
