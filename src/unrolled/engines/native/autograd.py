"""The sweep as autograd sees it: a job's tensors, its gradients, one node in eager mode.

Second derivatives re-run the plain loop inside of backward, which is where torch asks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.loop import run_loop
from unrolled.engines.native.call import Form, Where, make_work, run_backward, run_forward
from unrolled.engines.native.programs import letters, load, recorded
from unrolled.engines.request import States, batched, in_float32


@dataclass(frozen=True)
class Job:
    """What stays the same between a forward run and its backward.

    The tensors of a run are tokens, states (none: zeros), prepared parameters by ``names``.
    """

    cell: Cell
    sizes: Sizes
    where: Where
    form: Form  # shapes of the final states
    states: int
    names: list[str]
    biases: tuple[int, ...]  # their places among the tensors
    work: _core.Work

    def reached(self, needs: Sequence[bool]) -> tuple[bool, ...]:
        """Which of the tensors that need a gradient get one: no gradient reaches a parameter that
        the step does not use."""
        return tuple(need and self.work.reached(k) for k, need in enumerate(needs))


def make_job(
    cell: Cell,
    sizes: Sizes,
    where: Where,
    names: list[str],
    states: int,
    lead: tuple[int, ...] = (),
    groups: int = 1,
) -> Job:
    """A job for states [*lead, N, width], as many as given: all or none; ``groups``: see
    ``make_work``."""
    found = recorded(cell, sizes.projected)
    place = {name: 1 + states + k for k, name in enumerate(names)}
    matrices = [name for key in found.products for name in parameter_names(key)]
    places = [place.get(name, -1) for name in (*matrices, *cell.vectors)]
    form = tuple((*lead, where.N, width) for width in cell.state_widths(sizes))
    program = load(found.text, *letters(found.text, sizes))
    work = make_work(program, where, states, places, form, groups)
    biases = tuple(place[name] for name in matrices[1::2] if name in place)
    return Job(cell, sizes, where, form, states, names, biases, work)


class Sweeping(torch.autograd.Function):
    """The sweep as one node of autograd.

    As with torch.nn, the output may be changed in place before backward: a relu, a mask. Backward
    reads the output, so it is then computed once more.
    """

    @staticmethod
    def forward(ctx: Any, job: Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        output, saved, final = run_forward(job.work, tensors, training=True)
        ctx.job = job
        ctx.biases = _Biases(tensors, job.biases)
        ctx.save_for_backward(*ctx.biases.others(tensors), output.data, saved)
        ctx.output_version = _Version(output)
        return output, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *others, output, saved = ctx.saved_tensors
        tensors = ctx.biases.merge(others)
        needs = ctx.needs_input_grad[1:]
        job = ctx.job
        if torch.is_grad_enabled() or any(g is not None and batched(g) for g in grads):
            ctx.biases.check("the plain loop, which makes second derivatives, reads it")
            return None, *_again(job, tuple(tensors), needs, grads)
        if ctx.output_version.changed():
            ctx.biases.check("the output, which was changed in place as well, is computed again")
            output, _, _ = run_forward(job.work, tensors, training=False)
        return None, *run_backward(job.work, tensors, output, saved, grads, needs)


_EMPTY = torch.empty(0, device="cpu")


class _Version:
    """Whether a tensor was changed in place; it holds none of the tensor's memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # of the same version counter
        self.tensor.data = _EMPTY
        self.number = tensor._version

    def changed(self) -> bool:
        return self.tensor._version != self.number


