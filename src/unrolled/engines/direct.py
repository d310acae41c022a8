"""The shortest way from a layer's tensors to the core: no gradient, no form but the plainest.

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
from unrolled.engines.choose import unobserved
from unrolled.engines.core import forced_build, load, recorded, settings_of
from unrolled.engines.sweep import States
from unrolled.spec import Spec

_C = torch._C
_WIDE = {torch.float32: False, torch.float64: True}
_KINDS = (torch.nn.Parameter, Tensor)
_Numbers = list[int]


@dataclass(frozen=True)
class _Way:
    """One sweep: its program, the full names of its parameters in the core's order (None where one
    is absent), its direction."""

    program: _core.Program
    names: tuple[str | None, ...]
    reverse: bool


class Direct:
    """The stack of a layer without dropout, run without gradient."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.own = type(spec.cell).__module__.startswith("unrolled.cells.")
        self.settings = self._settings()
        self.ways = _ways(spec)

    def __call__(
        self, input: Any, hx: Any, parameters: dict[str, Any], batch_first: bool
    ) -> tuple[Tensor, States] | None:
        """Output and final states [L·D, N, width], or None: go the usual way.

        ``input`` and ``hx`` are what the user passed, ``parameters`` the layer's by full name.
        """
        if type(input) is not Tensor or input.dim() != 3 or not self.ways or not _plain():
            return None
        dtype = input.dtype
        N, T, I = input.shape if batch_first else (input.shape[1], input.shape[0], input.shape[2])  # noqa: E741
        fits = self.spec.input_size == I and T > 0 and N > 0 and input.is_cpu and dtype in _WIDE
        if not fits or any(map(_differs, self.settings, self._settings())):
            return None
        start = self._start(hx, N, dtype)
        weights = [_addresses(way.names, parameters, dtype) for way in self.ways]
        if start is None or None in weights:
            return None
        final = tuple(input.new_empty((len(self.ways), N, w)) for w in self.spec.state_widths)
        ends = _rows(final, N)
        values, D = input.contiguous(), self.spec.num_directions
        outputs: list[Tensor] = []
        for index, way in enumerate(self.ways):
            output = input.new_empty((*input.shape[:2], self.spec.state_widths[0]))
            arrays = [0, 0, 0, 0, values.data_ptr(), values.numel()]
            arrays += (output.data_ptr(), output.numel(), 0, 0)
            arrays += weights[index] or ()
            for address, size, count in (*start, *ends):
                arrays += (address + index * size, count) if address else (0, 0)
            stride_t, stride_n = (1, T) if batch_first else (N, 1)
            base, stride_t = ((T - 1) * stride_t, -stride_t) if way.reverse else (0, stride_t)
            threads = torch.get_num_threads()
            shape = [T, N, values.shape[2], T * N, base, stride_t, stride_n, threads]
            _core.forward(way.program, forced_build.get(), _WIDE[dtype], shape, arrays)
            outputs.append(output)
            if len(outputs) == D:
                values = outputs[0] if D == 1 else _merge(outputs, self.spec.merge)
                outputs = []
        return values, final

    def _settings(self) -> list[Any]:
        """What the programs hold for; the library's classes do not change."""
        cell = self.spec.cell
        if self.own:
            return [value for name, value in vars(cell).items() if name[0] != "_"]
        return settings_of(cell)

    def _start(self, hx: Any, N: int, dtype: torch.dtype) -> list[tuple[int, int, int]] | None:
        """Address, bytes and numbers of a sweep's states; None if they are not in order."""
        widths = self.spec.state_widths
        if hx is None:
            return [(0, 0, 0)] * len(widths)
        states = (hx,) if len(widths) == 1 else hx
        if type(states) is not tuple or len(states) != len(widths):
            return None
        for state, width in zip(states, widths, strict=True):
            if type(state) is not Tensor or state.shape != (len(self.ways), N, width):
                return None
            if state.dtype is not dtype or not state.is_cpu or not state.is_contiguous():
                return None
        return _rows(states, N)


def _differs(a: Any, b: Any) -> bool:
    return a is not b


def _plain() -> bool:
    """Whether nothing watches, records or transforms what runs."""
    return not (
        _C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or _C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
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
        full = [name + place.suffix if name in shapes else None for name in (*names, *cell.vectors)]
        program = load(found.text, place.sizes.H, place.sizes.P)
        ways.append(_Way(program, tuple(full), place.reverse))
    return tuple(ways)


def _addresses(
    names: tuple[str | None, ...], parameters: dict[str, Any], dtype: torch.dtype
) -> _Numbers | None:
    """Of each parameter; None if one is not in order."""
    found: _Numbers = []
    for name in names:
        if name is None:
            found += (0, 0)
            continue
        p: Any = parameters.get(name)
        if type(p) not in _KINDS or p.dtype is not dtype or not p.is_contiguous() or not p.is_cpu:
            return None
        found += (p.data_ptr(), p.numel())
    return found


def _rows(states: States, N: int) -> list[tuple[int, int, int]]:
    return [
        (state.data_ptr(), N * state.shape[2] * state.itemsize, N * state.shape[2])
        for state in states
    ]


def _merge(outputs: list[Tensor], merge: str) -> Tensor:
    return torch.cat(outputs, 2) if merge == "concat" else outputs[0] + outputs[1]
