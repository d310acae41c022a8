"""Calls of the core, forward and backward, without autograd.

``autograd`` and ``functorch`` make them differentiable, ``operator`` makes them part of graphs.
"""

from collections.abc import Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from unrolled import _core
from unrolled._token_rows import TokenRows
from unrolled.engines._request import Cache
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
    *,
    bf16_products: bool,
) -> _core.CompiledSweep:
    """Build the part of a sweep that is the same in all runs.

    The tensors of a run are tokens [..., I], whose leading dimensions are the rows; states [N,
    width], all or none (zeros); parameters. ``parameter_indices`` has, for each array of the
    program (a weight and a bias for each product, then the vectors), its index among these tensors,
    or -1 if it is absent. The gradients of parameters are [G, ...] with ``groups`` G: group g sums
    over the sequences n with n % G == g. With ``bf16_products`` the numbers that products of
    float32 multiply are rounded to bfloat16, if the build can do that.
    """
    geometry = (rows.T, rows.N, rows.rows, rows.start, rows.stride_t, rows.stride_n)
    counts = None if rows.counts is None else to_tensor(rows.counts)
    table = None if rows.table is None else to_tensor(rows.table)
    build = forced_build.get()
    return _core.CompiledSweep(
        program,
        build,
        geometry,
        counts,
        table,
        state_count,
        parameter_indices,
        state_shapes,
        groups,
        bf16_products,
    )


def weight_cache(caches: dict[str, Cache]) -> _core.WeightCache:
    """The packed weights that the core keeps for a sweep of a layer."""
    cache = caches.get("packed weights")
    if cache is None:  # setdefault: another thread may add it meanwhile
        cache = caches.setdefault("packed weights", _core.WeightCache())
    assert isinstance(cache, _core.WeightCache)
    return cache


def run_forward(
    sweep: _core.CompiledSweep,
    tensors: Sequence[Tensor],
    training: bool,
    saved_size: int = 0,
    cache: _core.WeightCache | None = None,
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Output [..., P], what backward needs, and the final states.

    What backward needs is [tokens, saved_width], or with ``saved_size`` [saved_size]: zeros follow
    these numbers, and a one at the end if products are in bfloat16. Without ``training`` packed
    weights are kept in ``cache``.
    """
    threads = torch.get_num_threads()  # a separate line: Dynamo drops a call with this one inside
    return sweep.forward(tensors, training, threads, saved_size, cache)


def run_backward(
    sweep: _core.CompiledSweep,
    tensors: Sequence[Tensor],
    output: Tensor,
    saved: Tensor,
    output_grads: Sequence[Tensor | None],
    needs_grad: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the tensors that need one, from those of the output and of the final states
    (None: zeros); None for a tensor that no gradient reaches (``CompiledSweep.reached``)."""
    threads = torch.get_num_threads()
    return sweep.backward(tensors, output, saved, output_grads, needs_grad, threads)
