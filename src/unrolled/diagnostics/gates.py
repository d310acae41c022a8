"""Gates of any cell, seen while its own `step` runs: every bounded function that it calls.

No equation is written here a second time. Torch tells which functions are called on which tensors,
the frame of `step` tells what the equations call the results. Drawing is left to `pictures`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unrolled.cells import Cell
from unrolled.diagnostics.steps import unroll
from unrolled.nn import Recurrent
from unrolled.spec import LayerSweep

__all__ = ["GateValues", "Saturation", "gate_saturation", "gate_values"]

_BOUNDED = {
    "sigmoid": ("sigmoid", 0.0),
    "sigmoid_": ("sigmoid", 0.0),
    "special_expit": ("sigmoid", 0.0),
    "hardsigmoid": ("hard_sigmoid", 0.0),
    "tanh": ("tanh", -1.0),
    "tanh_": ("tanh", -1.0),
    "hardtanh": ("hard_tanh", -1.0),
    "softsign": ("softsign", -1.0),
}
"""By the name of torch's function: ours, and the least value; the largest is 1."""


@dataclass(frozen=True)
class GateValues:
    """One gate of one layer and direction: `values` [T, N, W], between `least` and 1, in the order
    in which the layer reads. `function` is what bounds them."""

    layer: int
    reverse: bool
    gate: str
    function: str
    least: float
    values: Tensor


@dataclass(frozen=True)
class Saturation:
    """How often each unit of one gate is closed and open.

    `left` and `right` [W]: the share of all (t, n) at which the unit is left- or right-saturated.
    """

    layer: int
    reverse: bool
    gate: str
    function: str
    left: Tensor
    right: Tensor

    @property
    def left_share(self) -> float:
        """The share of all (t, n, unit)."""
        return self.left.mean().item()

    @property
    def right_share(self) -> float:
        """The share of all (t, n, unit)."""
        return self.right.mean().item()


def gate_saturation(
    layer: Recurrent, x: Tensor, hx: Any = None, *, low: float = 0.1, high: float = 0.9
) -> list[Saturation]:
    """How often each gate is left- and right-saturated: below `low` and above `high`.

    A sigmoid that is nearly always below 0.1 or above 0.9 passes nothing or everything, and little
    gradient (Karpathy, Johnson & Fei-Fei 2015). Functions with values in [-1, 1] are brought to
    [0, 1] by (1 + y) / 2 before, so that tanh, which is 2 σ(2x) - 1, has the same measure: its
    bounds are ∓0.8.

    Args:
        x, hx: as `gate_values` takes them.
        low, high: 0 < low < high < 1.

    Raises:
        ValueError: the bounds are out of their range, or a shape does not fit.
    """
    if not 0.0 < low < high < 1.0:
        raise ValueError(f"low, high: wanted 0 < low < high < 1, got {low}, {high}")
    return [_saturation(gate, low, high) for gate in gate_values(layer, x, hx)]


def _saturation(gate: GateValues, low: float, high: float) -> Saturation:
    raised = (gate.values.double() - gate.least) / (1.0 - gate.least)
    flat = raised.flatten(0, 1).cpu()
    left, right = (flat < low).double().mean(0), (flat > high).double().mean(0)
    return Saturation(gate.layer, gate.reverse, gate.gate, gate.function, left, right)


def gate_values(layer: Recurrent, x: Tensor, hx: Any = None) -> list[GateValues]:
    """The values of every sigmoid, tanh, hard sigmoid, hard tanh and softsign in the steps of a
    layer, whatever its cell.

    The name is that of the one gate of `cell.gates` whose products go into the function, unless it
    is applied to a new state; else that of the local variable of `step` that holds the result (`i`
    of a layer-normalised LSTM); else the function's, with the variable that it is applied to if
    that has a name (`tanh(c)`). A second one of a name is `f (2)`. What the step computes without
    rows, such as the sigmoid of a parameter, is no gate. A function hidden from torch (a scripted
    one, an `autograd.Function`) is not seen.

    Args:
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: the states before the first step, as the layer takes them; zeros if None.

    Raises:
        ValueError: a shape does not fit.
    """
    watches: list[tuple[LayerSweep, _Watch]] = []

    def around(place: LayerSweep) -> _Watch:
        watches.append((place, _Watch(layer.cell)))
        return watches[-1][1]

    unroll(layer, x, hx, around)
    return [
        GateValues(place.layer, place.reverse, name, *_BOUNDED[function], torch.stack(values))
        for place, watch in watches
        for (name, function), values in watch.found.items()
    ]


