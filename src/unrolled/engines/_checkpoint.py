"""Gradient checkpointing: a sweep in segments of time that save only their initial states.

Backward runs each segment forward again, from the last to the first (Chen et al. 2016), so it holds
the states between segments and the intermediate values of one segment at a time: with segments of
√T steps, both grow as √T.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from unrolled.cells import Cell
from unrolled.engines._autograd_context import AutogradContext, AutogradFunction, differentiate
from unrolled.engines._precision import HALF, States
from unrolled.engines._request import Engine, Sweep
from unrolled.engines._reset_guard import without_modules
from unrolled.engines._torch_modes import is_batched

Bounds = tuple[int, int]
"""The first step of a segment, and the step after its last."""
RandomStates = tuple[Tensor, list[int], list[Tensor]]
"""States of the random number generators: the CPU's, the other devices, and their states."""


def run_in_segments(engine: Engine, sweep: Sweep, steps: int | bool) -> tuple[Tensor, States]:
    """The results of ``engine.run``, in segments of ``steps`` steps (True: √T, rounded up).

    Without a gradient, and under torch.func's transforms, the sweep runs in one piece.
    """
    if not sweep.is_differentiated or sweep.is_transformed:
        return engine.run(sweep)
    segment_steps = math.isqrt(sweep.batch.T - 1) + 1 if steps is True else steps
    cell_with, module_parameters = without_modules(sweep.cell)
    resets = sweep.reset_states or ()
    tensors = (sweep.tokens, *sweep.states, *resets, *sweep.parameters.values(), *module_parameters)
    sweep.clear_caches()
    template = replace(
        sweep,
        tokens=sweep.tokens[:0].detach(),
        states=(),
        parameters={},
        bf16_products=sweep.takes_bf16_products,  # in backward as in forward
        caches=None,
    )
    names = list(sweep.parameters)
    segments = _Segments(
        engine, template, segment_steps, len(sweep.states), len(resets), names, cell_with
    )
    output, *final = _SegmentFunction.apply(segments, *tensors)
    return output, tuple(final)


