"""The gates of any cell, observed while its own `step` runs: every bounded function that it calls.

No equation is repeated here. A torch function mode intercepts the calls of functions, and the
frame of `step` has the names of the results. `_pictures` draws the gates.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unrolled._spec import LayerSweep
from unrolled.cells import Cell
from unrolled.diagnostics._steps import HiddenState, unroll
from unrolled.nn import Recurrent

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
"""For the name of torch's function: our name, and the lower bound; the upper bound is 1."""


@dataclass(frozen=True)
class GateValues:
    """One gate of one layer and direction: `values` [T, N, W], between `lower_bound` and 1, in the
    order in which the layer reads. `function` is the name of the bounded function."""

    layer: int
    reverse: bool
    gate: str
    function: str
    lower_bound: float
    values: Tensor


@dataclass(frozen=True)
class Saturation:
    """How often each unit of one gate is saturated.

    `left` and `right` [W]: the fraction of all (t, n) at which the unit is left- or
    right-saturated.
    """

    layer: int
    reverse: bool
    gate: str
    function: str
    left: Tensor
    right: Tensor

    @property
    def left_fraction(self) -> float:
        """The left-saturated fraction of all (t, n, unit)."""
        return self.left.mean().item()

    @property
    def right_fraction(self) -> float:
        """The right-saturated fraction of all (t, n, unit)."""
        return self.right.mean().item()


def gate_saturation(
    layer: Recurrent, x: Tensor, hx: HiddenState = None, *, low: float = 0.1, high: float = 0.9
) -> list[Saturation]:
    """How often each gate is left- and right-saturated: below `low` and above `high`.

    A sigmoid that is nearly always below 0.1 or above 0.9 passes nothing or everything, and little
    gradient (Karpathy, Johnson & Fei-Fei 2015). Functions with values in [-1, 1] are first mapped
    to [0, 1] by (1 + y) / 2, so that tanh, which is 2 σ(2x) - 1, is measured in the same way: it is
    saturated below -0.8 and above 0.8.

    Args:
        layer: the layers and directions to measure.
        x: the input, as for `gate_values`.
        hx: the initial states, as for `gate_values`.
        low: the bound of left saturation.
        high: the bound of right saturation; 0 < low < high < 1.

    Raises:
        ValueError: a bound is out of range, or a shape is wrong.
    """
    if not 0.0 < low < high < 1.0:
        raise ValueError(
            f"gate_saturation: low and high must satisfy 0 < low < high < 1, got {low} and {high}"
        )
    return [_saturation(gate, low, high) for gate in gate_values(layer, x, hx)]


def _saturation(gate: GateValues, low: float, high: float) -> Saturation:
    scaled = (gate.values.double() - gate.lower_bound) / (1.0 - gate.lower_bound)
    flat = scaled.flatten(0, 1).cpu()
    left, right = (flat < low).double().mean(0), (flat > high).double().mean(0)
    return Saturation(gate.layer, gate.reverse, gate.gate, gate.function, left, right)


def gate_values(layer: Recurrent, x: Tensor, hx: HiddenState = None) -> list[GateValues]:
    """The values of every sigmoid, tanh, hard sigmoid, hard tanh and softsign in the steps of a
    layer, whatever its cell.

    A gate is named, in this order, after: the gate of `cell.gates` whose products are the only ones
    in the function's argument, unless that is a new state; the local variable of `step` that the
    result is assigned to (`i` of a layer-normalized LSTM); the function, with the variable that it
    is applied to, if any (`tanh(c)`). The second gate of the same name is called `f (2)`. Values
    without rows, such as the sigmoid of a parameter, are not gates. Functions that torch function
    modes do not intercept (of a scripted function or an `autograd.Function`) are not included.

    Args:
        layer: the layers and directions to run.
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: the initial states as the layer takes them; zeros if None.

    Raises:
        ValueError: a shape is wrong.
    """
    recorders: list[tuple[LayerSweep, _GateRecorder]] = []

    def context(sweep: LayerSweep) -> _GateRecorder:
        recorder = _GateRecorder(layer.cell)
        recorders.append((sweep, recorder))
        return recorder

    unroll(layer, x, hx, context)
    return [
        GateValues(sweep.layer, sweep.reverse, name, *_BOUNDED[function], torch.stack(values))
        for sweep, recorder in recorders
        for (name, function), values in recorder.values.items()
    ]


