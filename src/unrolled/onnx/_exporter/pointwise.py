"""Writes the operations of a program as ONNX operators, by one table for all cells."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from unrolled.onnx._exporter.graph import FLOATS, INTEGERS, Graph, Value
from unrolled.program._operations import COMPARISONS

_OPERATORS: dict[str, str] = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "pow": "Pow",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "relu": "Relu", "softplus": "Softplus", "softsign": "Softsign", "abs": "Abs", "sign": "Sign",
    "minimum": "Min", "maximum": "Max", "lt": "Less", "le": "LessOrEqual", "eq": "Equal",
    "where": "Where",
}  # fmt: skip
_FINAL_AXIS = np.array([-1], INTEGERS)

_COMPOSED: dict[str, Callable[..., Value]] = {
    "ne": lambda g, x, y: g.op("Not", g.op("Equal", x, y)),
    "clip": lambda g, x, low, high: _clip(g, x, low, high),
    # The operator HardSigmoid stores 1/6 in float32, whatever the type of x.
    "hard_sigmoid": lambda g, x: _clip(
        g,
        g.op("Add", g.op("Div", x, scalar(g, 6)), scalar(g, 0.5)),
        scalar(g, 0),
        scalar(g, 1),
    ),
    "hard_tanh": lambda g, x: _clip(g, x, scalar(g, -1), scalar(g, 1)),
    "mean": lambda g, x: g.op("ReduceMean", x, _FINAL_AXIS, keepdims=1),
    "sum": lambda g, x: g.op("ReduceSum", x, _FINAL_AXIS, keepdims=1),
}


def apply(g: Graph, op: str, args: Sequence[Value], masks: Sequence[bool]) -> tuple[Value, bool]:
    """An operation on values [N, width], and whether its result holds truth values.

    ``masks`` says which arguments hold truth values, which ONNX cannot calculate with.
    """
    values = list(args)
    for k, mask in enumerate(masks):
        is_condition = op == "where" and k == 0
        if mask and not is_condition:
            values[k] = g.op("Cast", values[k], to=FLOATS[g.dtype])
        if is_condition and not mask:
            values[k] = g.op("Cast", values[k], to=TensorProto.BOOL)
    result = _COMPOSED[op](g, *values) if op in _COMPOSED else g.op(_OPERATORS[op], *values)
    return result, op in COMPARISONS


def _clip(g: Graph, x: Value, low: Value, high: Value) -> Value:
    """The upper bound wins, as in torch; the operator Clip takes scalars only."""
    return g.op("Min", g.op("Max", x, low), high)


def scalar(g: Graph, value: float) -> np.ndarray:
    """A constant [1], which is shared by all units."""
    return np.array([value], g.dtype)
