"""Layers × directions × dropout around single sweeps."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.engines.checkpoint import run_in_segments
from unrolled.engines.choose import choose
from unrolled.engines.precision import autocast_dtype, lower
from unrolled.engines.ragged import Ragged
from unrolled.engines.records import is_unforced, record_run
from unrolled.engines.reference_warning import warn_of_reference
from unrolled.engines.request import Engine, States, Sweep, check_dtypes, merged
from unrolled.spec import Spec


def make_sweep(
    spec: Spec,
    index: int,
    ragged: Ragged,
    values: Tensor,
    states: States,
    parameters: dict[str, Tensor],
    reset_states: States | None,
) -> Sweep:
    """Sweep number ``index`` of a stack whose states are [L·D, N, width], in autocast's dtype.

    Raises:
        RuntimeError: dtypes are mixed.
    """
    place = spec.sweeps[index]
    sweep = Sweep(
        spec.cell,
        place.sizes,
        ragged,
        place.reverse,
        values,
        tuple(state[index] for state in states),
        parameters,
        None if reset_states is None else tuple(state[index] for state in reset_states),
    )
    dtype = autocast_dtype(values)
    sweep = sweep if dtype is None else _lowered(sweep, dtype)
    check_dtypes(sweep.values, (*sweep.states, *(sweep.reset_states or ())), sweep.parameters)
    return sweep


def run_stack(
    spec: Spec,
    ragged: Ragged,
    values: Tensor,
    states: States,
    parameters: list[dict[str, Tensor]],
    reset_states: States | None = None,
    dropout: float = 0.0,
    checkpoint: int | bool = False,
) -> tuple[Tensor, States]:
    """All layers, each on the merged output of the one below it.

    ``values`` [rows, I]; ``states`` and ``reset_states`` [L·D, N, width], ordered as ``ragged`` is;
    ``parameters`` one dictionary a sweep; ``checkpoint``: see ``segments``. Returns values [rows,
    output size] and final states.
    """
    D = spec.num_directions
    final: list[States] = []
    for layer in range(spec.num_layers):
        if layer > 0 and dropout > 0:
            values = _dropout(values, ragged, dropout)
        outputs = []
        for index in range(layer * D, layer * D + D):
            sweep = make_sweep(spec, index, ragged, values, states, parameters[index], reset_states)
            engine = choose(sweep)
            record_run(engine.name)
            if engine.name == "reference" and is_unforced():
                warn_of_reference(sweep)
            output, last = _run(engine, sweep, checkpoint)
            outputs.append(output)
            final.append(last)
        values = merged(outputs, spec.merge)
    return values, tuple(torch.stack(parts) for parts in zip(*final, strict=True))


def _lowered(sweep: Sweep, dtype: torch.dtype) -> Sweep:
    after = sweep.reset_states
    return replace(
        sweep,
        values=lower(sweep.values, dtype),
        states=tuple(lower(state, dtype) for state in sweep.states),
        parameters={name: lower(p, dtype) for name, p in sweep.parameters.items()},
        reset_states=after and tuple(lower(state, dtype) for state in after),
    )


def _run(engine: Engine, sweep: Sweep, checkpoint: int | bool) -> tuple[Tensor, States]:
    """An engine's work is not cast once more: the state stays in float32 inside of it."""
    if autocast_dtype(sweep.values) is not None:
        with torch.autocast(sweep.values.device.type, enabled=False):
            return _run(engine, sweep, checkpoint)
    return run_in_segments(engine, sweep, checkpoint) if checkpoint else engine.run(sweep)


def _dropout(values: Tensor, ragged: Ragged, p: float) -> Tensor:
    """Drop elements in time-major order, as torch does, so that equal seeds drop the same ones."""
    if ragged.major != "batch":
        return F.dropout(values, p)
    time_major = values.unflatten(0, (ragged.N, ragged.T)).transpose(0, 1).contiguous()
    return F.dropout(time_major, p).transpose(0, 1).flatten(0, 1)
