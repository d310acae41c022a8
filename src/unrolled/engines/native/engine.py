"""The native engine: the cell's program, and its derived gradient, in the C++ core.

Here it is chosen which way a call takes: without gradient straight to ``core``, in eager mode
through ``autograd``, under torch.func through ``transforms``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.engines.episodes import run_packed
from unrolled.engines.native.autograd import Sweeping, make_job
from unrolled.engines.native.call import Where, forced_build, locate, ragged_rows, run_forward
from unrolled.engines.native.functorch import run_transformed
from unrolled.engines.native.programs import (
    prepared_in_torch,
    refusal,
    split_products,
    undivided,
    whole_weight,
)
from unrolled.engines.request import HALF, Run, States, Sweep, in_float32, transformed

name = "native"


def supports(sweep: Sweep) -> str | None:
    """None, or why the core cannot run this sweep."""
    if sweep.values.device.type != "cpu":
        return "the native core runs on the CPU"
    if sweep.values.dtype not in (torch.float32, torch.float64, *HALF):
        return f"the native core has no arithmetic for {sweep.values.dtype}"
    if _watched(sweep.values):
        return "what traces or fakes tensors sees no addresses"
    return refusal(sweep.cell, sweep.sizes)


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states; half precision is computed in float32, state included."""
    if sweep.ragged.resets is not None:
        return run_packed(sweep, _run_packed(sweep.sizes))
    where = locate(sweep.ragged, sweep.reverse)
    return _call(sweep.cell, sweep.sizes, where, sweep.values, sweep.states, sweep.parameters)


def _run_packed(sizes: Sizes) -> Run:
    def native(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        total = tokens.shape[0]
        rows = torch.arange(total, device="cpu")
        where = ragged_rows(batch_sizes, states[0].shape[0], total, rows)
        return _call(cell, sizes, where, tokens, states, parameters)

    return native


@contextmanager
def use_build(build: str) -> Iterator[None]:
    """Force one build of the kernels within a ``with`` block (of this thread or task).

    ``unrolled._core.builds()`` lists those that this processor can run, the preferred first.

    Raises:
        ValueError: there is none of that name here.
    """
    builds = _core.builds()
    if build not in builds:
        raise ValueError(f"build must be one of {', '.join(map(repr, builds))}, got {build!r}")
    token = forced_build.set(build)
    try:
        yield
    finally:
        forced_build.reset(token)


def _watched(values: Tensor) -> bool:
    """Whether this call is being recorded, or its tensors are not plain memory."""
    return (
        type(values) not in (Tensor, torch.nn.Parameter)
        or torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def _call(
    cell: Cell,
    sizes: Sizes,
    where: Where,
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    if tokens.dtype in HALF and prepared_in_torch(cell, sizes):
        # The core widens half precision itself, but not what torch prepares.
        call = partial(_call, cell, sizes, where)
        return in_float32(call, tokens, states, parameters)
    prepared = cell.prepare(parameters)
    for name, parts, blocks in split_products(cell, sizes):
        prepared = {**prepared, name: whole_weight(prepared[name], parts, blocks)}
    cell = undivided(cell, sizes)
    job = make_job(cell, sizes, where, list(prepared), len(states))
    tensors = (tokens, *states, *prepared.values())
    if transformed():
        return run_transformed(job, tensors)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        outputs, *final = Sweeping.apply(job, *tensors)
        return outputs, tuple(final)
    outputs, _, ends = run_forward(job.work, tensors, training=False)
    return outputs, tuple(ends)