@dataclass(frozen=True)
class _Segments:
    """Everything in a run but its tensors: tokens, states, reset states (all or none), parameters
    by ``names``, and parameters of modules that the cell holds."""

    engine: Engine
    template: Sweep  # without tensors
    steps: int
    state_count: int
    reset_count: int
    names: list[str]
    cell_with: Callable[[tuple[Tensor, ...]], Cell]

    def bounds(self) -> list[Bounds]:
        """The bounds of all segments, in the order of the sweep."""
        T = self.template.batch.T
        bounds = [(start, min(start + self.steps, T)) for start in range(0, T, self.steps)]
        return bounds[::-1] if self.template.reverse else bounds

    def sweep(self, tensors: Sequence[Tensor]) -> Sweep:
        """A sweep of these tensors over all steps."""
        counts = (self.state_count, self.reset_count, len(self.names))
        remaining = iter(tensors[1:])
        states, resets, parameters = (
            tuple(next(remaining) for _ in range(count)) for count in counts
        )
        return replace(
            self.template,
            cell=self.cell_with(tuple(remaining)),
            tokens=tensors[0],
            states=states,
            parameters=dict(zip(self.names, parameters, strict=True)),
            reset_states=resets or None,
        )

    def run(self, bounds: Bounds, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run one segment, of which ``tensors`` holds the tokens: output and final states."""
        sweep, batch = self.sweep(tensors), self.template.batch
        if sweep.reverse and batch.resets is not None and bounds[1] < batch.T:
            sweep = replace(sweep, states=_states_after_cuts(sweep, bounds[1]))
        output, final = self.engine.run(replace(sweep, batch=batch.steps(*bounds)))
        return output, *final

    def part(self, tokens: Tensor, bounds: Bounds) -> Tensor:
        """A view of a segment's part of a tensor that is laid out as the tokens are."""
        batch, (start, end) = self.template.batch, bounds
        if tokens.dim() == 3:
            time_axis = 1 if batch.layout.major == "batch" else 0
            return tokens.narrow(time_axis, start, end - start)
        lengths = batch.layout.lengths_or_full()
        first_row, end_row = (int(lengths.clip(max=t).sum()) for t in bounds)
        return tokens[first_row:end_row]


class _SegmentContext(AutogradContext, Protocol):
    segments: _Segments
    random_states: list[RandomStates]


class _SegmentFunction(AutogradFunction):
    """All segments as one node of autograd, so that no part of input and output is saved twice."""

    @staticmethod
    def forward(ctx: _SegmentContext, segments: _Segments, *tensors: Tensor) -> tuple[Tensor, ...]:
        tokens = tensors[0]
        states_and_weights = [_at_least_float32(tensor) for tensor in tensors[1:]]
        states = states_and_weights[: segments.state_count]
        constants = states_and_weights[segments.state_count :]
        output: Tensor | None = None
        ctx.segments, ctx.random_states, starts = segments, [], []
        for bounds in segments.bounds():
            starts += states
            ctx.random_states.append((torch.get_rng_state(), *get_device_states(tokens)))
            segment = _at_least_float32(segments.part(tokens, bounds)).contiguous()
            piece, *states = segments.run(bounds, (segment, *states, *constants))
            if output is None:
                output = tokens.new_empty(*tokens.shape[:-1], piece.shape[-1])
            segments.part(output, bounds).copy_(piece)
        assert output is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *starts)
        return output, *(state.to(tokens.dtype) for state in states)

    @staticmethod
    def backward(ctx: _SegmentContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        segments, needs_grad, saved = ctx.segments, ctx.needs_input_grad[1:], ctx.saved_tensors
        tensors, starts = saved[: len(needs_grad)], saved[len(needs_grad) :]
        # As in forward: the tensors are cast already.
        with torch.autocast(tensors[0].device.type, enabled=False):
            if torch.is_grad_enabled() or any(g is not None and is_batched(g) for g in grads):
                with torch.enable_grad(), _replayed(*ctx.random_states[0]):
                    output, final = segments.engine.run(segments.sweep(tensors))
                return None, *differentiate((output, *final), grads, tensors, needs_grad)
            backward = _SegmentBackward(segments, tensors, needs_grad, grads[0])
            return None, *backward.run(starts, grads[1:], ctx.random_states)


class _SegmentBackward:
    """Computes the gradients of a run's tensors, segment by segment."""

    def __init__(
        self,
        segments: _Segments,
        tensors: Sequence[Tensor],
        needs_grad: Sequence[bool],
        output_grad: Tensor | None,
    ) -> None:
        self.segments = segments
        self.tokens, *self.states_and_weights = tensors
        self.needs_tokens_grad, count = needs_grad[0], segments.state_count
        self.output_grad = output_grad
        self.constants = [
            _at_least_float32(tensor).detach().requires_grad_(need)
            for tensor, need in zip(tensors[1 + count :], needs_grad[1 + count :], strict=True)
        ]

    def run(
        self,
        starts: Sequence[Tensor],
        final_grads: Sequence[Tensor | None],
        random_states: Sequence[RandomStates],
    ) -> list[Tensor | None]:
        """``starts`` holds the initial states of all segments, one segment after the other."""
        count = self.segments.state_count
        state_grads = [None if grad is None else _at_least_float32(grad) for grad in final_grads]
        sums: list[Tensor | None] = [None] * len(self.constants)
        tokens_grad = torch.empty_like(self.tokens) if self.needs_tokens_grad else None
        for k, bounds in reversed(list(enumerate(self.segments.bounds()))):
            segment_starts = starts[k * count : (k + 1) * count]
            with _replayed(*random_states[k]):
                grads = self._run_segment(bounds, segment_starts, state_grads)
            state_grads = grads[1 : 1 + count]
            sums = [_sum(a, b) for a, b in zip(sums, grads[1 + count :], strict=True)]
            if tokens_grad is not None:
                segment_grad = torch.zeros(()) if grads[0] is None else grads[0]
                self.segments.part(tokens_grad, bounds).copy_(segment_grad)
        pairs = zip(self.states_and_weights, (*state_grads, *sums), strict=True)
        return [tokens_grad, *(g if g is None else g.to(tensor.dtype) for tensor, g in pairs)]

    def _run_segment(
        self,
        bounds: Bounds,
        starts: Sequence[Tensor],
        final_grads: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Gradients of a segment's tokens, states and constants."""
        segment = _at_least_float32(self.segments.part(self.tokens, bounds)).contiguous()
        leaves = (
            segment.detach().requires_grad_(self.needs_tokens_grad),
            *(start.detach().requires_grad_() for start in starts),
            *self.constants,
        )
        with torch.enable_grad():
            results = self.segments.run(bounds, leaves)
        grad = self.output_grad
        segment_grad = None if grad is None else self.segments.part(grad, bounds)
        if segment_grad is not None:
            segment_grad = _at_least_float32(segment_grad)
        needs_grad = [leaf.requires_grad for leaf in leaves]
        return differentiate(results, (segment_grad, *final_grads), leaves, needs_grad)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Never in place: several gradients may be the same tensor."""
    return b if a is None else a if b is None else a + b


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision is computed in float32, the states between segments included."""
    return tensor.float() if tensor.dtype in HALF else tensor


@contextmanager
def _replayed(state: Tensor, devices: list[int], states: list[Tensor]) -> Iterator[None]:
    """Restore the random number generators: a cell's step may draw random numbers."""
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state)
        set_device_states(devices, states)
        yield


def _states_after_cuts(sweep: Sweep, t: int) -> States:
    """States for the reverse direction with the cuts at t applied, which lie between two segments,
    so that neither segment applies them."""
    batch = sweep.batch
    assert batch.resets is not None
    cuts = batch.resets[t]
    if batch.layout.lengths is not None:
        cuts = cuts & torch.from_numpy(batch.layout.lengths > t).to(cuts.device)
    is_cut = cuts.to(sweep.tokens.device)[:, None]
    pairs = zip(sweep.reset_states_or_zeros(), sweep.states, strict=True)
    return tuple(torch.where(is_cut, reset_state, state) for reset_state, state in pairs)
