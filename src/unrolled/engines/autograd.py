"""The sweep as autograd sees it: a job's tensors, its gradients, one node in eager mode.

Second derivatives re-run the plain loop inside of backward, which is where torch asks for them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.core import (
    Given,
    Wanted,
    Where,
    forced_build,
    load,
    recorded,
    run_backward,
    run_forward,
)
from unrolled.engines.loop import run_loop
from unrolled.engines.sweep import States, batched


@dataclass(frozen=True)
class Job:
    """What stays the same between a forward run and its backward.

    The tensors of a run are tokens, states (none: zeros), prepared parameters by ``names``;
    ``matrices`` and ``vectors`` say which of them the core wants, in its order, None for one that
    is absent.
    """

    cell: Cell
    sizes: Sizes
    program: _core.Program
    where: Where
    form: tuple[tuple[int, ...], ...]  # shapes of the final states
    states: int
    names: list[str]
    matrices: list[int | None]
    vectors: list[int | None]
    build: str

    def given(self, tensors: tuple[Tensor, ...]) -> Given:
        """The tensors as the core takes them."""
        kept = [tensor.contiguous() for tensor in tensors]
        vectors = [
            kept[k] if k is not None else tensors[0].new_zeros(self.sizes.resolve(declared.size))
            for k, declared in zip(self.vectors, self.cell.vectors.values(), strict=True)
        ]
        matrices = [None if k is None else kept[k] for k in self.matrices]
        initial: list[Tensor | None] = [*kept[1 : 1 + self.states]]
        initial += [None] * (len(self.form) - self.states)
        return Given(self.program, self.where, self.build, kept[0], matrices, vectors, initial)


def make_job(
    cell: Cell,
    sizes: Sizes,
    where: Where,
    names: list[str],
    states: int,
    lead: tuple[int, ...] = (),
) -> Job:
    """A job for states [*lead, N, width], as many as given: all or none."""
    found = recorded(cell, sizes.projected)
    place = {name: 1 + states + k for k, name in enumerate(names)}
    matrices = [place.get(name) for key in found.products for name in parameter_names(key)]
    vectors = [place.get(name) for name in cell.vectors]
    form = tuple((*lead, where.N, width) for width in cell.state_widths(sizes))
    program = load(found.text, sizes.H, sizes.P)
    build = forced_build.get()
    return Job(cell, sizes, program, where, form, states, names, matrices, vectors, build)


class Sweeping(torch.autograd.Function):
    """The sweep as one node of autograd."""

    @staticmethod
    def forward(ctx: Any, job: Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        output, final, saved = run_forward(job.given(tensors), job.form, training=True)
        ctx.job = job
        ctx.save_for_backward(*tensors, output, saved)
        return output, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, output, saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        job = ctx.job
        if torch.is_grad_enabled() or any(g is not None and batched(g) for g in grads):
            return None, *_again(job, tuple(tensors), needs, grads)
        return None, *backward_of(job, tuple(tensors), needs, output, saved, grads)


def backward_of(
    job: Job,
    tensors: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    output: Tensor,
    saved: Tensor,
    slopes: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients of the tensors that need one, by the core."""
    wanted = Wanted(
        needs[0],
        list(needs[1 : 1 + job.states]) if job.states else [False] * len(job.form),
        [k is not None and needs[k] for k in job.matrices],
        [k is not None and needs[k] for k in job.vectors],
    )
    found = run_backward(job.given(tensors), job.form, output, saved, list(slopes), wanted)
    result: list[Tensor | None] = [None] * len(tensors)
    result[0] = found.tokens
    result[1 : 1 + job.states] = found.initial[: job.states]
    for k, grad in zip(
        (*job.matrices, *job.vectors), (*found.matrices, *found.vectors), strict=True
    ):
        if k is not None:
            result[k] = grad
    return result


def _again(
    job: Job,
    tensors: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients from the plain loop: differentiable, or for many vectors at once."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        outputs, final = loop_of(job, tensors)
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    reached = [
        (end, grad)
        for end, grad in zip((outputs, *final), grads, strict=True)
        if grad is not None and end.requires_grad
    ]
    if not reached:
        return [None] * len(tensors)
    ends, slopes = zip(*reached, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, slopes, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def loop_of(job: Job, tensors: tuple[Tensor, ...]) -> tuple[Tensor, States]:
    """What the core computes, by the plain loop: of torch's operations alone."""
    tokens, *rest = tensors
    prepared = dict(zip(job.names, rest[job.states :], strict=True))
    start = tuple(rest[: job.states]) or tuple(tokens.new_zeros(shape) for shape in job.form)
    where = job.where
    if where.table is None:
        t, n = torch.arange(where.T, device="cpu"), torch.arange(where.N, device="cpu")
        table = (where.base + t[:, None] * where.stride_t + n * where.stride_n).flatten()
        sizes = [where.N] * where.T
    else:
        assert where.counts is not None
        table, sizes = where.table, where.counts.tolist()
    flat = [state.reshape(where.N, -1) for state in start]
    active = tuple(state[: sizes[0]] for state in flat)
    rows = tokens.flatten(0, -2).index_select(0, table)
    outputs, ends = run_loop(job.cell, job.sizes, rows, sizes, active, prepared)
    final = [torch.cat([end, state[sizes[0] :]]) for end, state in zip(ends, flat, strict=True)]
    whole = outputs.new_zeros(where.rows, outputs.shape[1]).index_copy(0, table, outputs)
    shaped = (end.view(shape) for end, shape in zip(final, job.form, strict=True))
    return whole.view(*tokens.shape[:-1], -1), tuple(shaped)
