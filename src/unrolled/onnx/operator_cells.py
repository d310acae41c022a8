"""The operators RNN, LSTM and GRU of ONNX as cells, and what of our cells they can say.

An ``Operator`` is what a node says apart from sizes, directions and weights. ``cell_of`` gives its
cell: one of ``unrolled.cells`` where it is one, else the general ones of this file.
Which programs are which operator's is in ``recognise``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, product, settings, vector

__all__ = [
    "ACTIVATIONS",
    "DEFAULTS",
    "Activation",
    "Operator",
    "OperatorCoupledLSTM",
    "OperatorGRU",
    "OperatorLSTM",
    "cell_of",
]


@dataclass(frozen=True)
class _Kind:
    """One activation function of the operators: f(x, α, β), and what α and β are unless given;
    None: it has none; "wanted": it has one, without a default."""

    function: Callable[[Any, Any, Any], Any]
    alpha: float | str | None = None
    beta: float | str | None = None


ACTIVATIONS: dict[str, _Kind] = {
    "Relu": _Kind(lambda x, a, b: cells.relu(x)),
    "Tanh": _Kind(lambda x, a, b: cells.tanh(x)),
    "Sigmoid": _Kind(lambda x, a, b: cells.sigmoid(x)),
    "Affine": _Kind(lambda x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": _Kind(lambda x, a, b: cells.where(x >= 0, x, a * x), 0.01),
    "ThresholdedRelu": _Kind(lambda x, a, b: cells.where(x >= a, x, 0.0), 1.0),
    "ScaledTanh": _Kind(lambda x, a, b: a * cells.tanh(b * x), "wanted", "wanted"),
    "HardSigmoid": _Kind(lambda x, a, b: cells.clip(a * x + b, 0.0, 1.0), 0.2, 0.5),
    # exp of what is not selected must not overflow: its slope would be inf times 0.
    "Elu": _Kind(
        lambda x, a, b: cells.where(x >= 0, x, a * (cells.exp(cells.minimum(x, 0.0)) - 1)), 1.0
    ),
    "Softsign": _Kind(lambda x, a, b: cells.softsign(x)),
    "Softplus": _Kind(lambda x, a, b: cells.softplus(x)),
}
"""All that the operators' definition names."""


@dataclass(frozen=True)
class Activation:
    """An activation function of the operators, on the arrays of any library.

    ``name`` is one of ``ACTIVATIONS``; ``alpha`` and ``beta``, for those that have them, are by
    default what ONNX says; ScaledTanh has no defaults. With ``clip`` t it is f(min(max(x, -t), t)).

    Raises:
        ValueError: the name is unknown, or α or β is missing, not finite, or of no use.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        settings.one_of("activation", self.name, tuple(ACTIVATIONS))
        kind = ACTIVATIONS[self.name]
        for letter, default in (("alpha", kind.alpha), ("beta", kind.beta)):
            given = getattr(self, letter)
            if given is None:
                given = default
            elif default is None:
                raise ValueError(f"{letter} must not be given: {self.name} has none, got {given!r}")
            if given == "wanted":
                raise ValueError(f"{letter} must be given: {self.name} has no default")
            if given is not None:
                object.__setattr__(self, letter, settings.number(letter, given))
        if self.clip is not None:
            object.__setattr__(self, "clip", settings.positive("clip", self.clip))

    @property
    def __name__(self) -> str:
        numbers = {"alpha": self.alpha, "beta": self.beta, "clip": self.clip}
        shown = ", ".join(f"{k}={v:g}" for k, v in numbers.items() if v is not None)
        return f"{self.name}({shown})" if shown else self.name

    def __call__(self, x: Any) -> Any:
        if self.clip is not None:
            x = cells.clip(x, -self.clip, self.clip)
        return ACTIVATIONS[self.name].function(x, self.alpha, self.beta)


SIGMOID, TANH, RELU = (Activation(name) for name in ("Sigmoid", "Tanh", "Relu"))
DEFAULTS = {"RNN": (TANH,), "LSTM": (SIGMOID, TANH, TANH), "GRU": (SIGMOID, TANH)}
"""The activation functions of each operator, in its order, unless others are given."""


class OperatorLSTM(Cell):
    """The operator LSTM of ONNX, for what :class:`unrolled.cells.LSTM` and its family do not say.

    i = f(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i ⊙ c_{t-1})    forget gate, p_f, alike
    g = g(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)                     ONNX says c for it
    c_t = forget gate ⊙ c_{t-1} + i ⊙ g
    o = f(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o ⊙ c_t)
    h_t = o ⊙ h(c_t)

    ``f``, ``g``, ``h`` are the three activation functions. Without ``peepholes`` there are no p.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)

    def __init__(
        self,
        f: Callable[[Any], Any] = SIGMOID,
        g: Callable[[Any], Any] = TANH,
        h: Callable[[Any], Any] = TANH,
        peepholes: bool = False,
    ) -> None:
        self.f = settings.function("f", f)
        self.g = settings.function("g", g)
        self.h = settings.function("h", h)
        self.peepholes = peepholes
        for gate in self.gates if peepholes else ():
            if gate != "g":
                setattr(self, f"p_{gate}", vector())

    def step(self, x: Any, h: Any, state: Any) -> Any:
        i = self.f(self._seen("p_i", x.i + h.i, state.c))
        f = self._forget(x, h, state, i)
        g = self.g(x.g + h.g)
        c = f * state.c + i * g
        o = self.f(self._seen("p_o", x.o + h.o, c))
        return o * self.h(c), c

    def _forget(self, x: Any, h: Any, state: Any, i: Any) -> Any:
        return self.f(self._seen("p_f", x.f + h.f, state.c))

    def _seen(self, peephole: str, gate: Any, c: Any) -> Any:
        return gate + getattr(self, peephole) * c if self.peepholes else gate


