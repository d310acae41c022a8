"""The shortest way from a layer's tensors to the core, for the plainest form of a call.

A step of a small network takes microseconds, and so does every object made around it. So here all
checks stand in a row, and whatever is not the plainest case goes the usual way, which knows all
forms and has all the error messages.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell
from unrolled.cells.declaration import parameter_names
from unrolled.engines.autograd import Job, Sweeping, make_job
from unrolled.engines.choose import unobserved
from unrolled.engines.core import Where, forced_build, load, recorded, settings_of
from unrolled.engines.sweep import States, transformed
from unrolled.spec import Spec

_C = torch._C
_WIDE = {torch.float32: False, torch.float64: True}
_KINDS = (torch.nn.Parameter, Tensor)


@dataclass(frozen=True)
class _Way:
    """One sweep: its program, the full names of its parameters in the core's order (None where one
    is absent), its direction."""

    program: _core.Program
    names: tuple[str | None, ...]
    plain: tuple[str | None, ...]  # the same without the suffix of the sweep
    reverse: bool
    input_size: int


class Direct:
    """The stack of a layer without dropout, on what needs no preparation."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.own = type(spec.cell).__module__.startswith("unrolled.cells.")
        self.settings = self._settings()
        self.ways = _ways(spec)
        self.widths, self.directions = spec.state_widths, spec.num_directions
        self.jobs: dict[Any, list[Job]] = {}

    def __call__(
        self, input: Any, hx: Any, parameters: dict[str, Any], batch_first: bool
    ) -> tuple[Tensor, States] | None:
        """Output and final states [L·D, N, width], or None: go the usual way.

        ``input`` and ``hx`` are what the user passed, ``parameters`` the layer's by full name.
        """
        if type(input) is not Tensor or input.dim() != 3 or not self.ways or not _plain():
            return None
        T, N, I = input.shape  # noqa: E741
        if batch_first:
            T, N = N, T
        dtype = input.dtype
        if self.ways[0].input_size != I or T == 0 or N == 0 or dtype not in _WIDE:
            return None
        settings = self._settings()
        if not input.is_cpu or (settings and any(map(_differs, self.settings, settings))):
            return None
        start = self._start(hx, N, dtype)
        weights: list[Any] = []
        for way in self.ways:
            if not _add_parameters(weights, way.names, parameters, dtype):
                return None
        if start is None:
            return None
        if torch.is_grad_enabled() and _needs_gradient(input, *start, *weights):
            return self._train(input, start, weights, (T, N, batch_first))
        return self._infer(input.contiguous(), start, weights, (T, N, batch_first))

    def _infer(
        self, values: Tensor, start: States, weights: list[Any], size: tuple[int, int, bool]
    ) -> tuple[Tensor, States]:
        T, N, batch_first = size
        bytes_of, wide = N * values.itemsize, _WIDE[values.dtype]
        final = tuple([values.new_empty((len(self.ways), N, width)) for width in self.widths])
        begins, ends = [s.data_ptr() for s in start], [s.data_ptr() for s in final]
        numbers: list[int] = []
        for p in weights:
            numbers += (0, 0) if p is None else (p.data_ptr(), p.numel())
        outputs: list[Tensor] = []
        each, build, threads = (
            2 * len(self.ways[0].names),
            forced_build.get(),
            torch.get_num_threads(),
        )
        P = self.widths[0]
        for index, way in enumerate(self.ways):
            output = values.new_empty((N, T, P) if batch_first else (T, N, P))
            arrays = [0, 0, 0, 0, values.data_ptr(), values.numel(), output.data_ptr()]
            arrays += (output.numel(), 0, 0)
            arrays += numbers[each * index : each * (index + 1)]
            for k, width in enumerate(self.widths):
                at = index * width * bytes_of
                arrays += (begins[k] + at, N * width) if begins else (0, 0)
            for k, width in enumerate(self.widths):
                arrays += (ends[k] + index * width * bytes_of, N * width)
            shape = (
                T,
                N,
                way.input_size,
                T * N,
                *_strides(T, N, batch_first, way.reverse),
                threads,
            )
            _core.forward(way.program, build, wide, shape, arrays)
            outputs.append(output)
            if len(outputs) == self.directions:
                values = output if self.directions == 1 else _merge(outputs, self.spec.merge)
                outputs = []
        return values, final

    def _train(
        self, values: Tensor, start: States, weights: list[Any], size: tuple[int, int, bool]
    ) -> tuple[Tensor, States]:
        outputs: list[Tensor] = []
        final: list[tuple[Tensor, ...]] = []
        each, alone = len(self.ways[0].names), len(self.ways) == 1
        for index, job in enumerate(self._jobs(size, len(start))):
            own = [p for p in weights[each * index : each * (index + 1)] if p is not None]
            states = start if alone else [state[index : index + 1] for state in start]
            output, *ends = Sweeping.apply(job, values, *states, *own)
            outputs.append(output)
            final.append(tuple(ends))
            if len(outputs) == self.directions:
                values = output if self.directions == 1 else _merge(outputs, self.spec.merge)
                outputs = []
        if alone:
            return values, final[0]
        return values, tuple(torch.cat(parts) for parts in zip(*final, strict=True))

    def _jobs(self, size: tuple[int, int, bool], states: int) -> list[Job]:
        """A job for each sweep; the last few sizes are kept."""
        key = (size, states, forced_build.get())
        if key in self.jobs:
            return self.jobs[key]
        if len(self.jobs) >= 16:
            self.jobs.clear()
        T, N, batch_first = size
        jobs = []
        for way, place in zip(self.ways, self.spec.sweeps, strict=True):
            where = Where(T, N, T * N, *_strides(T, N, batch_first, way.reverse))
            names = [name for name in way.plain if name is not None]
            jobs.append(make_job(self.spec.cell, place.sizes, where, names, states, (1,)))
        self.jobs[key] = jobs
        return jobs

    def _settings(self) -> list[Any]:
        """What the programs hold for; the library's classes do not change."""
        cell = self.spec.cell
        if self.own:
            return [value for name, value in vars(cell).items() if name[0] != "_"]
        return settings_of(cell)

    def _start(self, hx: Any, N: int, dtype: torch.dtype) -> States | None:
        """The states as a tuple, empty for zeros; None if they are not in order."""
        if hx is None:
            return ()
        states = (hx,) if len(self.widths) == 1 else hx
        if type(states) is not tuple or len(states) != len(self.widths):
            return None
        for state, width in zip(states, self.widths, strict=True):
            if type(state) is not Tensor or state.shape != (len(self.ways), N, width):
                return None
            if state.dtype is not dtype or not state.is_cpu or not state.is_contiguous():
                return None
        return states


