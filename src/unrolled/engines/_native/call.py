"""One call of the core: which rows the tokens are, which tensors a run reads, forward and backward.

Autograd is left to ``autograd`` and ``functorch``, graphs to ``operator``.
"""

from collections.abc import Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from unrolled import _core
from unrolled._token_rows import TokenRows
from unrolled.engines._torch_modes import to_tensor

_core.name_tensors(Tensor, torch.empty(0, dtype=torch.float32, device="cpu"))

forced_build: ContextVar[str] = ContextVar("forced build of the kernels", default="")

StateShapes = tuple[tuple[int, ...], ...]
"""Shapes of the final states, [..., N, width] each."""


def compile_sweep(
    program: _core.Program,
    rows: TokenRows,
    state_count: int,
    parameter_indices: Sequence[int],
    state_shapes: StateShapes,
    groups: int = 1,
) -> _core.CompiledSweep:
    """What stays the same between runs.

    A run's tensors are tokens [..., I], whose leading dimensions are the rows; states [N, width],
    all or none (zeros); parameters. ``parameter_indices`` has, for each array of the program (a
    weight and a bias for each product, then the vectors), its index among these tensors, -1 for
    none. With ``groups`` G gradients of parameters are sums over the sequences n of equal n % G,
    [G, ...].
    """
    place = (rows.T, rows.N, rows.rows, rows.start, rows.stride_t, rows.stride_n)
    counts = None if rows.counts is None else to_tensor(rows.counts)
    table = None if rows.table is None else to_tensor(rows.table)
    build = forced_build.get()
    return _core.CompiledSweep(
        program, build, place, counts, table, state_count, parameter_indices, state_shapes, groups
    )


def run_forward(
    sweep: _core.CompiledSweep, tensors: Sequence[Tensor], training: bool
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Output [..., P], what backward needs, and the final states."""
    threads = torch.get_num_threads()  # Dynamo, where it looks in, loses a call that holds this one
    results: tuple[Tensor, Tensor | None, list[Tensor]] = sweep.forward(tensors, training, threads)
    return results


def run_backward(
    sweep: _core.CompiledSweep,
    tensors: Sequence[Tensor],
    output: Tensor,
    saved: Tensor,
    output_grads: Sequence[Tensor | None],
    needs_grad: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the tensors that need one and that a gradient reaches
    (``CompiledSweep.reached``), from those of the output and of the final states (None: zeros)."""
    threads = torch.get_num_threads()
    return sweep.backward(tensors, output, saved, output_grads, needs_grad, threads)