@dataclass(frozen=True)
class _Seen:
    """One call of a bounded function, and the gates whose products go into it."""

    function: str
    argument: Tensor
    result: Tensor
    value: Tensor  # of the result, safe from a step that goes on writing to it
    gates: frozenset[str]


class _Watch(TorchFunctionMode):
    """Sees the bounded functions that a cell's step calls, while steps run within the block."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        steps = [vars(cls)["step"] for cls in type(cell).__mro__ if "step" in vars(cls)]
        self.codes = {step.__code__ for step in steps if hasattr(step, "__code__")}
        self.found: dict[tuple[str, str], list[Tensor]] = {}
        self._depth = 0  # a step may call the step of its base class
        self._seen: list[_Seen] = []
        self._variables: dict[str, Any] = {}
        # By id: a tensor, kept so that its id stays its own, and the gates that it comes from.
        self._origins: dict[int, tuple[Tensor, frozenset[str]]] = {}
        self._before: Callable[..., Any] | None = None

    def __enter__(self) -> "_Watch":
        self._before = sys.getprofile()
        super().__enter__()
        sys.setprofile(self._frame)
        return self

    def __exit__(self, *error: Any) -> None:
        sys.setprofile(self._before)
        super().__exit__(*error)

    def _frame(self, frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_code not in self.codes:
            return
        if event == "call":
            self._depth += 1
            if self._depth == 1:
                self._begin(frame)
        elif event == "return":
            self._variables.update(frame.f_locals)
            self._depth -= 1
            if self._depth == 0:
                self._end(arg if isinstance(arg, tuple) else (arg,))

    def _begin(self, frame: FrameType) -> None:
        self._seen, self._variables, self._origins = [], {}, {}
        x, h = (frame.f_locals[name] for name in frame.f_code.co_varnames[1:3])
        for products in (x, h):
            named = {} if products is None or isinstance(products, Tensor) else vars(products)
            for gate, value in named.items():
                self._origins[id(value)] = value, frozenset({gate})

    def _end(self, states: tuple[Any, ...]) -> None:
        counts: dict[str, int] = {}
        for seen in self._seen:
            name = _name(seen, self._variables, states)
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > 1:
                name = f"{name} ({counts[name]})"
            self.found.setdefault((name, seen.function), []).append(seen.value)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._depth == 0:
            return result
        given = list(_tensors((args, tuple(kwargs.values()))))
        gates = frozenset[str]().union(*map(self._gates, given))
        name = getattr(func, "__name__", "")
        if name in _BOUNDED and not (name == "hardtanh" and _other_bounds(args, kwargs)):
            if result.dim() > 1:
                self._seen.append(_Seen(name, given[0], result, result.clone(), gates))
            gates = frozenset()  # what a gate is applied to is not of that gate
        for tensor in _tensors(result):
            self._origins[id(tensor)] = tensor, gates
        return result

    def _gates(self, tensor: Tensor) -> frozenset[str]:
        return self._origins.get(id(tensor), (tensor, frozenset[str]()))[1]


def _name(seen: _Seen, variables: Mapping[str, Any], states: tuple[Any, ...]) -> str:
    if len(seen.gates) == 1 and not any(seen.argument is state for state in states):
        return next(iter(seen.gates))
    function = _BOUNDED[seen.function][0]
    for name, value in variables.items():
        if value is seen.result:
            return name
    for name, value in variables.items():
        if value is seen.argument:
            return f"{function}({name})"
    return function


def _other_bounds(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a hard tanh is called with bounds that are not -1 and 1."""
    given = {**dict(zip(("min_val", "max_val"), args[1:], strict=False)), **kwargs}
    return (given.get("min_val", -1.0), given.get("max_val", 1.0)) != (-1.0, 1.0)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
