"""The operations of a program as operators of ONNX: one table, nothing of any cell."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from unrolled.onnx.exporter.graph import FLOATS, INTS, Graph, Value
from unrolled.program.operations import COMPARISONS

__all__ = ["apply", "number"]

_SAME: dict[str, str] = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "pow": "Pow",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "relu": "Relu", "softplus": "Softplus", "softsign": "Softsign", "abs": "Abs", "sign": "Sign",
    "minimum": "Min", "maximum": "Max", "lt": "Less", "le": "LessOrEqual", "eq": "Equal",
    "where": "Where",
}  # fmt: skip
_UNITS = np.array([-1], INTS)

_BUILT: dict[str, Callable[..., Value]] = {
    "ne": lambda g, x, y: g.op("Not", g.op("Equal", x, y)),
    "clip": lambda g, x, low, high: _clip(g, x, low, high),
    # HardSigmoid keeps its 1/6 in float32, whatever the numbers are in.
    "hard_sigmoid": lambda g, x: _clip(
        g,
        g.op("Add", g.op("Div", x, number(g, 6)), number(g, 0.5)),
        number(g, 0),
        number(g, 1),
    ),
    "hard_tanh": lambda g, x: _clip(g, x, number(g, -1), number(g, 1)),
    "mean": lambda g, x: g.op("ReduceMean", x, _UNITS, keepdims=1),
    "sum": lambda g, x: g.op("ReduceSum", x, _UNITS, keepdims=1),
}


def apply(g: Graph, op: str, args: Sequence[Value], masks: Sequence[bool]) -> tuple[Value, bool]:
    """An operation on values [N, width], and whether it holds truth values.

    ``masks`` says which arguments hold truth values: ONNX calculates with none of them.
    """
    values = list(args)
    chosen = op == "where"
    for k, mask in enumerate(masks):
        condition = chosen and k == 0
        if mask and not condition:
            values[k] = g.op("Cast", values[k], to=FLOATS[g.dtype])
        if condition and not mask:
            values[k] = g.op("Cast", values[k], to=TensorProto.BOOL)
    made = _BUILT[op](g, *values) if op in _BUILT else g.op(_SAME[op], *values)
    return made, op in COMPARISONS


def _clip(g: Graph, x: Value, low: Value, high: Value) -> Value:
    """The upper bound wins, as in torch; the operator Clip takes scalars only."""
    return g.op("Min", g.op("Max", x, low), high)


def number(g: Graph, value: float) -> np.ndarray:
    """A constant [1], which is shared by all units."""
    return np.array([value], g.dtype)
