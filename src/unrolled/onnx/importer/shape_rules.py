"""What operators that move numbers become in torch: nothing, where they only undo how the operators
RNN, LSTM and GRU give their outputs.
"""

import math
import operator
from dataclasses import replace

import numpy as np
import onnx
import torch
from torch import nn

from unrolled.onnx.importer import torch_functions
from unrolled.onnx.importer.graph_builder import (
    Builder,
    Node,
    RefusedError,
    Rules,
    Separated,
    Value,
    axes_of,
    numbers,
)

__all__ = ["RULES", "separated"]

RULES = Rules()
_ENDS = (2**31 - 1, 2**31, 2**63 - 1)
"""How exporters write that a slice goes to the end."""


@RULES.of("Transpose")
def _transpose(b: Builder, n: Node) -> list[Value]:
    x, perm = n.inputs[0], n.told.get("perm")
    if perm is None:
        dims = b.dims(n.proto.input[0])
        if dims is None:
            raise RefusedError(f"{n.where}: wanted perm, or an input of known rank")
        perm = list(range(len(dims)))[::-1]
    folded = b.fold(n, lambda one: one.permute(perm))
    if folded is not None:
        return [folded]
    if x.fill is not None:
        return [Value(b.call(torch.permute, b.node(x), perm), fill=x.fill)]
    if x.layer is not None and perm == [0, 2, 1, 3]:
        return [separated(b, replace(x.layer, last=not x.layer.last))]
    if perm[:2] == [1, 0] and perm[2:] == list(range(2, len(perm))):
        return [Value(b.raw(x), turned=not x.turned)]
    return [Value(b.call(torch.permute, b.node(x), perm))]


def separated(b: Builder, layer: Separated) -> Value:
    """A layer's outputs with an axis of directions."""
    made = b.call(torch_functions.separate, layer.merged, layer.D, layer.turned, layer.last)
    return Value(made, layer=layer, turned=layer.turned and layer.last)


@RULES.of("Squeeze")
def _squeeze(b: Builder, n: Node) -> list[Value]:
    x, axes = n.inputs[0], axes_of(n)
    folded = b.fold(n, lambda one: torch_functions.squeeze(one, axes), inputs=[x])
    if folded is not None:
        return [folded]
    layer = x.layer
    if layer is not None and layer.D == 1 and axes in ([2 if layer.last else 1],):
        return [Value(layer.merged, turned=layer.turned)]
    if x.state_of_one and axes == [0]:
        return [Value(b.call(operator.getitem, x.node, -1))]
    return [Value(b.call(torch_functions.squeeze, b.node(x), axes), fill=x.fill)]


@RULES.of("Unsqueeze")
def _unsqueeze(b: Builder, n: Node) -> list[Value]:
    axes = axes_of(n)
    if axes is None:
        raise RefusedError(f"{n.where}: wanted axes")
    folded = b.fold(n, lambda one: torch_functions.unsqueeze(one, axes), inputs=n.inputs[:1])
    if folded is not None:
        return [folded]
    x = n.inputs[0]
    if x.lifted is not None and axes == [0]:
        return [x.lifted]
    made = b.call(torch_functions.unsqueeze, b.node(x), axes)
    rank = len(b.dims(n.proto.input[0]) or ())
    # Steps go down a column, [T, 1]; what is below lengths has the last axis added, [T, N, 1].
    column = x.counts and axes in ([1], [-1])
    below = x.until if axes == [-1] or axes == [rank] else None
    return [Value(made, fill=x.fill, counts=column, until=below)]


@RULES.of("Reshape")
def _reshape(b: Builder, n: Node) -> list[Value]:
    x, shape = n.inputs
    keep = bool(n.told.get("allowzero", 0))
    folded = b.fold(n, lambda one, sizes: torch_functions.reshape(one, sizes, keep))
    if folded is not None:
        return [folded]
    sizes = numbers(shape)
    if x.layer is not None and x.layer.last and _merges(b, n.proto, x.layer, sizes, keep):
        return [Value(x.layer.merged, turned=x.layer.turned)]
    wanted = numbers(shape) if shape.array is not None else b.node(shape)
    return [Value(b.call(torch_functions.reshape, b.node(x), wanted, keep), fill=x.fill)]