@dataclass(frozen=True)
class _BoundedCall:
    """One call of a bounded function, and the gates whose products are in its argument."""

    function: str
    argument: Tensor
    result: Tensor
    value: Tensor  # a copy of the result, which the step may change in place
    gates: frozenset[str]


class _GateRecorder(TorchFunctionMode):
    """Records the calls of bounded functions in a cell's steps that run within the block."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        steps = [vars(cls)["step"] for cls in type(cell).__mro__ if "step" in vars(cls)]
        self.codes = {step.__code__ for step in steps if hasattr(step, "__code__")}
        self.values: dict[tuple[str, str], list[Tensor]] = {}
        self._depth = 0  # above 1 where a step calls the step of its base class
        self._calls: list[_BoundedCall] = []
        self._variables: dict[str, object] = {}
        # By id: a tensor, which must stay alive so that its id is not reused, and its gates.
        self._origins: dict[int, tuple[Tensor, frozenset[str]]] = {}
        self._outer_profile: Callable[..., object] | None = None

    def __enter__(self) -> "_GateRecorder":
        self._outer_profile = sys.getprofile()
        super().__enter__()  # type: ignore[no-untyped-call]
        sys.setprofile(self._frame)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._outer_profile)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _frame(self, frame: FrameType, event: str, arg: object) -> None:
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
        self._calls, self._variables, self._origins = [], {}, {}
        x, h = (frame.f_locals[name] for name in frame.f_code.co_varnames[1:3])
        for products in (x, h):
            has_gates = products is not None and not isinstance(products, Tensor)
            for gate, value in vars(products).items() if has_gates else ():
                self._origins[id(value)] = value, frozenset({gate})

    def _end(self, states: tuple[object, ...]) -> None:
        counts: dict[str, int] = {}
        for call in self._calls:
            name = _gate_name(call, self._variables, states)
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > 1:
                name = f"{name} ({counts[name]})"
            self.values.setdefault((name, call.function), []).append(call.value)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._depth == 0:
            return result
        arguments = list(_tensors((args, tuple(kwargs.values()))))
        gates = frozenset[str]().union(*map(self._gates, arguments))
        name = getattr(func, "__name__", "")
        if name in _BOUNDED and not (name == "hardtanh" and _has_custom_bounds(args, kwargs)):
            assert isinstance(result, Tensor)
            if result.dim() > 1:
                self._calls.append(_BoundedCall(name, arguments[0], result, result.clone(), gates))
            gates = frozenset()  # products with a gate's value do not belong to that gate
        for tensor in _tensors(result):
            self._origins[id(tensor)] = tensor, gates
        return result

    def _gates(self, tensor: Tensor) -> frozenset[str]:
        return self._origins.get(id(tensor), (tensor, frozenset[str]()))[1]


def _gate_name(
    call: _BoundedCall, variables: Mapping[str, object], states: tuple[object, ...]
) -> str:
    if len(call.gates) == 1 and not any(call.argument is state for state in states):
        return next(iter(call.gates))
    function = _BOUNDED[call.function][0]
    for name, value in variables.items():
        if value is call.result:
            return name
    for name, value in variables.items():
        if value is call.argument:
            return f"{function}({name})"
    return function


def _has_custom_bounds(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Whether a hard tanh is called with bounds other than -1 and 1."""
    bounds = {**dict(zip(("min_val", "max_val"), args[1:], strict=False)), **kwargs}
    return (bounds.get("min_val", -1.0), bounds.get("max_val", 1.0)) != (-1.0, 1.0)


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
