"""Converts the blocks of a chain, except recurrent ones, to nodes: [T, N, width] to rows or [N, ·].

``unrolled.runtime._schema`` defines what each block computes.
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from unrolled.onnx._exporter.graph import FLOATS, INTEGERS, Graph, Value
from unrolled.onnx._exporter.pointwise import scalar
from unrolled.onnx._exporter.sequences import Lengths, sizes_of
from unrolled.runtime._schema import ForecastBlock, LinearBlock, PoolingBlock, ScaleBlock

_AXIS_0 = np.array([0], INTEGERS)

ACTIVATIONS: dict[str, Callable[[Graph, Value], Value]] = {
    "relu": lambda g, x: g.op("Relu", x),
    "tanh": lambda g, x: g.op("Tanh", x),
    "sigmoid": lambda g, x: g.op("Sigmoid", x),
    "softmax": lambda g, x: g.op("Softmax", x, axis=-1),
    "log_softmax": lambda g, x: g.op("LogSoftmax", x, axis=-1),
}


def embedding(g: Graph, table: np.ndarray, tokens: Value, name: str) -> Value:
    """Rows of a table, looked up by token."""
    return g.op("Gather", g.named(table.astype(g.dtype), name), tokens, axis=0)


def linear(g: Graph, x: Value, block: LinearBlock, name: str = "linear") -> Value:
    """W x + b of rows [..., K]."""
    weight = g.named(block.weight.astype(g.dtype).T, f"{name}_weight")
    product = g.op("MatMul", x, weight)
    if block.bias is None:
        return product
    return g.op("Add", product, g.named(block.bias.astype(g.dtype), f"{name}_bias"))


def scale(g: Graph, x: Value, block: ScaleBlock) -> Value:
    """(x - mean) / deviation, in float64."""
    x = g.op("Cast", x, to=TensorProto.DOUBLE)
    scaled = g.op("Div", g.op("Sub", x, block.mean), block.deviation)
    return g.op("Cast", scaled, to=FLOATS[g.dtype])


def final_output(g: Graph, state: Value, directions: int, merge: str) -> Value:
    """[N, ·] from the final output states [L·D, N, width]: those of the top layer, merged."""
    end = np.array([2**31], INTEGERS)
    rows = g.op("Slice", state, np.array([-directions], INTEGERS), end, _AXIS_0)
    if directions == 1:
        return g.op("Squeeze", rows, _AXIS_0)
    if merge == "sum":
        return g.op("ReduceSum", rows, _AXIS_0, keepdims=0)
    return g.op("Reshape", g.op("Transpose", rows, perm=[1, 0, 2]), np.array([0, -1], INTEGERS))


def pooling(g: Graph, y: Value, block: PoolingBlock, lengths: Lengths | None) -> Value:
    """Mean, maximum or attention over the steps y [T, N, width] of each sequence: [N, width].

    For a sequence without a step it is zero.
    """
    zero, lowest = scalar(g, 0), scalar(g, -np.inf)
    inside = None if lengths is None else lengths.inside()
    if block.name == "max":
        if lengths is None:
            return g.op("ReduceMax", y, _AXIS_0, keepdims=0)
        highest = g.op("ReduceMax", g.op("Where", inside, y, lowest), _AXIS_0, keepdims=0)
        return g.op("Where", lengths.empty(), zero, highest)
    if inside is not None:
        y = g.op("Where", inside, y, zero)
    if block.name == "mean":
        total = g.op("ReduceSum", y, _AXIS_0, keepdims=0)
        return g.op("Div", total, _step_count(g, y, lengths))
    assert block.keys is not None
    assert block.query is not None
    scores = linear(g, g.op("Tanh", linear(g, y, block.keys, "keys")), block.query, "query")
    if lengths is not None:
        scores = g.op("Where", inside, scores, lowest)
        scores = g.op("Where", lengths.empty(), zero, scores)
    weights = g.op("Softmax", scores, axis=0)
    return g.op("ReduceSum", g.op("Mul", weights, y), _AXIS_0, keepdims=0)


def _step_count(g: Graph, y: Value, lengths: Lengths | None) -> Value:
    """The number of steps, at least one: [1], or for each sequence [N, 1]."""
    if lengths is None:
        return g.op("Cast", sizes_of(g, y, 0), to=FLOATS[g.dtype])
    steps = g.op("Max", lengths.lengths, np.array([1], INTEGERS))
    return g.op("Cast", g.op("Unsqueeze", steps, np.array([1], INTEGERS)), to=FLOATS[g.dtype])


def forecast(
    g: Graph, changes: Value, x: Value, block: ForecastBlock, lengths: Lengths | None
) -> Value:
    """Convert differences [N, K·targets] from the final values of x [T, N, F] to float64 forecasts
    [N, K, targets] in the units of the data."""
    ends = np.array([block.targets], INTEGERS)
    x = g.op("Slice", x, _AXIS_0, ends, np.array([2], INTEGERS))
    if lengths is None:
        final_values = g.op("Gather", x, np.array(-1, INTEGERS), axis=0)
    else:
        selected = g.op("Where", lengths.final_step(), x, scalar(g, 0))
        final_values = g.op("ReduceSum", selected, _AXIS_0, keepdims=0)
    shape = np.array([0, block.horizon, block.targets], INTEGERS)
    steps = g.op("Reshape", changes, shape)
    values = g.op("Add", steps, g.op("Unsqueeze", final_values, np.array([1], INTEGERS)))
    values = g.op("Cast", values, to=TensorProto.DOUBLE)
    if block.mean is None or block.deviation is None:
        return values
    return g.op("Add", g.op("Mul", values, block.deviation), block.mean)
