"""The fast path: plain calls of a layer go directly to the core.

A step of a small network takes microseconds, and so does every Python object created on the way.
All checks are therefore made in one place, by the core, and only calls with gradient come back to
Python. For all other calls the core returns None: they go to the engines, which handle every call
and raise the errors.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from unrolled import _core
from unrolled._spec import LayerSweep, Spec
from unrolled._token_rows import BatchLayout
from unrolled.engines._native.autograd import (
    BidirectionalSweepFunction,
    SweepCall,
    SweepFunction,
    make_sweep_call,
)
from unrolled.engines._native.call import forced_build
from unrolled.engines._native.programs import (
    load_program,
    needs_preparation,
    program_refusal,
    traced_program,
)
from unrolled.engines._precision import States, switch_precision
from unrolled.engines._records import forced_engine, open_records
from unrolled.engines._stack import merge_directions, run_layers

_C = torch._C
_OBSERVERS = (
    _C._get_tracing_state,
    _C._len_torch_dispatch_stack,
    _C._len_torch_function_stack,
    _C._are_functorch_transforms_active,
    _C._is_any_autocast_enabled,
)
"""Functions that return true if something traces, records or transforms the call; the fast path
requires that all return false."""

_ENVIRONMENT = _core.Environment(
    _OBSERVERS,
    vars(forward_ad),
    (forced_engine, open_records, forced_build),
    (torch.is_grad_enabled, torch.get_num_threads, switch_precision),
)


@dataclass(frozen=True)
class FastSweep:
    """One sweep: its program, and its parameters in the core's order (None where one is absent)."""

    program: _core.Program
    names: tuple[str | None, ...]  # without the suffix of the sweep
    full_names: tuple[str | None, ...]
    shapes: list[tuple[int, ...]]
    reverse: bool
    input_size: int
    unused: tuple[tuple[str, str], ...]  # (name, full name) of parameters that the core never reads


def make_fast_path(spec: Spec, step: bool, caches: list[_core.WeightCache]) -> _core.FastPath:
    """The stack of a layer without dropout whose cell's parameters need no preparation.

    With ``step`` it runs one step of a cell: input [N, I], states [N, width], names of parameters
    without the suffix of a layer. ``caches`` has the packed weights of each sweep.
    """
    sweeps = fast_sweeps(spec, step)
    return _core.FastPath(
        [
            (
                sweep.program,
                sweep.full_names,
                sweep.shapes,
                sweep.reverse,
                sweep.input_size,
                cache,
            )
            for sweep, cache in zip(sweeps, caches, strict=False)
        ],
        list(spec.state_widths),
        (Tensor, torch.nn.Parameter),
        _ENVIRONMENT,
        None if spec.num_directions == 1 else partial(merge_directions, merge=spec.merge),
        _Training(spec, step, sweeps),
        step,
    )