class _Biases:
    """The biases of a run, which backward does not read: they may be changed in place before it.

    Only leaves are held here. A tensor with a history could come to depend on the output and would
    keep its own graph alive; autograd saves it, and checks its version. It also refuses tensors of
    inference mode, which have no version.
    """

    def __init__(self, tensors: tuple[Tensor, ...], places: tuple[int, ...]) -> None:
        known = (tensors[k].is_leaf and not tensors[k].is_inference() for k in places)
        self.places = tuple(k for k, is_held in zip(places, known, strict=True) if is_held)
        leaves = [tensors[k] for k in self.places]
        self.biases = [bias if bias.requires_grad else bias.detach() for bias in leaves]
        self.versions = [bias._version for bias in leaves]

    def others(self, tensors: tuple[Tensor, ...]) -> list[Tensor | None]:
        """The tensors with None in place of the biases."""
        others: list[Tensor | None] = list(tensors)
        for k in self.places:
            others[k] = None
        return others

    def merge(self, others: list[Tensor | None]) -> list[Tensor]:
        """All tensors again."""
        tensors: list[Any] = list(others)
        for k, bias in zip(self.places, self.biases, strict=True):
            tensors[k] = bias
        return tensors

    def check(self, why: str) -> None:
        """Raises RuntimeError, as autograd does, where a bias was changed in place."""
        for bias, version in zip(self.biases, self.versions, strict=True):
            if bias._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: a bias of shape {list(bias.shape)} is at version "
                    f"{bias._version}; expected version {version} instead: {why}"
                )


class BothSweeping(torch.autograd.Function):
    """Two sweeps over one input, one in each direction, as one node: the core may run them side by
    side."""

    @staticmethod
    def forward(ctx: Any, jobs: tuple[Job, Job], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Of tokens, states and parameters of each: outputs, then final states of each."""
        ctx.set_materialize_grads(False)
        first, second = _shares(jobs, tensors)
        one, two, threads = jobs[0].work, jobs[1].work, torch.get_num_threads()
        (output, saved, final), (other, kept, ends) = one.forward_both(
            two, first, second, True, threads
        )
        ctx.jobs = jobs
        after_first = jobs[0].states + len(jobs[0].names)
        biases = (*jobs[0].biases, *(after_first + k for k in jobs[1].biases))
        ctx.biases = _Biases(tensors, biases)
        # Callers merge the outputs: no user can change them in place.
        ctx.save_for_backward(*ctx.biases.others(tensors), output, saved, other, kept)
        return output, other, *final, *ends

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *others, output, saved, other, kept = ctx.saved_tensors
        tensors = ctx.biases.merge(others)
        jobs = ctx.jobs
        needs = _shares(jobs, ctx.needs_input_grad[1:])
        shares = _shares(jobs, tuple(tensors))
        count = len(jobs[0].form)
        slopes = (grads[0], *grads[2 : 2 + count]), (grads[1], *grads[2 + count :])
        if torch.is_grad_enabled() or any(g is not None and batched(g) for g in grads):
            ctx.biases.check("the plain loop, which makes second derivatives, reads it")
            found = [_again(*some) for some in zip(jobs, shares, needs, slopes, strict=True)]
        else:
            found = [
                *jobs[0].work.backward_both(
                    jobs[1].work,
                    (shares[0], output, saved, slopes[0], needs[0]),
                    (shares[1], other, kept, slopes[1], needs[1]),
                    torch.get_num_threads(),
                )
            ]
        (tokens, *ours), (more, *theirs) = found
        if tokens is not None and more is not None:
            tokens = tokens + more
        return None, more if tokens is None else tokens, *ours, *theirs


def _shares(jobs: tuple[Job, Job], of: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What each of two sweeps has of tokens, then states and parameters of both."""
    end = 1 + jobs[0].states + len(jobs[0].names)
    return of[:end], (of[0], *of[end:])


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
    return in_float32(partial(_loop_of, job), tokens, start, prepared)


def _loop_of(
    job: Job, tokens: Tensor, start: States, prepared: dict[str, Tensor]
) -> tuple[Tensor, States]:
    where = job.where
    table = where.row_of_each()
    sizes = [where.N] * where.T if where.counts is None else where.counts.tolist()
    flat = [state.reshape(where.N, state.shape[-1]) for state in start]
    active = tuple(state[: sizes[0]] for state in flat)
    rows = tokens.flatten(0, -2).index_select(0, table)
    outputs, ends = run_loop(job.cell, job.sizes, rows, sizes, active, prepared)
    final = [torch.cat([end, state[sizes[0] :]]) for end, state in zip(ends, flat, strict=True)]
    whole = outputs.new_zeros(where.rows, outputs.shape[1]).index_copy(0, table, outputs)
    shaped = (end.view(shape) for end, shape in zip(final, job.form, strict=True))
    return whole.view(*tokens.shape[:-1], whole.shape[1]), tuple(shaped)
