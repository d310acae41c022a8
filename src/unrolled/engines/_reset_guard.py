"""Keeps NaN and infinity in one episode out of the gradients of the others.

Backward multiplies, and zero times NaN or infinity is NaN: such a value in an episode that the loss
does not depend on would still make the gradients of the weights NaN. The gradients of a run with
resets are therefore tested; if one is not finite, they are computed again from only those episodes
whose outputs or final states have a gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.cells._frozen import copy_with
from unrolled.engines._autograd_context import AutogradContext, AutogradFunction, differentiate
from unrolled.engines._precision import States
from unrolled.engines._torch_modes import is_batched

PackedRun = Callable[[Cell, Tensor, list[int], States, dict[str, Tensor]], tuple[Tensor, States]]
"""Takes a cell, tokens [total, I] ordered by step, non-increasing batch sizes, initial states and
parameters; returns outputs [total, P] and the final states."""
_TensorRun = Callable[[tuple[Tensor, ...], list[int]], tuple[Tensor, ...]]


def guard_resets(run: PackedRun, episode_of_token: Tensor) -> PackedRun:
    """Wrap ``run`` with a guarded backward; ``episode_of_token`` [total]."""

    def guarded(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        cell_with, module_parameters = without_modules(cell)
        names, rows = list(parameters), 1 + len(states)

        def call(tensors: tuple[Tensor, ...], sizes: list[int]) -> tuple[Tensor, ...]:
            weights = dict(zip(names, tensors[rows:], strict=False))
            bound_cell = cell_with(tensors[rows + len(names) :])
            outputs, final = run(bound_cell, tensors[0], sizes, tensors[1:rows], weights)
            return outputs, *final

        guard = _ResetGuard(call, batch_sizes, episode_of_token, rows)
        tensors = (tokens, *states, *parameters.values(), *module_parameters)
        inputs = _GuardInputs.apply(guard, *tensors)
        outputs, *final = _GuardOutputs.apply(guard, *call(inputs, batch_sizes))
        return outputs, tuple(final)

    return guarded


class _ResetGuard:
    """The state that the inputs and outputs of a guarded run share."""

    def __init__(
        self, call: _TensorRun, batch_sizes: list[int], episode_of_token: Tensor, row_count: int
    ) -> None:
        self.call = call
        self.batch_sizes = batch_sizes
        self.episode_of_token = episode_of_token
        self.row_count = row_count  # number of tensors with a row for each token or episode
        self.output_grads: tuple[Tensor, ...] = ()

    def gradients(
        self,
        tensors: tuple[Tensor, ...],
        output_grads: tuple[Tensor, ...],
        needs_grad: list[bool],
    ) -> list[Tensor | None]:
        """Gradients from only those episodes that a gradient reaches."""
        grad_outputs, *grad_final = output_grads
        episode = self.episode_of_token.to(grad_outputs.device)
        reached = torch.zeros(len(grad_final[0]), dtype=torch.bool, device=grad_outputs.device)
        reached[episode[grad_outputs.ne(0).any(1)]] = True
        for grad in grad_final:
            reached |= grad.ne(0).any(1)
        is_reached = reached[episode]
        steps = is_reached.split(self.batch_sizes)
        sizes = [size for step in steps if (size := int(step.sum()))]
        with torch.enable_grad():
            states = (tensor[reached] for tensor in tensors[1 : self.row_count])
            inputs = (tensors[0][is_reached], *states, *tensors[self.row_count :])
            results = self.call(inputs, sizes or [0])
        grads = (grad_outputs[is_reached], *(grad[reached] for grad in grad_final))
        return differentiate(results, grads, tensors, needs_grad)


class _GuardContext(AutogradContext, Protocol):
    guard: _ResetGuard


class _GuardInputs(AutogradFunction):
    """Identity on the inputs, whose backward tests the gradients of a whole run."""

    @staticmethod
    def forward(ctx: _GuardContext, guard: _ResetGuard, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.guard = guard
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        views = tuple(tensor.view_as(tensor) for tensor in tensors)
        pairs = zip(views, tensors, strict=True)
        constants = [view for view, tensor in pairs if not tensor.requires_grad]
        ctx.mark_non_differentiable(*constants)
        return views

    @staticmethod
    def backward(ctx: _GuardContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        output_grads, ctx.guard.output_grads = ctx.guard.output_grads, ()
        present = [grad for grad in grads if grad is not None]
        if (
            not output_grads
            or any(map(is_batched, present))
            or all(bool(grad.isfinite().all()) for grad in present)
        ):
            return None, *grads
        needs_grad = [grad is not None for grad in grads]
        return None, *ctx.guard.gradients(ctx.saved_tensors, output_grads, needs_grad)


class _GuardOutputs(AutogradFunction):
    """Identity on the outputs, whose backward stores their gradients in the guard."""

    @staticmethod
    def forward(ctx: _GuardContext, guard: _ResetGuard, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.guard = guard
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: _GuardContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.guard.output_grads = grads
        return None, *grads


def without_modules(cell: Cell) -> tuple[Callable[[tuple[Tensor, ...]], Cell], list[Tensor]]:
    """A function that builds the cell with other tensors in place of the parameters of its modules,
    and these parameters."""
    modules = {name: m for name, m in list(vars(cell).items()) if isinstance(m, nn.Module)}
    keys = [(name, key) for name, m in modules.items() for key, _ in m.named_parameters()]
    parameters: list[Tensor] = [p for m in modules.values() for p in m.parameters()]
    if not parameters:
        return lambda _: cell, []

    def cell_with(tensors: tuple[Tensor, ...]) -> Cell:
        calls = {}
        for name, module in modules.items():
            replaced = {
                key: tensor
                for (owner, key), tensor in zip(keys, tensors, strict=True)
                if owner == name
            }
            calls[name] = partial(torch.func.functional_call, module, replaced)
        return copy_with(cell, calls)

    return cell_with, parameters
