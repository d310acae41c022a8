"""A sweep in segments of time that keep nothing but their first states for backward.

Backward runs each segment forward once more, from the last one to the first (Chen et al. 2016), so
what it keeps at a time is the states between segments and one segment's inner values: with segments
of √T steps both grow as √T.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unrolled.engines.ragged import Ragged
from unrolled.engines.sweep import Engine, States, Sweep, in_float32


def run_in_segments(engine: Engine, sweep: Sweep, steps: int | bool) -> tuple[Tensor, States]:
    """What ``engine.run`` gives, in segments of so many steps (True: √T, rounded up).

    Nothing is kept where no gradient is asked; torch.func's transforms, which allow no saved
    tensors' hooks, keep all.
    """
    if not sweep.differentiated or sweep.transformed:
        return engine.run(sweep)
    count = math.isqrt(sweep.ragged.T - 1) + 1 if steps is True else steps
    call = partial(_run, engine, sweep, count)
    return in_float32(call, sweep.values, sweep.states, sweep.parameters)


def _run(
    engine: Engine,
    sweep: Sweep,
    steps: int,
    values: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    ragged = sweep.ragged
    bounds = [(start, min(start + steps, ragged.T)) for start in range(0, ragged.T, steps)]
    after = sweep.reset_states
    if after is not None:
        after = tuple(state.to(values.dtype) for state in after)
    pieces = list(zip(bounds, _split(ragged, values, bounds), strict=True))
    outputs: list[Tensor] = []
    for (start, end), rows in reversed(pieces) if sweep.reverse else pieces:
        if sweep.reverse and ragged.resets is not None and end < ragged.T:
            states = _cut(ragged, end, states, after)
        part = replace(sweep, ragged=_part(ragged, start, end), reset_states=after)
        output, states = _segment(engine, part, rows, states, parameters)
        outputs.append(output)
    return _whole(ragged, outputs[::-1] if sweep.reverse else outputs), states


def _segment(
    engine: Engine, sweep: Sweep, values: Tensor, states: States, parameters: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """One segment, whose inner values are not kept."""
    count = len(states)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(parameters, tensors[1 + count :], strict=True))
        part = replace(sweep, values=tensors[0], states=tensors[1 : 1 + count], parameters=given)
        output, final = engine.run(part)
        return output, *final

    again: Callable[..., Any] = checkpoint
    output, *final = again(run, values, *states, *parameters.values(), use_reentrant=False)
    return output, tuple(final)


def _cut(ragged: Ragged, t: int, states: States, after: States | None) -> States:
    """States of the reverse direction past the cuts at t, which the segment behind them did not
    apply."""
    assert ragged.resets is not None
    cuts = ragged.resets[t]
    if ragged.lengths is not None:
        cuts = cuts & (ragged.lengths > t).to(cuts.device)
    rows = cuts.to(states[0].device)[:, None]
    resets = after or tuple(torch.zeros_like(state) for state in states)
    pairs = zip(resets, states, strict=True)
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


def _split(ragged: Ragged, values: Tensor, bounds: list[tuple[int, int]]) -> list[Tensor]:
    """The rows of each segment: cut at once, or each cut would have a gradient of the whole."""
    steps = [end - start for start, end in bounds]
    if ragged.major == "batch":
        by_row = values.unflatten(0, (ragged.N, ragged.T))
        return [part.flatten(0, 1) for part in by_row.split(steps, 1)]
    if ragged.major == "time" or ragged.lengths is None:
        return list(values.split([count * ragged.N for count in steps]))
    ends = [int(ragged.lengths.clamp(max=end).sum()) for _, end in bounds]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return list(values.split(sizes))


def _whole(ragged: Ragged, outputs: list[Tensor]) -> Tensor:
    """The rows of all steps from those of each segment."""
    if ragged.major != "batch":
        return torch.cat(outputs)
    parts = [output.unflatten(0, (ragged.N, -1)) for output in outputs]
    return torch.cat(parts, 1).flatten(0, 1)