def _merges(
    b: Builder, node: onnx.NodeProto, layer: Separated, shape: list[int] | None, allowzero: bool
) -> bool:
    """Whether a Reshape of [T, N, D, H] is certain to give [T, N, D·H].

    The same sizes in another order give other numbers. Where T and N are equal, a shape that names
    them by number may mean either order, and the Reshape stays, bound to these sizes. A shape that
    repeats the sizes of the exporter's example is no such bond: the module takes any.
    """
    width = layer.D * layer.H
    before, after = b.dims(node.input[0]), b.dims(node.output[0])
    if shape is None:  # computed: inference gives the same name to what is the same
        known = before is not None and after is not None and len(after) == 3
        names = (before or [])[:2]
        return known and names == after[:2] and "" not in names and names[0] != names[1]  # type: ignore[index]
    if len(shape) != 3 or shape[2] not in (-1, width):
        return False
    copied = [size == 0 and not allowzero for size in shape[:2]]
    if all(copied) or (any(copied) and shape[2] == width and -1 in shape):
        return True
    if before is None or before[0] == before[1]:
        return False
    same = [copy or size == dim for copy, size, dim in zip(copied, shape, before, strict=False)]
    return all(same) or (any(same) and shape[2] == width and -1 in shape)


@RULES.of("Flatten")
def _flatten(b: Builder, n: Node) -> list[Value]:
    axis = n.told.get("axis", 1)
    folded = b.fold(n, lambda one: torch_functions.flatten(one, axis))
    if folded is not None:
        return [folded]
    return [Value(b.call(torch_functions.flatten, b.node(n.inputs[0]), axis))]


@RULES.of("Concat")
def _concat(b: Builder, n: Node) -> list[Value]:
    folded = b.fold(n, lambda *parts: torch.cat(parts, n.told["axis"]))
    if folded is not None:
        return [folded]
    axis = n.told["axis"]
    nodes = [b.node(one) for one in n.inputs]
    rows = axis == 0 and all(one.state_of_one for one in n.inputs)
    return [Value(b.call(torch.cat, nodes, axis), stacked=tuple(n.inputs) if rows else ())]


@RULES.of("Gather")
def _gather(b: Builder, n: Node) -> list[Value]:
    x, at = n.inputs
    axis = n.told.get("axis", 0)
    folded = b.fold(
        n,
        lambda one, indices: torch_functions.pick(one, indices, axis),
        lambda one, indices: indices.size * (one.size // max(1, one.shape[axis])),
    )
    if folded is not None:
        return [folded]
    if x.array is not None and x.array.ndim == 2 and axis == 0 and x.array.dtype.kind == "f":
        weight = b.parameter(x.array, n.where)
        table = nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight)
        return [Value(b.module("embedding", table, b.raw(at)), turned=at.turned)]
    if at.array is not None and at.array.ndim == 0:
        return [_item(b, x, int(at.array), axis)]
    return [Value(b.call(torch_functions.pick, b.node(x), b.node(at), axis))]


def _item(b: Builder, x: Value, k: int, axis: int) -> Value:
    """One step, one row: x[k] along an axis."""
    if x.state_of_one and axis == 0 and k in (0, -1):
        return Value(b.call(operator.getitem, x.node, -1))
    if axis < 0:
        return Value(b.call(torch.select, b.node(x), axis, k), fill=x.fill)
    exchanged = x.turned and axis in (0, 1)
    raw, axis = (b.raw(x), 1 - axis) if exchanged else (b.node(x), axis)
    index = (slice(None),) * axis + (k,) if axis else k
    return Value(b.call(operator.getitem, raw, index), fill=x.fill)


@RULES.of("Slice")
def _slice(b: Builder, n: Node) -> list[Value]:
    x = n.inputs[0]
    folded = b.fold(n, torch_functions.slices)
    if folded is not None:
        return [folded]
    if "starts" in n.told:  # before opset 10
        known = [list(n.told[name]) for name in ("starts", "ends")] + [n.told.get("axes"), None]
    elif any(one is not None and one.array is None for one in n.inputs[1:]):
        nodes = [None if one is None else b.node(one) for one in n.inputs[1:]]
        return [Value(b.call(torch_functions.slices, b.node(x), *nodes), fill=x.fill)]
    else:
        known = [numbers(one) for one in n.inputs[1:]] + [None] * (5 - len(n.inputs))
    starts, ends, axes, strides = (one if one is None else list(one) for one in known)
    if starts is None or ends is None or len(starts) != len(ends):
        raise RefusedError(f"{n.where}: wanted as many ends as starts")
    if axes == [0] and strides in (None, [1]):
        return [_rows(b, x, starts[0], ends[0])]
    if axes is not None:
        axes = [_from_end(b, n, axis) for axis in axes]
    return [
        Value(b.call(torch_functions.slices, b.node(x), starts, ends, axes, strides), fill=x.fill)
    ]


