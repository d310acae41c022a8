"""Rules for operators that reshape, slice, join and transpose.

Operators that only undo the layout of the outputs of RNN, LSTM and GRU add no node to the graph.
"""

import math
import operator
from dataclasses import replace

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from unrolled.onnx._importer import torch_functions
from unrolled.onnx._importer.graph_builder import GraphBuilder, ImportedNode, RuleTable, axes_of
from unrolled.onnx._importer.values import LayerOutput, RefusedError, Value

RULES = RuleTable()
_UNBOUNDED_ENDS = (2**31 - 1, 2**31, 2**63 - 1)
"""The values by which exporters mark a slice that goes to the end."""


def layer_output(b: GraphBuilder, output: LayerOutput) -> Value:
    """A layer's outputs with an axis of directions."""
    node = b.call(
        torch_functions.separate_directions,
        output.merged, output.D, output.swapped, output.directions_last,
    )  # fmt: skip
    return Value(node, layer_output=output, swapped=output.swapped and output.directions_last)


@RULES.register("Transpose")
def _transpose(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, perm = n.input(0), n.attributes.integers("perm")
    if perm is None:
        dims = b.dims(n.proto.input[0])
        if dims is None:
            raise RefusedError(f"{n.label}: perm must be given for an input of unknown rank")
        perm = list(range(len(dims)))[::-1]
    folded = b.fold(n, lambda array: array.permute(perm))
    if folded is not None:
        return [folded]
    if x.fill is not None:
        return [Value(b.call(torch.permute, b.node(x), perm), fill=x.fill)]
    output = x.layer_output
    if output is not None and perm == [0, 2, 1, 3]:
        return [layer_output(b, replace(output, directions_last=not output.directions_last))]
    if perm[:2] == [1, 0] and perm[2:] == list(range(2, len(perm))):
        return [Value(b.stored_node(x), swapped=not x.swapped)]
    return [Value(b.call(torch.permute, b.node(x), perm))]


@RULES.register("Squeeze")
def _squeeze(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, axes = n.input(0), axes_of(n)
    folded = b.fold(n, lambda array: torch_functions.squeeze(array, axes), inputs=[x])
    if folded is not None:
        return [folded]
    output = x.layer_output
    if output is not None and output.D == 1 and axes == [2 if output.directions_last else 1]:
        return [Value(output.merged, swapped=output.swapped)]
    if x.is_single_state and axes == [0]:
        return [Value(b.call(operator.getitem, x.node, -1))]
    return [Value(b.call(torch_functions.squeeze, b.node(x), axes), fill=x.fill)]


@RULES.register("Unsqueeze")
def _unsqueeze(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    axes = axes_of(n)
    if axes is None:
        raise RefusedError(f"{n.label}: axes must be given, got none")
    folded = b.fold(n, lambda array: torch_functions.unsqueeze(array, axes), inputs=n.inputs[:1])
    if folded is not None:
        return [folded]
    x = n.input(0)
    if x.unsqueezed is not None and axes == [0]:
        return [x.unsqueezed]
    node = b.call(torch_functions.unsqueeze, b.node(x), axes)
    rank = len(b.dims(n.proto.input[0]) or ())
    # Steps become a column [T, 1]; a mask [T, N] gets a final axis, [T, N, 1].
    is_range = x.is_range and axes in ([1], [-1])
    lengths = x.lengths if axes in ([-1], [rank]) else None
    return [Value(node, fill=x.fill, is_range=is_range, lengths=lengths)]


@RULES.register("Reshape")
def _reshape(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, shape = n.required_inputs()
    allow_zero = n.attributes.flag("allowzero")

    def reshape(array: Tensor, sizes: Tensor) -> Tensor:
        return torch_functions.reshape(array, sizes, allow_zero)

    folded = b.fold(n, reshape)
    if folded is not None:
        return [folded]
    sizes = n.constant_integers(1)
    output = x.layer_output
    if (
        output is not None
        and output.directions_last
        and _merges_directions(b, n.proto, output, sizes, allow_zero)
    ):
        return [Value(output.merged, swapped=output.swapped)]
    new_shape = b.node(shape) if sizes is None else sizes
    return [Value(b.call(torch_functions.reshape, b.node(x), new_shape, allow_zero), fill=x.fill)]


def _merges_directions(
    b: GraphBuilder,
    node: onnx.NodeProto,
    output: LayerOutput,
    shape: list[int] | None,
    allow_zero: bool,
) -> bool:
    """Whether a Reshape of [T, N, D, H] is certain to give [T, N, D·H].

    The same sizes in another order give other numbers. Where T and N are equal, a shape that
    states them by number may mean either order, and the Reshape stays, bound to these sizes. A
    shape that repeats the sizes of the exporter's example does not bind: the module takes any.
    """
    width = output.D * output.H
    old_dims = b.dims(node.input[0])
    if shape is None:  # computed: inference gives equal names to equal sizes
        new_dims = b.dims(node.output[0])
        if old_dims is None or new_dims is None or len(new_dims) != 3:
            return False
        names = old_dims[:2]
        return names == new_dims[:2] and "" not in names and names[0] != names[1]
    if len(shape) != 3 or shape[2] not in (-1, width):
        return False
    copied = [size == 0 and not allow_zero for size in shape[:2]]
    # One size that is certain leaves one for the other axis, if -1 stands for it.
    one_is_enough = shape[2] == width and -1 in shape
    if all(copied) or (any(copied) and one_is_enough):
        return True
    if old_dims is None or old_dims[0] == old_dims[1]:
        return False
    equal = [copy or size == dim for copy, size, dim in zip(copied, shape, old_dims, strict=False)]
    return all(equal) or (any(equal) and one_is_enough)


@RULES.register("Flatten")
def _flatten(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    axis = n.attributes.integer("axis", 1)
    folded = b.fold(n, lambda array: torch_functions.flatten(array, axis))
    if folded is not None:
        return [folded]
    return [Value(b.call(torch_functions.flatten, b.node(n.input(0)), axis))]


@RULES.register("Concat")
def _concat(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    axis = n.attributes.integer("axis")
    folded = b.fold(n, lambda *parts: torch.cat(parts, axis))
    if folded is not None:
        return [folded]
    inputs = n.required_inputs()
    nodes = [b.node(x) for x in inputs]
    are_states = axis == 0 and all(x.is_single_state for x in inputs)
    return [Value(b.call(torch.cat, nodes, axis), state_rows=tuple(inputs) if are_states else ())]


@RULES.register("Gather")
def _gather(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, indices = n.required_inputs()
    axis = n.attributes.integer("axis", 0)

    def gather(array: Tensor, positions: Tensor) -> Tensor:
        return torch_functions.gather(array, positions, axis)

    def size(array: np.ndarray, positions: np.ndarray) -> int:
        return int(positions.size * (array.size // max(1, array.shape[axis])))

    folded = b.fold(n, gather, size)
    if folded is not None:
        return [folded]
    if x.array is not None and x.array.ndim == 2 and axis == 0 and x.array.dtype.kind == "f":
        weight = b.parameter(x.array, n.label)
        table = nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight)
        node = b.call_module("embedding", table, b.stored_node(indices))
        return [Value(node, swapped=indices.swapped)]
    if indices.array is not None and indices.array.ndim == 0:
        return [_item(b, x, int(indices.array), axis)]
    return [Value(b.call(torch_functions.gather, b.node(x), b.node(indices), axis))]


def _item(b: GraphBuilder, x: Value, index: int, axis: int) -> Value:
    """One step or one row: x[index] along an axis."""
    if x.is_single_state and axis == 0 and index in (0, -1):
        return Value(b.call(operator.getitem, x.node, -1))
    if axis < 0:
        return Value(b.call(torch.select, b.node(x), axis, index), fill=x.fill)
    is_exchanged = x.swapped and axis in (0, 1)
    node, axis = (b.stored_node(x), 1 - axis) if is_exchanged else (b.node(x), axis)
    key = (slice(None),) * axis + (index,) if axis else index
    return Value(b.call(operator.getitem, node, key), fill=x.fill)


@RULES.register("Slice")
def _slice(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x = n.input(0)
    folded = b.fold(n, torch_functions.slice_along)
    if folded is not None:
        return [folded]
    steps: list[int] | None = None
    if "starts" in n.attributes:  # before opset 10
        starts, ends = n.attributes.integers("starts"), n.attributes.integers("ends")
        axes = n.attributes.integers("axes")
    elif any(bound is not None and bound.array is None for bound in n.inputs[1:]):
        nodes = [None if bound is None else b.node(bound) for bound in n.inputs[1:]]
        return [Value(b.call(torch_functions.slice_along, b.node(x), *nodes), fill=x.fill)]
    else:
        starts, ends, axes, steps = (n.constant_integers(index) for index in range(1, 5))
    if starts is None or ends is None or len(starts) != len(ends):
        raise RefusedError(
            f"{n.label}: starts and ends must have the same length, got {starts} and {ends}"
        )
    if axes == [0] and steps in (None, [1]):
        return [_rows(b, x, starts[0], ends[0])]
    if axes is not None:
        axes = [_axis_from_end(b, n, axis) for axis in axes]
    node = b.call(torch_functions.slice_along, b.node(x), starts, ends, axes, steps)
    return [Value(node, fill=x.fill)]


def _axis_from_end(b: GraphBuilder, n: ImportedNode, axis: int) -> int:
    """An axis of the first input, counted from the end where the rank is known."""
    dims = b.dims(n.proto.input[0])
    return axis if dims is None or axis < 0 else axis - len(dims)


def _rows(b: GraphBuilder, x: Value, start: int, end: int) -> Value:
    """x[start:end]."""
    is_unbounded = end in _UNBOUNDED_ENDS
    if x.is_single_state and ((start, end) == (0, 1) or (start in (0, -1) and is_unbounded)):
        return x
    rows = slice(start, None if is_unbounded else end)
    if len(x.state_rows[rows]) == 1:
        return x.state_rows[rows][0]
    unexpanded = None
    if x.unexpanded is not None:
        array = x.unexpanded.array
        unexpanded = (
            Value(array=array[rows])
            if array is not None
            else Value(b.call(operator.getitem, b.node(x.unexpanded), rows))
        )
    node = b.call(operator.getitem, b.node(x), rows)
    return Value(node, fill=x.fill, unexpanded=unexpanded)


@RULES.register("Split")
def _split(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    sizes = n.attributes.integers("split")
    if n.optional_input(1) is not None:
        sizes = n.constant_integers(1)
    axis, count = _axis_from_end(b, n, n.attributes.integer("axis", 0)), len(n.proto.output)

    def split(array: Tensor) -> tuple[Tensor, ...]:
        return torch_functions.split_along(array, sizes, axis, count)

    parts = b.fold_parts(n, split, n.inputs[:1])
    if parts is not None:
        return parts
    node = b.call(torch_functions.split_along, b.node(n.input(0)), sizes, axis, count)
    return [Value(b.call(operator.getitem, node, index)) for index in range(count)]


@RULES.register("Shape")
def _shape(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    start, end = n.attributes.integer("start", 0), n.attributes.optional_integer("end")
    folded = b.fold(n, lambda array: torch_functions.shape_of(array, start, end))
    if folded is not None:
        return [folded]
    return [Value(b.call(torch_functions.shape_of, b.node(n.input(0)), start, end))]


@RULES.register("Expand")
def _expand(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, shape = n.required_inputs()
    fill, sizes = x.fill, n.constant_integers(1)
    if x.array is not None and x.array.size and (x.array == x.array.flat[0]).all():
        fill = float(x.array.flat[0])
    if x.array is not None and sizes is not None:
        expanded_shape = np.broadcast_shapes(x.array.shape, tuple(sizes))
        b.charge(math.prod(expanded_shape), n.label)
        array = np.broadcast_to(x.array, expanded_shape)
        return [Value(array=array, fill=fill, unexpanded=_unexpanded(b, n, x))]
    node = b.call(torch_functions.expand, b.node(x), b.node(shape))
    return [Value(node, fill=fill, unexpanded=_unexpanded(b, n, x))]


def _unexpanded(b: GraphBuilder, n: ImportedNode, x: Value) -> Value | None:
    """A value that is expanded along the second axis alone, as initial states are over the batch;
    else None."""
    dims = b.dims(n.proto.input[0]) if x.array is None else list(x.array.shape)
    expanded = b.dims(n.proto.output[0])
    if dims is None or len(dims) != 3 or (expanded is not None and len(expanded) != 3):
        return None
    rows = expanded[0] if expanded is not None else ""
    if dims[0] == 1 and rows != 1:  # certainly or perhaps one row for several directions
        if not isinstance(rows, int) or x.array is None:
            return None
        b.charge(rows * x.array.size, n.label)
        return Value(array=np.repeat(x.array, rows, 0))
    # A computed state has a row for each sequence already, unless it is declared with one row.
    return None if x.array is None and dims[1] == 1 else x


@RULES.register("ConstantOfShape")
def _constant_of_shape(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    tensor = n.attributes.tensor("value")
    value = np.zeros(1, np.float32) if tensor is None else onnx.numpy_helper.to_array(tensor)
    fill = float(value.reshape(-1)[0])
    sizes = n.constant_integers(0)
    if sizes is not None:
        b.charge(math.prod(sizes), n.label)
        return [Value(array=np.broadcast_to(value.reshape(()), tuple(sizes)), fill=fill)]
    node = b.call(torch_functions.constant_of_shape, b.node(n.input(0)), b.constant(value))
    return [Value(node, fill=fill)]
