"""The operators RNN, LSTM and GRU of ONNX as cells.

An ``Operator`` describes the equations of a node, without sizes, directions and weights.
``cell_of`` returns its cell: one of ``unrolled.cells`` with the same equations, else one of the
general cells of this file.
"""

from dataclasses import dataclass, replace

from unrolled import cells
from unrolled.cells import Cell, Gates, State, Value, product, vector
from unrolled.cells import _settings as settings
from unrolled.onnx._activations import RELU, SIGMOID, TANH, Activation, ValueFunction

DEFAULTS = {"RNN": (TANH,), "LSTM": (SIGMOID, TANH, TANH), "GRU": (SIGMOID, TANH)}
"""The default activation functions of each operator, in its order."""


class OperatorLSTM(Cell):
    """The operator LSTM of ONNX, for equations that no cell of ``unrolled.cells`` has.

    i = f(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i ⊙ c_{t-1})    f likewise, with p_f
    g = g(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)                     called c in ONNX
    c_t = forget gate ⊙ c_{t-1} + i ⊙ g
    o = f(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o ⊙ c_t)
    h_t = o ⊙ h(c_t)

    ``f``, ``g`` and ``h`` are the activation functions. Without ``peepholes`` there is no p.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)

    def __init__(
        self,
        f: ValueFunction = SIGMOID,
        g: ValueFunction = TANH,
        h: ValueFunction = TANH,
        peepholes: bool = False,
    ) -> None:
        self.f = settings.function("f", f)
        self.g = settings.function("g", g)
        self.h = settings.function("h", h)
        self.peepholes = peepholes
        for gate in self.gates if peepholes else ():
            if gate != "g":
                setattr(self, f"p_{gate}", vector())

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        i = self.f(self._with_peephole("p_i", x.i + h.i, state.c))
        f = self._forget(x, h, state, i)
        g = self.g(x.g + h.g)
        c = f * state.c + i * g
        o = self.f(self._with_peephole("p_o", x.o + h.o, c))
        return o * self.h(c), c

    def _forget(self, x: Gates, h: Gates, state: State, i: Value) -> Value:
        return self.f(self._with_peephole("p_f", x.f + h.f, state.c))

    def _with_peephole(self, name: str, gate: Value, c: Value) -> Value:
        if not self.peepholes:
            return gate
        peephole: Value = getattr(self, name)
        return gate + peephole * c


class OperatorCoupledLSTM(OperatorLSTM):
    """The operator LSTM with ``input_forget``: its forget gate is 1 - i, without weights."""

    gates = ("i", "g", "o")  # type: ignore[assignment]
    input_gates = ("i",)

    def _forget(self, x: Gates, h: Gates, state: State, i: Value) -> Value:
        return 1 - i


class OperatorGRU(Cell):
    """The operator GRU of ONNX, for equations that neither :class:`unrolled.cells.GRU` nor
    :class:`unrolled.cells.ResetBeforeGRU` has.

    r = f(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                     z likewise
    n = g(W_in x_t + b_in + W_candidate (r ⊙ h_{t-1}) + b_candidate)
    h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}

    ``f`` and ``g`` are the activation functions. With ``linear_before_reset`` the reset gate acts
    after the product: n = g(W_in x_t + b_in + r ⊙ (W_hn h_{t-1} + b_hn)). n is called h in ONNX.
    """

    gates = ("r", "z", "n")
    forget_gates = ("z",)

    def __init__(
        self,
        f: ValueFunction = SIGMOID,
        g: ValueFunction = TANH,
        linear_before_reset: bool = False,
    ) -> None:
        self.f, self.g = settings.function("f", f), settings.function("g", g)
        self.linear_before_reset = linear_before_reset
        if not linear_before_reset:
            self.recurrent = product("r", "z")
            self.candidate = product()

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        r = self.f(x.r + h.r)
        z = self.f(x.z + h.z)
        recurrent = r * h.n if self.linear_before_reset else self.candidate(r * state.h)
        n = self.g(x.n + recurrent)
        return (1 - z) * n + z * state.h


@dataclass(frozen=True)
class Operator:
    """The equations of one direction of a node.

    ``name`` is "RNN", "LSTM" or "GRU"; ``activations`` are in the operator's order, (f), (f, g, h),
    (f, g), without a clip of their own. ``clip`` t bounds the argument of each by [-t, t], but for
    h of the LSTM: the text of the definition leaves that open, ONNX Runtime does not clip c.

    Raises:
        ValueError: a value is not valid for the operator.
    """

    name: str
    activations: tuple[Activation, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False
    peepholes: bool = False

    def __post_init__(self) -> None:
        settings.one_of("operator", self.name, tuple(DEFAULTS))
        defaults = DEFAULTS[self.name]
        activations = tuple(self.activations or defaults)
        if len(activations) != len(defaults):
            raise ValueError(
                f"{self.name}: activations must have {len(defaults)} items, got {len(activations)}"
            )
        object.__setattr__(self, "activations", activations)
        if self.clip is not None:
            object.__setattr__(self, "clip", settings.positive("clip", self.clip))

    def attributes(self, directions: int = 1) -> dict[str, list[str] | list[float] | float | int]:
        """The node's attributes for these equations, without those that have their default.

        α and β are listed as the operators consume them: of each function that has one, in order.
        """
        attributes: dict[str, list[str] | list[float] | float | int] = {}
        if self.activations != DEFAULTS[self.name]:
            functions = self.activations * directions
            attributes["activations"] = [function.name for function in functions]
            if alphas := [f.alpha for f in functions if f.alpha is not None]:
                attributes["activation_alpha"] = alphas
            if betas := [f.beta for f in functions if f.beta is not None]:
                attributes["activation_beta"] = betas
        if self.clip is not None:
            attributes["clip"] = self.clip
        if self.input_forget:
            attributes["input_forget"] = 1
        if self.linear_before_reset:
            attributes["linear_before_reset"] = 1
        return attributes


_CELLS: dict[Operator, type[Cell]] = {
    Operator("LSTM"): cells.LSTM,
    Operator("LSTM", peepholes=True): cells.PeepholeLSTM,
    Operator("LSTM", input_forget=True): cells.CoupledLSTM,
    Operator("GRU", linear_before_reset=True): cells.GRU,
    Operator("GRU"): cells.ResetBeforeGRU,
}
_FUNCTIONS: dict[Activation, ValueFunction] = {
    TANH: cells.tanh,
    RELU: cells.relu,
    SIGMOID: cells.sigmoid,
    Activation("Softsign"): cells.softsign,
    Activation("Softplus"): cells.softplus,
    Activation("HardSigmoid", 1 / 6, 0.5): cells.hard_sigmoid,
}


def cell_of(operator: Operator) -> Cell:
    """The cell with an operator's equations, from ``unrolled.cells`` if it has one."""
    if operator in _CELLS:
        return _CELLS[operator]()
    functions = [replace(function, clip=operator.clip) for function in operator.activations]
    if operator.name == "LSTM":
        f, g, h = (*functions[:2], operator.activations[2])
        cell_class = OperatorCoupledLSTM if operator.input_forget else OperatorLSTM
        return cell_class(f, g, h, operator.peepholes)
    if operator.name == "GRU":
        f, g = functions
        return OperatorGRU(f, g, operator.linear_before_reset)
    return cells.RNN(_FUNCTIONS.get(functions[0], functions[0]))
