"""The reference engine: the cell's own ``step`` in a loop over time; autograd differentiates it.

For reading and for judging the others. It runs every cell, on every device and dtype, to any order
of derivative.
"""

from functools import partial

from torch import Tensor

from unrolled.cells import Cell, Sizes
from unrolled.engines.episodes import run_packed
from unrolled.engines.loop import run_loop
from unrolled.engines.request import States, Sweep, in_float32

name = "reference"


def supports(sweep: Sweep) -> str | None:
    """None: it runs everything."""
    return None


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states; half precision is computed in float32, state included."""
    return run_packed(sweep, partial(_loop, sweep.sizes))


def _loop(
    sizes: Sizes,
    cell: Cell,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    prepared = partial(_prepared, cell, sizes, batch_sizes)
    return in_float32(prepared, tokens, states, parameters)


def _prepared(
    cell: Cell,
    sizes: Sizes,
    batch_sizes: list[int],
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    return run_loop(cell, sizes, tokens, batch_sizes, states, cell.prepare(parameters))