def _strides(T: int, N: int, batch_first: bool, reverse: bool) -> tuple[int, int, int]:
    """Row of the first token, and how far the next step and the next sequence are."""
    stride_t, stride_n = (1, T) if batch_first else (N, 1)
    return ((T - 1) * stride_t, -stride_t, stride_n) if reverse else (0, stride_t, stride_n)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _differs(a: Any, b: Any) -> bool:
    return a is not b


def _plain() -> bool:
    """Whether nothing watches, records or transforms what runs."""
    return not (
        _C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or transformed()
        or _C._is_any_autocast_enabled()
        or not unobserved()
    )


def _ways(spec: Spec) -> tuple[_Way, ...]:
    """None at all where the core has no program, or parameters are prepared in torch."""
    cell = spec.cell
    found = recorded(cell, spec.sizes(0).projected)
    if found.why is not None or type(cell).prepare is not Cell.prepare:
        return ()
    ways = []
    for place in spec.sweeps:
        shapes = spec.parameters(place.layer)
        if any(p.blocks > 1 for p in cell.products(place.sizes).values()):
            return ()
        names = [name for key in found.products for name in parameter_names(key)]
        if any(name not in shapes for name in cell.vectors):
            return ()
        plain = tuple(name if name in shapes else None for name in (*names, *cell.vectors))
        full = tuple(None if name is None else name + place.suffix for name in plain)
        program = load(found.text, place.sizes.H, place.sizes.P)
        ways.append(_Way(program, full, plain, place.reverse, place.sizes.I))
    return tuple(ways)


def _add_parameters(
    found: list[Any],
    names: tuple[str | None, ...],
    parameters: dict[str, Any],
    dtype: torch.dtype,
) -> bool:
    """Add a sweep's parameters, None for an absent one, if all are in order."""
    for name in names:
        p: Any = None if name is None else parameters.get(name)
        if name is not None and (
            type(p) not in _KINDS or p.dtype is not dtype or not p.is_contiguous() or not p.is_cpu
        ):
            return False
        found.append(p)
    return True


def _merge(outputs: list[Tensor], merge: str) -> Tensor:
    return torch.cat(outputs, 2) if merge == "concat" else outputs[0] + outputs[1]
