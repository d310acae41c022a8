"""Backward that selects: an episode that no gradient reaches adds nothing, whatever it holds.

Autograd multiplies, and zero times NaN or infinity is NaN: where a finished episode holds one, it
would get into the gradients of the weights although nothing depends on it. So gradients that come
out of a run with resets are looked at; if one is not finite, they are computed once more from the
episodes alone whose outputs or ends have a gradient.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.engines.request import Run, States, batched

Call = Callable[[tuple[Tensor, ...], list[int]], tuple[Tensor, ...]]


def selecting(run: Run, episode: Tensor) -> Run:
    """The same run with a backward that selects; ``episode`` [total] is that of each token."""

    def guarded(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        cell_with, inner = without_modules(cell)
        names, count = list(parameters), len(states)

        def call(tensors: tuple[Tensor, ...], sizes: list[int]) -> tuple[Tensor, ...]:
            starts = tensors[1 : 1 + count]
            weights = dict(zip(names, tensors[1 + count :], strict=False))
            own = cell_with(tensors[1 + count + len(names) :])
            outputs, ends = run(own, tensors[0], sizes, starts, weights)
            return outputs, *ends

        node = _Guard(call, batch_sizes, episode, 1 + count)
        entered = _Enter.apply(node, tokens, *states, *parameters.values(), *inner)
        outputs, *ends = _Leave.apply(node, *call(entered, batch_sizes))
        return outputs, tuple(ends)

    return guarded


class _Guard:
    """What the two ends of a guarded run share."""

    def __init__(self, call: Call, batch_sizes: list[int], episode: Tensor, rows: int) -> None:
        self.call = call
        self.batch_sizes = batch_sizes
        self.episode = episode
        self.rows = rows  # so many of the tensors have a row for each token or episode
        self.slopes: tuple[Tensor, ...] = ()

    def gradients(
        self, tensors: tuple[Tensor, ...], slopes: tuple[Tensor, ...], wanted: list[bool]
    ) -> list[Tensor | None]:
        """From the episodes alone that a gradient reaches."""
        outputs, *ends = slopes
        episode = self.episode.to(outputs.device)
        live = torch.zeros(len(ends[0]), dtype=torch.bool, device=outputs.device)
        live[episode[outputs.ne(0).any(1)]] = True
        for end in ends:
            live |= end.ne(0).any(1)
        kept = live[episode]
        sizes = [size for part in kept.split(self.batch_sizes) if (size := int(part.sum()))]
        with torch.enable_grad():
            first = tensors[0][kept], *(tensor[live] for tensor in tensors[1 : self.rows])
            results = self.call((*first, *tensors[self.rows :]), sizes or [0])
        found = iter(
            torch.autograd.grad(
                results,
                [tensor for tensor, want in zip(tensors, wanted, strict=True) if want],
                [outputs[kept], *(end[live] for end in ends)],
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )
        )
        return [next(found) if want else None for want in wanted]


class _Enter(torch.autograd.Function):
    """Identity whose backward looks at the gradients of a whole run."""

    @staticmethod
    def forward(ctx: Any, node: _Guard, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.node = node
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        entered = tuple(tensor.view_as(tensor) for tensor in tensors)
        fixed = [new for new, old in zip(entered, tensors, strict=True) if not old.requires_grad]
        ctx.mark_non_differentiable(*fixed)
        return entered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        slopes, ctx.node.slopes = ctx.node.slopes, ()
        given = [grad for grad in grads if grad is not None]
        if (
            not slopes
            or any(map(batched, given))
            or all(bool(grad.isfinite().all()) for grad in given)
        ):
            return None, *grads
        wanted = [grad is not None for grad in grads]
        return None, *ctx.node.gradients(ctx.saved_tensors, slopes, wanted)


class _Leave(torch.autograd.Function):
    """Identity whose backward remembers the gradients that come in."""

    @staticmethod
    def forward(ctx: Any, node: _Guard, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.node = node
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.node.slopes = grads
        return None, *grads


def without_modules(cell: Cell) -> tuple[Callable[[tuple[Tensor, ...]], Cell], list[Tensor]]:
    """A maker of the cell with given parameters for the modules that it holds, and their own."""
    modules = {name: m for name, m in list(vars(cell).items()) if isinstance(m, nn.Module)}
    own = [(name, key, p) for name, m in modules.items() for key, p in m.named_parameters()]
    if not own:
        return lambda _: cell, []

    def make(tensors: tuple[Tensor, ...]) -> Cell:
        made = copy.copy(cell)
        for name, module in modules.items():
            given = {
                key: tensor for (at, key, _), tensor in zip(own, tensors, strict=True) if at == name
            }
            vars(made)[name] = partial(torch.func.functional_call, module, given)
        return made

    return make, [p for _, _, p in own]
