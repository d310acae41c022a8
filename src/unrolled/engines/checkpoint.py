"""A sweep in segments of time that keep nothing but their first states for backward.

Backward runs each segment forward once more, from the last one to the first (Chen et al. 2016), so
what it keeps at a time is the states between segments and one segment's inner values: with segments
of √T steps both grow as √T.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from unrolled.cells import Cell
from unrolled.engines.ragged import Ragged
from unrolled.engines.request import HALF, Engine, States, Sweep, batched
from unrolled.engines.reset_guard import without_modules

Bounds = tuple[int, int]
"""First step of a segment, and that after its last one."""
Random = tuple[Tensor, list[int], list[Tensor]]
"""States of the generators of random numbers: the CPU's; of which other devices, and theirs."""


def run_in_segments(engine: Engine, sweep: Sweep, steps: int | bool) -> tuple[Tensor, States]:
    """What ``engine.run`` gives, in segments of so many steps (True: √T, rounded up).

    Nothing is kept where no gradient is asked; torch.func's transforms keep all.
    """
    if not sweep.differentiated or sweep.transformed:
        return engine.run(sweep)
    count = math.isqrt(sweep.ragged.T - 1) + 1 if steps is True else steps
    cell_with, inner = without_modules(sweep.cell)
    resets = sweep.reset_states or ()
    tensors = (sweep.values, *sweep.states, *resets, *sweep.parameters.values(), *inner)
    plan = replace(sweep, values=sweep.values[:0].detach(), states=(), parameters={})
    names = list(sweep.parameters)
    job = _Job(engine, plan, count, len(sweep.states), len(resets), names, cell_with)
    output, *final = _Segments.apply(job, *tensors)
    return output, tuple(final)