def _from_end(b: Builder, n: Node, axis: int) -> int:
    """An axis of the first input, counted from the last one where the rank is known."""
    dims = b.dims(n.proto.input[0])
    return axis if dims is None or axis < 0 else axis - len(dims)


def _rows(b: Builder, x: Value, start: int, end: int) -> Value:
    """x[start:end]."""
    if x.state_of_one and (start, end) in ((0, 1), *((k, e) for k in (0, -1) for e in _ENDS)):
        return x
    wanted = slice(start, None if end in _ENDS else end)
    if len(x.stacked[wanted]) == 1:
        return x.stacked[wanted][0]
    narrow = None
    if x.narrow is not None:
        array = x.narrow.array
        narrow = (
            Value(array=array[wanted])
            if array is not None
            else Value(b.call(operator.getitem, b.node(x.narrow), wanted))
        )
    return Value(b.call(operator.getitem, b.node(x), wanted), fill=x.fill, narrow=narrow)


@RULES.of("Split")
def _split(b: Builder, n: Node) -> list[Value]:
    sizes = n.told.get("split")
    if len(n.inputs) > 1 and n.inputs[1] is not None:
        sizes = numbers(n.inputs[1])
    axis, count = _from_end(b, n, n.told.get("axis", 0)), len(n.proto.output)
    folded = b.fold(
        n, lambda one: torch_functions.split_(one, sizes, axis, count), inputs=n.inputs[:1]
    )
    if folded is not None:
        return list(folded)
    made = b.call(torch_functions.split_, b.node(n.inputs[0]), sizes, axis, count)
    return [Value(b.call(operator.getitem, made, k)) for k in range(len(n.proto.output))]


@RULES.of("Shape")
def _shape(b: Builder, n: Node) -> list[Value]:
    start, end = n.told.get("start", 0), n.told.get("end")
    folded = b.fold(n, lambda one: torch_functions.shape_of(one, start, end))
    if folded is not None:
        return [folded]
    return [Value(b.call(torch_functions.shape_of, b.node(n.inputs[0]), start, end))]


@RULES.of("Expand")
def _expand(b: Builder, n: Node) -> list[Value]:
    x, shape = n.inputs
    fill, sizes = x.fill, numbers(shape)
    if x.array is not None and x.array.size and (x.array == x.array.flat[0]).all():
        fill = float(x.array.flat[0])
    if x.array is not None and sizes is not None:
        whole = math.prod(np.broadcast_shapes(x.array.shape, tuple(sizes)))
        b.take(whole, n.where)
        array = np.broadcast_to(x.array, np.broadcast_shapes(x.array.shape, tuple(sizes)))
        return [Value(array=array, fill=fill, narrow=_narrow(b, n, x))]
    made = b.call(torch_functions.expand, b.node(x), b.node(shape))
    return [Value(made, fill=fill, narrow=_narrow(b, n, x))]


def _narrow(b: Builder, n: Node, x: Value) -> Value | None:
    """What was expanded along the second axis alone, as initial states are over the batch."""
    before = b.dims(n.proto.input[0]) if x.array is None else list(x.array.shape)
    after = b.dims(n.proto.output[0])
    if before is None or len(before) != 3 or (after is not None and len(after) != 3):
        return None
    rows = after[0] if after is not None else ""
    if before[0] == 1 and rows != 1:  # one row for several layers or directions, or perhaps so
        if not isinstance(rows, int) or x.array is None:
            return None
        b.take(rows * x.array.size, n.where)
        return Value(array=np.repeat(x.array, rows, 0))
    # A given state has a row for each sequence already, unless its declaration says one row.
    return None if x.array is None and before[1] == 1 else x


@RULES.of("ConstantOfShape")
def _filled(b: Builder, n: Node) -> list[Value]:
    value = np.zeros(1, np.float32)
    if "value" in n.told:
        value = onnx.numpy_helper.to_array(n.told["value"])
    sizes = numbers(n.inputs[0])
    if sizes is not None:
        b.take(math.prod(sizes), n.where)
        array = np.broadcast_to(value.reshape(()), tuple(sizes))
        return [Value(array=array, fill=float(value.reshape(-1)[0]))]
    made = b.call(torch_functions.constant_of_shape, b.node(n.inputs[0]), b.constant(value))
    return [Value(made, fill=float(value.reshape(-1)[0]))]
