"""The shortest way from a layer's tensors to the core, for the plainest form of a call.

A step of a small network takes microseconds, and so does every object made around it. So here all
checks stand in a row, and whatever is not the plainest case goes the usual way, which knows all
forms and has all the error messages.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from unrolled import _core
from unrolled.cells.declaration import parameter_names
from unrolled.engines.native.autograd import BothSweeping, Job, Sweeping, make_job
from unrolled.engines.native.call import Where, forced_build
from unrolled.engines.native.programs import (
    letters,
    load,
    prepared_in_torch,
    recorded,
    refusal,
    settings_of,
)
from unrolled.engines.records import is_unobserved
from unrolled.engines.request import States, merged
from unrolled.spec import Spec

_C = torch._C
_WATCHERS = (
    _C._get_tracing_state,
    _C._len_torch_dispatch_stack,
    _C._len_torch_function_stack,
    _C._are_functorch_transforms_active,
    _C._is_any_autocast_enabled,
)
"""Each says whether something traces, records or transforms what runs; all must deny it."""


@dataclass(frozen=True)
class _Way:
    """One sweep: its program, the full names of its parameters in the core's order (None where one
    is absent), its direction."""

    program: _core.Program
    names: tuple[str | None, ...]
    plain: tuple[str | None, ...]  # the same without the suffix of the sweep
    shapes: list[tuple[int, ...]]
    reverse: bool
    input_size: int
    unused: tuple[
        tuple[str, str], ...
    ]  # plain and full names of parameters that no array is made of


class Direct:
    """The stack of a layer without dropout, on what needs no preparation.

    With ``step`` one step of a cell: input [N, I], states [N, width], parameters without the suffix
    of a layer.
    """

    def __init__(self, spec: Spec, step: bool = False) -> None:
        self.spec = spec
        self.step = step
        self.own = type(spec.cell).__module__.startswith("unrolled.cells.")
        self.settings = settings_of(spec.cell)
        self.ways = _ways(spec, step)
        self.directions = spec.num_directions
        self.jobs: dict[Any, list[Job]] = {}
        merge = None if self.directions == 1 else partial(merged, merge=spec.merge)
        self.core = _core.Direct(
            [
                (way.program, way.names, way.shapes, way.reverse, way.input_size)
                for way in self.ways
            ],
            list(spec.state_widths),
            vars(spec.cell),
            (Tensor, torch.nn.Parameter),
            _WATCHERS,
            merge,
            step,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew by whoever copies it: the core's part is for this cell object alone."""
        return Direct, (self.spec, self.step)

    def __call__(
        self, input: Any, hx: Any, parameters: dict[str, Any], batch_first: bool
    ) -> tuple[Tensor, States] | None:
        """Output and final states, [L·D, N, width] or [N, width], or None: go the usual way.

        ``input`` and ``hx`` are what the user passed, ``parameters`` the layer's by full name.
        """
        if forward_ad._current_level >= 0 or not is_unobserved():
            return None
        # The library's classes do not change; what stands in the cell itself, the core looks at.
        if not self.own and any(map(_differs, self.settings, settings_of(self.spec.cell))):
            return None
        found = self.core(
            input,
            hx,
            parameters,
            batch_first,
            torch.is_grad_enabled(),
            forced_build.get(),
            torch.get_num_threads(),
        )
        if type(found) is not list:
            return found
        T, N = (1, len(input)) if self.step else input.shape[:2]
        size = (N, T, True) if batch_first else (T, N, False)
        start, weights = found
        each = len(self.ways[0].names)
        own = []
        for k, way in enumerate(self.ways):
            # The plain loop, which makes second derivatives, runs the step with all parameters.
            unused = [parameters.get(full) for _, full in way.unused]
            if any(parameter is None for parameter in unused):
                return None
            own.append([p for p in weights[each * k : each * (k + 1)] if p is not None] + unused)
        return self._train(input, start, own, size)

    def _train(
        self, values: Tensor, start: States, weights: list[list[Any]], size: tuple[int, int, bool]
    ) -> tuple[Tensor, States]:
        jobs = self._jobs(size, len(start))
        if len(jobs) == 1:
            output, *ends = Sweeping.apply(jobs[0], values, *start, *weights[0])
            return output, tuple(ends)
        final: list[tuple[Tensor, ...]] = []
        shares = [(*(state[k : k + 1] for state in start), *own) for k, own in enumerate(weights)]
        for k in range(0, len(jobs), self.directions):
            if self.directions == 1:
                values, *ends = Sweeping.apply(jobs[k], values, *shares[k])
                final.append(tuple(ends))
                continue
            pair = tuple(jobs[k : k + 2])
            output, other, *ends = BothSweeping.apply(pair, values, *shares[k], *shares[k + 1])
            half = len(ends) // 2
            final += tuple(ends[:half]), tuple(ends[half:])
            values = merged([output, other], self.spec.merge)
        return values, tuple(torch.cat(parts) for parts in zip(*final, strict=True))

    def _jobs(self, size: tuple[int, int, bool], states: int) -> list[Job]:
        """A job for each sweep; the last few sizes are kept."""
        key = (size, states, forced_build.get())
        known = self.jobs.get(key)  # asked once: another thread may clear them
        if known is not None:
            return known
        if len(self.jobs) >= 16:
            self.jobs.clear()
        T, N, batch_first = size
        lead = () if self.step else (1,)
        jobs = []
        for way, place in zip(self.ways, self.spec.sweeps, strict=True):
            where = Where(T, N, T * N, *_strides(T, N, batch_first, way.reverse))
            names = [name for name in way.plain if name is not None]
            names += [plain for plain, _ in way.unused]
            jobs.append(make_job(self.spec.cell, place.sizes, where, names, states, lead))
        self.jobs[key] = jobs
        return jobs


def _strides(T: int, N: int, batch_first: bool, reverse: bool) -> tuple[int, int, int]:
    """Row of the first token, and how far the next step and the next sequence are."""
    stride_t, stride_n = (1, T) if batch_first else (N, 1)
    return ((T - 1) * stride_t, -stride_t, stride_n) if reverse else (0, stride_t, stride_n)


def _differs(a: Any, b: Any) -> bool:
    return a is not b


def _ways(spec: Spec, step: bool) -> tuple[_Way, ...]:
    """None at all where the core has no program, or parameters are prepared in torch."""
    cell = spec.cell
    found = recorded(cell, spec.sizes(0).projected)
    if refusal(cell, spec.sizes(0)) is not None or prepared_in_torch(cell, spec.sizes(0)):
        return ()
    ways = []
    for place in spec.sweeps:
        shapes = spec.parameters(place.layer)
        names = [name for key in found.products for name in parameter_names(key)]
        plain = tuple(name if name in shapes else None for name in (*names, *cell.vectors))
        suffix = "" if step else place.suffix
        full = tuple(None if name is None else name + suffix for name in plain)
        program = load(found.text, *letters(found.text, place.sizes))
        sizes = [() if name is None else tuple(shapes[name].shape) for name in plain]
        unused = tuple((name, name + suffix) for name in shapes if name not in plain)
        ways.append(_Way(program, full, plain, sizes, place.reverse, place.sizes.I, unused))
    return tuple(ways)