class OperatorCoupledLSTM(OperatorLSTM):
    """The operator LSTM with ``input_forget``: its forget gate is 1 - i, and has no weights."""

    gates = ("i", "g", "o")  # type: ignore[assignment]
    input_gates = ("i",)

    def _forget(self, x: Any, h: Any, state: Any, i: Any) -> Any:
        return 1 - i


class OperatorGRU(Cell):
    """The operator GRU of ONNX, for what :class:`unrolled.cells.GRU` and
    :class:`unrolled.cells.ResetBeforeGRU` do not say.

    r = f(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                     z alike
    n = g(W_in x_t + b_in + W_candidate (r ⊙ h_{t-1}) + b_candidate)
    h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}

    ``f`` and ``g`` are the two activation functions. With ``linear_before_reset`` the reset acts
    behind the product: n = g(W_in x_t + b_in + r ⊙ (W_hn h_{t-1} + b_hn)). ONNX says h for n.
    """

    gates = ("r", "z", "n")
    forget_gates = ("z",)

    def __init__(
        self,
        f: Callable[[Any], Any] = SIGMOID,
        g: Callable[[Any], Any] = TANH,
        linear_before_reset: bool = False,
    ) -> None:
        self.f, self.g = settings.function("f", f), settings.function("g", g)
        self.linear_before_reset = linear_before_reset
        if not linear_before_reset:
            self.recurrent = product("r", "z")
            self.candidate = product()

    def step(self, x: Any, h: Any, state: Any) -> Any:
        r = self.f(x.r + h.r)
        z = self.f(x.z + h.z)
        inner = r * h.n if self.linear_before_reset else self.candidate(r * state.h)
        n = self.g(x.n + inner)
        return (1 - z) * n + z * state.h


@dataclass(frozen=True)
class Operator:
    """What a node of one direction says of its equations.

    ``kind`` is "RNN", "LSTM" or "GRU"; ``activations`` are in the operator's order, (f), (f, g, h),
    (f, g), without a clip of their own. ``clip`` t bounds what goes into each by [-t, t], but for
    h of the LSTM: the definition does not say so in words, but c is left as it is by ONNX Runtime.

    Raises:
        ValueError: a value does not fit the operator.
    """

    kind: str
    activations: tuple[Activation, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False
    peepholes: bool = False

    def __post_init__(self) -> None:
        settings.one_of("operator", self.kind, tuple(DEFAULTS))
        usual = DEFAULTS[self.kind]
        found = self.activations or usual
        if len(found) != len(usual):
            raise ValueError(
                f"activations of {self.kind}: wanted {len(usual)} of them, got {len(found)}"
            )
        object.__setattr__(self, "activations", tuple(found))
        if self.clip is not None:
            object.__setattr__(self, "clip", settings.positive("clip", self.clip))

    def attributes(self, directions: int = 1) -> dict[str, Any]:
        """The node's attributes that say so; those that are as by default are left out.

        α and β are listed as the operators consume them: of each function that has one, in order.
        """
        found: dict[str, Any] = {}
        if self.activations != DEFAULTS[self.kind]:
            repeated = self.activations * directions
            found["activations"] = [one.name for one in repeated]
            for letter in ("alpha", "beta"):
                numbers = [getattr(one, letter) for one in repeated]
                if numbers := [one for one in numbers if one is not None]:
                    found[f"activation_{letter}"] = numbers
        if self.clip is not None:
            found["clip"] = self.clip
        for name in ("input_forget", "linear_before_reset"):
            if getattr(self, name):
                found[name] = 1
        return found


_CELLS: dict[Operator, type[Cell]] = {
    Operator("LSTM"): cells.LSTM,
    Operator("LSTM", peepholes=True): cells.PeepholeLSTM,
    Operator("LSTM", input_forget=True): cells.CoupledLSTM,
    Operator("GRU", linear_before_reset=True): cells.GRU,
    Operator("GRU"): cells.ResetBeforeGRU,
}
_FUNCTIONS: dict[Activation, Callable[[Any], Any]] = {
    TANH: cells.tanh,
    RELU: cells.relu,
    SIGMOID: cells.sigmoid,
    Activation("Softsign"): cells.softsign,
    Activation("Softplus"): cells.softplus,
    Activation("HardSigmoid", 1 / 6, 0.5): cells.hard_sigmoid,
}


def cell_of(operator: Operator) -> Cell:
    """The cell whose equations are an operator's; one of ``unrolled.cells`` where it is one."""
    if operator in _CELLS:
        return _CELLS[operator]()
    functions = [replace(one, clip=operator.clip) for one in operator.activations]
    if operator.kind == "LSTM":
        f, g, h = (*functions[:2], operator.activations[2])
        kind = OperatorCoupledLSTM if operator.input_forget else OperatorLSTM
        return kind(f, g, h, operator.peepholes)
    if operator.kind == "GRU":
        f, g = functions
        return OperatorGRU(f, g, operator.linear_before_reset)
    return cells.RNN(_FUNCTIONS.get(functions[0], functions[0]))
