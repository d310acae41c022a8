"""The definition of a recurrent network: the cell's ``step``, over time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unrolled.cells import Cell, Sizes
from unrolled.cells._bound import BoundCell
from unrolled.engines._precision import States


def run_loop(
    cell: Cell,
    sizes: Sizes,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    prepared: Mapping[str, Tensor],
) -> tuple[Tensor, States]:
    """Outputs [total, P] and final states [N, width] of a packed batch.

    ``tokens`` [total, I] are ordered by step, ``batch_sizes`` do not increase, and ``prepared`` are
    the parameters that the cell's ``prepare`` returns.
    """
    bound = BoundCell(cell, sizes, prepared)
    # Unbound once: indexing step by step would make the backward pass quadratic in T.
    projected = bound.project_input(tokens).split(batch_sizes)
    outputs: list[Tensor] = []
    finished: list[States] = []  # final states of the sequences that end at a step, shortest first
    for x in projected:
        active, current = x.shape[0], states[0].shape[0]
        if active < current:
            finished.append(tuple(state[active:] for state in states))
            states = tuple(state[:active] for state in states)
        states = bound.advance(bound.split_input(x), states)
        outputs.append(states[0])
    finished.append(states)
    final = tuple(torch.cat(parts[::-1]) for parts in zip(*finished, strict=True))
    return torch.cat(outputs), final
