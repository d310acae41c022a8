"""A stack as calls of the operator, for graphs of torch.compile, torch.export and torch.jit.trace,
and for dispatch modes (FLOP counters, fake tensors).

Nothing here depends on the values of a tensor, so that no graph breaks or changes with them: the
operator checks and sorts lengths and resets. All other arguments are constants, computed before
torch traces.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled._spec import LayerSweep, Spec
from unrolled.engines._native import flops  # noqa: F401  registers the operator, too
from unrolled.engines._native.programs import (
    needs_preparation,
    program_refusal,
    traced_program,
)
from unrolled.engines._precision import HALF, States
from unrolled.engines._records import record_run
from unrolled.engines._request import Sweep
from unrolled.engines._torch_modes import is_tracing


@dataclass(frozen=True)
class CompiledSweepSpec:
    """The constants of a sweep: its program, and the names of parameters in the program's order."""

    text: str
    sizes: tuple[int, ...]  # see ProgramText.sizes
    matrices: tuple[str, ...]
    vectors: tuple[tuple[str, int], ...]  # with their sizes
    needs_preparation: bool


class NativeCompiledStack:
    """The constants of a stack, and its calls of the operator."""

    def __init__(self, spec: Spec) -> None:
        refusals = [program_refusal(spec.cell, sweep.sizes) for sweep in spec.sweeps]
        self._refusal = next((refusal for refusal in refusals if refusal is not None), None)
        self._sweeps = tuple(_compiled_spec(spec, sweep) for sweep in spec.sweeps)

    def refusal(self, tokens: Tensor) -> str | None:
        """Why the operator cannot run the cell on these tokens, or None."""
        if tokens.device.type != "cpu":
            return "it runs on the CPU"
        if tokens.dtype not in (torch.float32, torch.float64, *HALF):
            return f"it has no arithmetic for {tokens.dtype}"
        return self._refusal

    def run_sweep(self, index: int, sweep: Sweep) -> tuple[Tensor, States]:
        """Run sweep number ``index``, on tokens [T, N, I] or [N, T, I] in the caller's order."""
        constants, batch_first = self._sweeps[index], sweep.batch.layout.major == "batch"
        dtype = sweep.tokens.dtype
        # Parameters in half precision are prepared in float32, as the core computes.
        inner = torch.float32 if constants.needs_preparation and dtype in HALF else dtype
        parameters = {name: parameter.to(inner) for name, parameter in sweep.parameters.items()}
        prepared = sweep.cell.prepare(parameters)
        if constants.needs_preparation:  # under autocast a product in it is in half precision
            prepared = {name: parameter.to(inner) for name, parameter in prepared.items()}
        absent = sweep.tokens.new_empty(0, dtype=inner)  # torch takes no None in a list
        resets = sweep.batch.resets
        record_run("native")
        output, final, _ = torch.ops.unrolled.sweep(
            sweep.tokens.to(inner),
            [state.to(inner) for state in sweep.states],
            [state.to(inner) for state in sweep.reset_states or ()],
            [prepared.get(name, absent) for name in constants.matrices],
            [
                prepared[name] if name in prepared else absent.new_zeros(size)
                for name, size in constants.vectors
            ],
            constants.text,
            list(constants.sizes),
            batch_first,
            sweep.reverse,
            sweep.batch.symbolic_lengths,
            resets.t() if resets is not None and batch_first else resets,
            torch.is_grad_enabled() or is_tracing(),  # a trace is checked without gradients
            "bfloat16" if sweep.bf16_products or dtype == torch.bfloat16 else "switch",
        )
        return output.to(dtype), tuple(state.to(dtype) for state in final)


def _compiled_spec(spec: Spec, sweep: LayerSweep) -> CompiledSweepSpec:
    sizes = sweep.sizes
    program = traced_program(spec.cell, sizes.projected)
    return CompiledSweepSpec(
        program.text,
        program.sizes(sizes),
        program.matrix_names(),
        tuple((name, sizes.resolve(vector.size)) for name, vector in spec.cell.vectors.items()),
        needs_preparation(spec.cell),
    )
