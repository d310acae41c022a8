"""The loop over layers and directions, with dropout and merging, which all engines share."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled._spec import Spec
from unrolled.engines._episodes import Batch
from unrolled.engines._precision import (
    States,
    autocast_dtype,
    cast_for_autocast,
    casts_parameters,
    check_dtypes,
)
from unrolled.engines._request import Sweep

RunLayer = Callable[[range, Tensor], tuple[list[Tensor], list[States]]]
"""Takes the indices of a layer's sweeps, one for each direction, and its tokens; returns the
outputs and the final states of each sweep."""
RunSweep = Callable[[int, Sweep], tuple[Tensor, States]]
"""Takes the index of a sweep and the sweep; returns its output and final states."""


def run_layers(
    spec: Spec, tokens: Tensor, run_layer: RunLayer, dropout: float = 0.0, batch_first: bool = False
) -> tuple[Tensor, list[States]]:
    """Run all layers, each on the merged output of the layer below; returns the output and the
    final states of each sweep."""
    D = spec.num_directions
    final_states: list[States] = []
    for layer in range(spec.num_layers):
        if layer > 0 and dropout > 0:
            tokens = _drop(tokens, dropout, batch_first)
        outputs, states = run_layer(range(layer * D, layer * D + D), tokens)
        final_states += states
        tokens = merge_directions(outputs, spec.merge)
    return tokens, final_states


def run_stack(
    spec: Spec,
    batch: Batch,
    tokens: Tensor,
    states: States,
    parameters: Sequence[dict[str, Tensor]],
    reset_states: States | None,
    dropout: float,
    run_sweep: RunSweep,
) -> tuple[Tensor, States]:
    """Outputs and final states [L·D, N, width] of a stack.

    ``tokens`` as in a ``Sweep``; ``states`` and ``reset_states`` [L·D, N, width], in the order of
    the batch; ``parameters`` one dictionary for each sweep.
    """

    # No nested function: torch.compile would evaluate its annotations.
    arguments = (spec, batch, states, parameters, reset_states, run_sweep)
    batch_first = batch.layout.major == "batch"
    run_layer = partial(_run_layer, *arguments)
    dtype = autocast_dtype(tokens)
    output, final_states = run_layers(spec, tokens, run_layer, dropout, batch_first)
    final = [torch.stack(sweeps) for sweeps in zip(*final_states, strict=True)]
    return cast_for_autocast(output, dtype), tuple(cast_for_autocast(s, dtype) for s in final)


def _run_layer(
    spec: Spec,
    batch: Batch,
    states: States,
    parameters: Sequence[dict[str, Tensor]],
    reset_states: States | None,
    run_sweep: RunSweep,
    indices: range,
    tokens: Tensor,
) -> tuple[list[Tensor], list[States]]:
    outputs, final_states = [], []
    for k in indices:
        sweep = make_sweep(spec, k, batch, tokens, states, parameters[k], reset_states)
        output, final = run_sweep(k, sweep)
        outputs.append(output)
        final_states.append(final)
    return outputs, final_states


def make_sweep(
    spec: Spec,
    index: int,
    batch: Batch,
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
    reset_states: States | None,
) -> Sweep:
    """Sweep number ``index`` of a stack, cast as autocast requires: to its dtype, or to float32
    with products in bfloat16.

    Raises:
        RuntimeError: the tensors have different dtypes.
    """
    dtype, bf16_products = autocast_dtype(tokens), None
    if dtype is not None and not casts_parameters(dtype, parameters.values()):
        dtype, bf16_products = torch.float32, True
    sweep = Sweep(
        spec.cell,
        spec.sweeps[index].sizes,
        batch,
        spec.sweeps[index].reverse,
        cast_for_autocast(tokens, dtype),
        tuple(cast_for_autocast(state[index], dtype) for state in states),
        {name: cast_for_autocast(p, dtype) for name, p in parameters.items()},
        None
        if reset_states is None
        else tuple(cast_for_autocast(state[index], dtype) for state in reset_states),
        bf16_products,
    )
    sweep_states = (*sweep.states, *(sweep.reset_states or ()))
    check_dtypes(type(spec.cell).__name__, sweep.tokens, sweep_states, sweep.parameters)
    return sweep


def merge_directions(outputs: list[Tensor], merge: str) -> Tensor:
    """Combine the outputs of a layer's directions."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs, -1) if merge == "concat" else outputs[0] + outputs[1]


def _drop(tokens: Tensor, p: float, batch_first: bool) -> Tensor:
    """Dropout that draws in time-major order, so that a seed drops the same elements as in
    torch."""
    if not batch_first:
        return F.dropout(tokens, p)
    return F.dropout(tokens.transpose(0, 1).contiguous(), p).transpose(0, 1)