class _Training:
    """Plain calls with gradient, whose tensors the core has checked."""

    def __init__(self, spec: Spec, step: bool, sweeps: tuple[FastSweep, ...]) -> None:
        self.spec = spec
        self.step = step
        self.sweeps = sweeps
        self.cached_calls: dict[tuple[int, int, bool, int, str, bool], list[SweepCall]] = {}

    def __call__(
        self,
        input: Tensor,
        states: States,
        weights: list[Tensor | None],
        parameters: dict[str, torch.nn.Parameter | None],
        batch_first: bool,
        rounds: bool,
    ) -> tuple[Tensor, Tensor | States] | None:
        """Output and final states; None if a parameter is missing that the core does not read.

        ``weights`` are the parameters of all sweeps in the order of the core, ``parameters`` those
        of the layer by full name; ``rounds``: whether products round to bfloat16.
        """
        T, N = (1, len(input)) if self.step else input.shape[:2]
        if batch_first:
            T, N = N, T
        count = len(self.sweeps[0].names)
        sweep_weights: list[list[Tensor]] = []
        for k, sweep in enumerate(self.sweeps):
            # The reference loop, which makes second derivatives, runs the step with all parameters.
            tensors = [w for w in weights[k * count : (k + 1) * count] if w is not None]
            for _, full_name in sweep.unused:
                parameter = parameters.get(full_name)
                if parameter is None:
                    return None
                tensors.append(parameter)
            sweep_weights.append(tensors)
        calls = self._calls(T, N, batch_first, len(states), rounds)
        output, final = self._train(calls, input, states, sweep_weights)
        return output, final if len(final) > 1 else final[0]

    def _train(
        self,
        calls: list[SweepCall],
        input: Tensor,
        states: States,
        sweep_weights: list[list[Tensor]],
    ) -> tuple[Tensor, States]:
        if len(calls) == 1:
            output, *final = SweepFunction.apply(calls[0], input, *states, *sweep_weights[0])
            return output, tuple(final)

        def run_layer(indices: range, tokens: Tensor) -> tuple[list[Tensor], list[States]]:
            tensors = [
                tensor
                for k in indices
                for tensor in (*(state[k : k + 1] for state in states), *sweep_weights[k])
            ]
            if len(indices) == 1:
                output, *final = SweepFunction.apply(calls[indices[0]], tokens, *tensors)
                return [output], [tuple(final)]
            pair = (calls[indices[0]], calls[indices[1]])
            output, reverse_output, *final = BidirectionalSweepFunction.apply(
                pair, tokens, *tensors
            )
            half = len(final) // 2
            return [output, reverse_output], [tuple(final[:half]), tuple(final[half:])]

        output, final_states = run_layers(self.spec, input, run_layer)
        return output, tuple(torch.cat(sweeps) for sweeps in zip(*final_states, strict=True))

    def _calls(
        self, T: int, N: int, batch_first: bool, state_count: int, rounds: bool
    ) -> list[SweepCall]:
        """The call of each sweep, cached for the last few sizes."""
        key = (T, N, batch_first, state_count, forced_build.get(), rounds)
        calls = self.cached_calls.get(key)  # read once: another thread may clear the cache
        if calls is not None:
            return calls
        if len(self.cached_calls) >= 16:
            self.cached_calls.clear()
        layout = BatchLayout(T, N, "batch" if batch_first else "time")
        leading_shape = () if self.step else (1,)
        calls = []
        for sweep, layer_sweep in zip(self.sweeps, self.spec.sweeps, strict=True):
            rows = layout.token_rows(sweep.reverse)
            names = [name for name in sweep.names if name is not None]
            names += [name for name, _ in sweep.unused]
            calls.append(
                make_sweep_call(
                    self.spec.cell,
                    layer_sweep.sizes,
                    rows,
                    names,
                    state_count,
                    leading_shape,
                    bf16_products=rounds,
                )
            )
        self.cached_calls[key] = calls
        return calls


def fast_sweeps(spec: Spec, step: bool) -> tuple[FastSweep, ...]:
    """The sweeps of a stack; none if the core has no program or torch prepares parameters."""
    cell, sizes = spec.cell, spec.sizes(0)
    if program_refusal(cell, sizes) is not None or needs_preparation(cell):
        return ()
    return tuple(_fast_sweep(spec, sweep, "" if step else sweep.suffix) for sweep in spec.sweeps)


def _fast_sweep(spec: Spec, sweep: LayerSweep, suffix: str) -> FastSweep:
    program = traced_program(spec.cell, sweep.sizes.projected)
    specs = spec.parameters(sweep.layer)
    order = program.parameter_names(spec.cell)
    names = tuple(name if name in specs else None for name in order)
    return FastSweep(
        load_program(program.text, *program.sizes(sweep.sizes)),
        names,
        tuple(None if name is None else name + suffix for name in names),
        [() if name is None else tuple(specs[name].shape) for name in names],
        sweep.reverse,
        sweep.sizes.I,
        tuple((name, name + suffix) for name in specs if name not in names),
    )
