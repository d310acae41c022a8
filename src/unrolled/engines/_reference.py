"""The reference engine: the cell's own ``step`` in a loop over time; autograd differentiates it.

It is written to be read, and the other engines are tested against it. It runs every cell on every
device and dtype, and is differentiable to any order.
"""

from functools import partial

from torch import Tensor

from unrolled.cells import Cell, Sizes
from unrolled.engines._loop import run_loop
from unrolled.engines._packed import run_packed
from unrolled.engines._precision import States, in_float32
from unrolled.engines._request import Engine, Sweep


class ReferenceEngine(Engine):
    """The loop over time in Python."""

    name = "reference"

    def supports(self, sweep: Sweep) -> str | None:
        """None: it runs everything."""
        return None

    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs and final states; half precision is computed in float32, state included."""
        return run_packed(sweep, partial(_run_in_float32, sweep.sizes))


def _run_in_float32(
    sizes: Sizes,
    cell: Cell,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    run = partial(_prepare_and_run, cell, sizes, batch_sizes)
    return in_float32(run, tokens, states, parameters)


def _prepare_and_run(
    cell: Cell,
    sizes: Sizes,
    batch_sizes: list[int],
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    return run_loop(cell, sizes, tokens, batch_sizes, states, cell.prepare(parameters))
