"""The native engine: the C++ core runs the cell's program and its derived gradient.

A call without gradients goes to ``call``, a differentiated call in eager mode to ``autograd``, and
a call under torch.func to ``functorch``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from unrolled import _core
from unrolled._spec import Spec
from unrolled._token_rows import TokenRows
from unrolled.cells import Cell, Sizes
from unrolled.engines._native.autograd import SweepFunction, make_sweep_call
from unrolled.engines._native.call import forced_build, run_forward, weight_cache
from unrolled.engines._native.compiled import NativeCompiledStack
from unrolled.engines._native.fast_path import make_fast_path
from unrolled.engines._native.functorch import run_transformed
from unrolled.engines._native.programs import needs_preparation, program_refusal, traced_program
from unrolled.engines._packed import run_packed
from unrolled.engines._precision import HALF, States, in_float32
from unrolled.engines._request import Cache, CompiledStack, Engine, ExportedSweep, FastPath, Sweep
from unrolled.engines._torch_modes import has_dispatch_mode, is_transformed


class NativeEngine(Engine):
    """The C++ core."""

    name = "native"

    def supports(self, sweep: Sweep) -> str | None:
        """Why the core cannot run this sweep, or None if it can."""
        if sweep.tokens.device.type != "cpu":
            return "the native core runs on the CPU"
        if sweep.tokens.dtype not in (torch.float32, torch.float64, *HALF):
            return f"the native core has no arithmetic for {sweep.tokens.dtype}"
        if _has_no_addresses(sweep.tokens):
            return "traced and fake tensors have no addresses"
        return program_refusal(sweep.cell, sweep.sizes)

    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs and final states; half precision is computed in float32, state included."""
        if sweep.batch.resets is not None:
            return run_packed(sweep, partial(_run_packed, sweep))
        rows = sweep.batch.layout.token_rows(sweep.reverse)
        return _run(sweep, sweep.cell, rows, sweep.tokens, sweep.states, sweep.parameters)

    def arithmetic(self, sweep: Sweep) -> str:
        """Which products the build of the kernels has, with its name."""
        build = forced_build.get() or _core.builds()[0]
        words = super().arithmetic(sweep)
        if sweep.takes_bf16_products and _core.multiplies_bfloat16(build):
            words = "products in bfloat16, sums in float32"
        return f"{words} (build {build})"

    def fast_path(
        self, spec: Spec, step: bool, caches: Sequence[dict[str, Cache]]
    ) -> FastPath | None:
        """For calls that the core runs in one call for a whole layer."""
        return make_fast_path(spec, step, [weight_cache(sweep) for sweep in caches])

    def compiled_stack(self, spec: Spec) -> CompiledStack | None:
        """The stack as operators of torch.library."""
        return NativeCompiledStack(spec)

    def export_sweep(
        self, cell: Cell, sizes: Sizes, parameters: Mapping[str, Tensor]
    ) -> ExportedSweep | str | None:
        """The cell's program, and the arrays that it reads."""
        refusal = program_refusal(cell, sizes)
        if refusal is not None:
            return refusal
        prepared = cell.prepare(dict(parameters))
        program = traced_program(cell, sizes.projected)
        names = program.parameter_names(cell)
        return ExportedSweep(program.text, tuple(prepared.get(name) for name in names))


def _run_packed(
    sweep: Sweep,
    cell: Cell,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    rows = TokenRows.of_packed(batch_sizes, len(states[0]))
    return _run(sweep, cell, rows, tokens, states, parameters)


@contextmanager
def use_build(build: str) -> Iterator[None]:
    """Force one build of the kernels within a ``with`` block, for this thread or task.

    ``unrolled._core.builds()`` lists those that this processor can run, in order of preference.

    Raises:
        ValueError: this processor has no build of that name.
    """
    builds = _core.builds()
    if build not in builds:
        names = ", ".join(map(repr, builds))
        raise ValueError(f"use_build: build must be one of {names}, got {build!r}")
    token = forced_build.set(build)
    try:
        yield
    finally:
        forced_build.reset(token)


def _has_no_addresses(tokens: Tensor) -> bool:
    """Whether this call is being recorded, or its tensors are not plain memory."""
    return (
        type(tokens) not in (Tensor, torch.nn.Parameter)
        or torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or has_dispatch_mode()
    )


def _run(
    sweep: Sweep,
    cell: Cell,
    rows: TokenRows,
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    if tokens.dtype in HALF and needs_preparation(cell):
        # The core computes half precision in float32, but torch prepares the parameters.
        run = partial(_run, sweep, cell, rows)
        return in_float32(run, tokens, states, parameters)
    prepared = cell.prepare(dict(parameters))
    call = make_sweep_call(
        cell,
        sweep.sizes,
        rows,
        list(prepared),
        len(states),
        bf16_products=sweep.takes_bf16_products,
    )
    tensors = (tokens, *states, *prepared.values())
    if is_transformed():
        return run_transformed(call, tensors)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        sweep.clear_caches()
        outputs, *final = SweepFunction.apply(call, *tensors)
        return outputs, tuple(final)
    cache = None if sweep.caches is None else weight_cache(sweep.caches)
    outputs, _, final_states = run_forward(call.compiled, tensors, training=False, cache=cache)
    return outputs, tuple(final_states)
