"""Types for autograd functions and their ``ctx``, and gradients computed inside a backward."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor


class AutogradContext(Protocol):
    """The ``ctx`` of torch; subclasses add the attributes that a function sets on it."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def save_for_forward(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...


class AutogradFunction(torch.autograd.Function):
    """An autograd function whose ``apply`` is typed."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *arguments: object) -> tuple[Tensor, ...]: ...


def differentiate(
    results: Sequence[Tensor],
    output_grads: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    needs_grad: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the tensors that need one, from those of the results (None: zeros).

    None where a tensor needs no gradient, or no result with a gradient depends on it. The gradients
    are differentiable themselves where gradients are enabled.
    """
    pairs = [
        (result, grad)
        for result, grad in zip(results, output_grads, strict=True)
        if grad is not None and result.requires_grad
    ]
    if not pairs:
        return [None] * len(tensors)
    grads = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            [tensor for tensor, need in zip(tensors, needs_grad, strict=True) if need],
            [grad for _, grad in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    )
    return [next(grads) if need else None for need in needs_grad]
