"""The reference engine: the cell's own ``step`` in a loop over time; autograd differentiates it.

For reading and for judging the others. It runs every cell, on every device and dtype, to any order
of derivative.
"""

import torch
from torch import Tensor

from unrolled.cells import BoundCell, Cell, Sizes
from unrolled.engines.packed import run_packed
from unrolled.engines.sweep import HALF, States, Sweep

name = "reference"


def supports(sweep: Sweep) -> str | None:
    """None: it runs everything."""
    return None


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states; half precision is computed in float32, state included."""

    def loop(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        if tokens.dtype not in HALF:
            return _loop(cell, sweep.sizes, tokens, batch_sizes, states, parameters)
        wide = {key: value.float() for key, value in parameters.items()}
        start = tuple(state.float() for state in states)
        outputs, final = _loop(cell, sweep.sizes, tokens.float(), batch_sizes, start, wide)
        return outputs.to(tokens.dtype), tuple(state.to(tokens.dtype) for state in final)

    return run_packed(sweep, loop)


def _loop(
    cell: Cell,
    sizes: Sizes,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    bound = BoundCell(cell, sizes, parameters)
    # Unbound once: indexing step by step would make the backward pass quadratic in T.
    projected = bound.project_input(tokens).split(batch_sizes)
    outputs: list[Tensor] = []
    ended: list[States] = []
    for x in projected:
        active, current = x.shape[0], states[0].shape[0]
        if active < current:
            ended.append(tuple(state[active:] for state in states))
            states = tuple(state[:active] for state in states)
        states = bound.advance(bound.split_input(x), states)
        outputs.append(states[0])
    ended.append(states)
    final = tuple(torch.cat(parts[::-1]) for parts in zip(*ended, strict=True))
    return torch.cat(outputs), final
