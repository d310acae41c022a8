"""The parts of a chain that are no layers, as nodes: rows [T, N, width] in, the same or [N, ·] out.

What each part is, ``unrolled.runtime.blocks`` says; here it is said in operators of ONNX.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from unrolled.onnx.exporter.graph import FLOATS, INTS, Graph, Value
from unrolled.onnx.exporter.pointwise import number
from unrolled.onnx.exporter.sweep import Lengths, sizes_of

__all__ = ["ACTIVATIONS", "ends", "forecast", "linear", "pooling", "scale"]

_FIRST = np.array([0], INTS)

ACTIVATIONS: dict[str, Callable[[Graph, Value], Value]] = {
    "relu": lambda g, x: g.op("Relu", x),
    "tanh": lambda g, x: g.op("Tanh", x),
    "sigmoid": lambda g, x: g.op("Sigmoid", x),
    "softmax": lambda g, x: g.op("Softmax", x, axis=-1),
    "log_softmax": lambda g, x: g.op("LogSoftmax", x, axis=-1),
}


def linear(g: Graph, x: Value, told: dict[str, Any], name: str = "linear") -> Value:
    """W x + b of rows [..., K]."""
    weight = g.named(told["weight"].astype(g.dtype).T, f"{name}_weight")
    made = g.op("MatMul", x, weight)
    if told["bias"] is None:
        return made
    return g.op("Add", made, g.named(told["bias"].astype(g.dtype), f"{name}_bias"))


def scale(g: Graph, x: Value, told: dict[str, Any]) -> Value:
    """(x - mean) / deviation, in float64."""
    wide = g.op("Cast", x, to=TensorProto.DOUBLE)
    made = g.op("Div", g.op("Sub", wide, told["mean"]), told["deviation"])
    return g.op("Cast", made, to=FLOATS[g.dtype])


def ends(g: Graph, state: Value, directions: int, merge: str) -> Value:
    """[N, ·] from the final output states [L·D, N, width]: those of the last layer, merged."""
    rows = g.op("Slice", state, np.array([-directions], INTS), np.array([2**31], INTS), _FIRST)
    if directions == 1:
        return g.op("Squeeze", rows, _FIRST)
    if merge == "sum":
        return g.op("ReduceSum", rows, _FIRST, keepdims=0)
    return g.op("Reshape", g.op("Transpose", rows, perm=[1, 0, 2]), np.array([0, -1], INTS))


def pooling(g: Graph, y: Value, told: dict[str, Any], lengths: Lengths | None) -> Value:
    """Mean, maximum or attention over the steps y [T, N, width] of each sequence: [N, width].

    Of a sequence without a step it is zero.
    """
    zero, lowest = number(g, 0), number(g, -np.inf)
    inside = None if lengths is None else lengths.inside()
    if told["name"] == "max":
        if lengths is None:
            return g.op("ReduceMax", y, _FIRST, keepdims=0)
        highest = g.op("ReduceMax", g.op("Where", inside, y, lowest), _FIRST, keepdims=0)
        return g.op("Where", lengths.empty(), zero, highest)
    if inside is not None:
        y = g.op("Where", inside, y, zero)
    if told["name"] == "mean":
        total = g.op("ReduceSum", y, _FIRST, keepdims=0)
        return g.op("Div", total, _count(g, y, lengths))
    scores = linear(g, g.op("Tanh", linear(g, y, told["keys"], "keys")), told["query"], "query")
    if lengths is not None:
        scores = g.op("Where", inside, scores, lowest)
        scores = g.op("Where", lengths.empty(), zero, scores)
    weights = g.op("Softmax", scores, axis=0)
    return g.op("ReduceSum", g.op("Mul", weights, y), _FIRST, keepdims=0)


def _count(g: Graph, y: Value, lengths: Lengths | None) -> Value:
    """How many steps there are, one at least: [1], or of each sequence [N, 1]."""
    if lengths is None:
        return g.op("Cast", sizes_of(g, y, 0), to=FLOATS[g.dtype])
    steps = g.op("Max", lengths.ends, np.array([1], INTS))
    return g.op("Cast", g.op("Unsqueeze", steps, np.array([1], INTS)), to=FLOATS[g.dtype])


def forecast(
    g: Graph, changes: Value, known: Value, told: dict[str, Any], lengths: Lengths | None
) -> Value:
    """Changes [N, K·targets] to forecasts [N, K, targets] in float64: from the last value known,
    of [T, N, F], in the data's own units."""
    targets = told["targets"]
    ends = (np.array([targets], INTS), np.array([2], INTS))
    known = g.op("Slice", known, _FIRST, *ends)
    if lengths is None:
        last = g.op("Gather", known, np.array(-1, INTS), axis=0)
    else:
        last = g.op("ReduceSum", g.op("Where", lengths.last(), known, number(g, 0)), _FIRST,
                    keepdims=0)  # fmt: skip
    shape = np.array([0, told["horizon"], targets], INTS)
    made = g.op(
        "Add", g.op("Reshape", changes, shape), g.op("Unsqueeze", last, np.array([1], INTS))
    )
    made = g.op("Cast", made, to=TensorProto.DOUBLE)
    if told["mean"] is None:
        return made
    return g.op("Add", g.op("Mul", made, told["deviation"]), told["mean"])