@dataclass(frozen=True)
class _Job:
    """What is not a tensor of a run: those are values, states, reset states (all or none),
    parameters by ``names``, parameters of modules that the cell holds."""

    engine: Engine
    plan: Sweep  # without tensors
    steps: int
    states: int
    resets: int
    names: list[str]
    cell_with: Callable[[tuple[Tensor, ...]], Cell]

    def bounds(self) -> list[Bounds]:
        """Of the segments, in the order of the sweep."""
        T = self.plan.ragged.T
        found = [(start, min(start + self.steps, T)) for start in range(0, T, self.steps)]
        return found[::-1] if self.plan.reverse else found

    def sweep(self, tensors: Sequence[Tensor]) -> Sweep:
        """All steps, of these tensors."""
        ends = (self.states, self.resets, len(self.names))
        rest = iter(tensors[1:])
        states, resets, parameters = (tuple(next(rest) for _ in range(count)) for count in ends)
        return replace(
            self.plan,
            cell=self.cell_with(tuple(rest)),
            values=tensors[0],
            states=states,
            parameters=dict(zip(self.names, parameters, strict=True)),
            reset_states=resets or None,
        )

    def run(self, bounds: Bounds, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One segment, of its own values: output and final states."""
        sweep, ragged = self.sweep(tensors), self.plan.ragged
        if sweep.reverse and ragged.resets is not None and bounds[1] < ragged.T:
            sweep = replace(sweep, states=_cut(sweep, bounds[1]))
        output, final = self.engine.run(replace(sweep, ragged=_part(ragged, *bounds)))
        return output, *final

    def rows(self, matrix: Tensor, bounds: Bounds) -> Tensor:
        """A segment's part of a matrix [rows, width], [..., width]: a view."""
        ragged, (start, end) = self.plan.ragged, bounds
        if ragged.major == "batch":
            return matrix.unflatten(0, (ragged.N, ragged.T))[:, start:end]
        if ragged.major == "time" or ragged.lengths is None:
            return matrix[start * ragged.N : end * ragged.N]
        first, last = (int(ragged.lengths.clamp(max=t).sum()) for t in bounds)
        return matrix[first:last]


class _Segments(torch.autograd.Function):
    """All segments as one node, so that no part of input and output is kept twice."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        values, *rest = tensors
        rest = [_wide(tensor) for tensor in rest]
        states, fixed = rest[: job.states], rest[job.states :]
        output: Tensor | None = None
        ctx.job, ctx.random, starts = job, [], []
        for bounds in job.bounds():
            starts += states
            ctx.random.append((torch.get_rng_state(), *get_device_states(values)))
            rows = _wide(job.rows(values, bounds)).flatten(0, -2)
            piece, *states = job.run(bounds, (rows, *states, *fixed))
            if output is None:
                output = values.new_empty(values.shape[0], piece.shape[1])
            place = job.rows(output, bounds)
            place.copy_(piece.view(place.shape))
        assert output is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *starts)
        return output, *(state.to(values.dtype) for state in states)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        job, needs, saved = ctx.job, ctx.needs_input_grad[1:], ctx.saved_tensors
        tensors, starts = saved[: len(needs)], saved[len(needs) :]
        # The run was not cast by autocast either: its tensors are.
        with torch.autocast(tensors[0].device.type, enabled=False):
            if torch.is_grad_enabled() or any(s is not None and batched(s) for s in slopes):
                with torch.enable_grad(), _replayed(*ctx.random[0]):
                    output, final = job.engine.run(job.sweep(tensors))
                return None, *_gradients((output, *final), slopes, tensors, needs)
            return None, *_back(job, tensors, needs, starts, slopes, ctx.random)


def _back(
    job: _Job,
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    starts: Sequence[Tensor],
    slopes: Sequence[Tensor | None],
    random: list[Random],
) -> list[Tensor | None]:
    """Gradients of the tensors, segment after segment."""
    (values, *rest), count = tensors, job.states
    slope, *chain = slopes
    chain = [None if end is None else _wide(end) for end in chain]
    fixed = [
        _wide(tensor).detach().requires_grad_(need)
        for tensor, need in zip(rest[count:], needs[1 + count :], strict=True)
    ]
    sums: list[Tensor | None] = [None] * len(fixed)
    found = torch.empty_like(values) if needs[0] else None
    for k, bounds in reversed(list(enumerate(job.bounds()))):
        rows = _wide(job.rows(values, bounds)).flatten(0, -2).detach().requires_grad_(needs[0])
        begun = [start.detach().requires_grad_() for start in starts[k * count :][:count]]
        leaves = (rows, *begun, *fixed)
        with torch.enable_grad(), _replayed(*random[k]):
            ends = job.run(bounds, leaves)
        part = None if slope is None else _wide(job.rows(slope, bounds)).flatten(0, -2)
        wanted = [leaf.requires_grad for leaf in leaves]
        grads = _gradients(ends, (part, *chain), leaves, wanted)
        chain = grads[1 : 1 + count]
        sums = [_sum(a, b) for a, b in zip(sums, grads[1 + count :], strict=True)]
        if found is not None:
            place = job.rows(found, bounds)
            place.copy_(torch.zeros(()) if grads[0] is None else grads[0].view(place.shape))
    made = zip(rest, (*chain, *sums), strict=True)
    return [found, *(None if s is None else s.to(tensor.dtype) for tensor, s in made)]


def _gradients(
    ends: Sequence[Tensor],
    slopes: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Of the tensors that need one and that an end with a slope depends on."""
    pairs = zip(ends, slopes, strict=True)
    reached = [(end, slope) for end, slope in pairs if slope is not None and end.requires_grad]
    if not reached:
        return [None] * len(tensors)
    some, given = zip(*reached, strict=True)
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    again = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(some, wanted, given, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Never in place: gradients of several tensors may be one."""
    return b if a is None else a if b is None else a + b


def _wide(tensor: Tensor) -> Tensor:
    """Half precision is computed in float32, and so are the states between segments."""
    return tensor.float() if tensor.dtype in HALF else tensor


@contextmanager
def _replayed(state: Tensor, devices: list[int], states: list[Tensor]) -> Iterator[None]:
    """The generators of random numbers as they were: a cell's step may draw."""
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state)
        set_device_states(devices, states)
        yield


def _cut(sweep: Sweep, t: int) -> States:
    """States of the reverse direction past the cuts at t, which the segment behind them did not
    apply."""
    ragged = sweep.ragged
    assert ragged.resets is not None
    cuts = ragged.resets[t]
    if ragged.lengths is not None:
        cuts = cuts & (ragged.lengths > t).to(cuts.device)
    rows = cuts.to(sweep.values.device)[:, None]
    resets = sweep.reset_states or tuple(torch.zeros_like(state) for state in sweep.states)
    pairs = zip(resets, sweep.states, strict=True)
    return tuple(torch.where(rows, reset, state) for reset, state in pairs)


def _part(ragged: Ragged, start: int, end: int) -> Ragged:
    """The steps from ``start`` to ``end``."""
    lengths, resets = ragged.lengths, ragged.resets
    return Ragged(
        end - start,
        ragged.N,
        ragged.major,
        None if lengths is None else (lengths - start).clamp(0, end - start),
        ragged.order,
        None if resets is None else resets[start:end],
    )
