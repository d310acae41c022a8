"""Shapes of the values of a graph, inferred node by node from the inputs and the constants.

A size is a number, the name of a free dimension, or "" if it is unknown; None is a shape of unknown
rank. The shapes that a file declares for intermediate values are never read, and the work is
bounded by the length of the file.
"""

from collections.abc import Callable

import numpy as np
import onnx

from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.onnx._importer import shape_functions
from unrolled.onnx._importer.attributes import Attributes
from unrolled.onnx._importer.shape_functions import Dims, Shape, broadcast

MAX_RANK = 16
MAX_SIZE = 2**63 - 1
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_SAME_SHAPE = {
    "Relu", "Tanh", "Sigmoid", "Exp", "Log", "Sqrt", "Neg", "Abs", "Not", "Softplus", "Softsign",
    "Sign", "Identity", "Dropout", "Softmax", "LogSoftmax", "Cast", "CastLike", "HardSigmoid",
    "LeakyRelu", "ThresholdedRelu", "Elu",
}  # fmt: skip
_BROADCAST = {
    "Add", "Sub", "Mul", "Div", "Pow", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal",
    "And", "Or", "Where", "Max", "Min",
}  # fmt: skip
_SAME_TYPE = {
    "Identity", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Flatten",
    "Transpose", "Expand", "Split", "Range", "Neg", "Abs", "Add", "Sub", "Mul", "Div", "Max", "Min",
    "ReduceSum", "ReduceMax",
}  # fmt: skip
_INTEGER_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b if a >= 0 < b else int(a / b),
}  # fmt: skip


class ShapeInference:
    """The shape of each value, which values hold integers, and the numbers of those that are
    computed from sizes."""

    def __init__(self) -> None:
        self.dims: dict[str, Dims | None] = {}
        self.integer_values: set[str] = set()
        self._computed_sizes: dict[str, Dims] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def add_input(self, info: onnx.ValueInfoProto) -> None:
        """Add an input of the graph with its declared shape and type."""
        tensor_type = info.type.tensor_type
        dims: Dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor_type.shape.dim
        ]
        dims = ["" if isinstance(size, int) and size < 0 else size for size in dims]
        self.dims[info.name] = dims if tensor_type.HasField("shape") else None
        if tensor_type.elem_type in _INTEGERS:
            self.integer_values.add(info.name)

    def add_constant(self, name: str, array: np.ndarray) -> None:
        """Add a constant."""
        self.dims[name] = list(array.shape)
        self._arrays[name] = array
        if array.dtype.kind == "i" and array.dtype.itemsize >= 4:
            self.integer_values.add(name)

    def infer(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        """Infer the outputs of a node."""
        try:
            shapes = self._output_shapes(node, attributes)
        except CORRUPT_FILE_ERRORS:  # a contradiction, which the node's rule will report
            shapes = []
        for name, dims in zip(node.output, shapes, strict=False):
            self.dims[name] = dims if dims is None or len(dims) <= MAX_RANK else None
        self._infer_type(node, attributes)
        try:
            sizes = self._output_sizes(node, attributes)
        except CORRUPT_FILE_ERRORS:
            sizes = None
        if sizes is not None and self._is_integer_row(node.output[0], len(sizes)):
            self._computed_sizes[node.output[0]] = sizes

    def sizes(self, name: str) -> Dims | None:
        """The integers of a constant or of a value computed from sizes."""
        array = self._arrays.get(name)
        if array is None:
            return self._computed_sizes.get(name)
        if array.dtype.kind != "i" or array.ndim > 1 or array.size > MAX_RANK:
            return None
        return [int(item) for item in array.reshape(-1)]

    def _is_integer_row(self, name: str, count: int) -> bool:
        """Whether a value is an integer or a row of ``count`` integers."""
        dims = self.dims.get(name)
        if dims is None or name not in self.integer_values or count > MAX_RANK:
            return False
        return len(dims) == 0 or (len(dims) == 1 and dims[0] in (count, ""))

    def _infer_type(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        op, names = node.op_type, node.input
        is_integer = op == "Shape" or (op in _SAME_TYPE and names[0] in self.integer_values)
        is_integer |= op == "Where" and names[-1] in self.integer_values
        is_integer |= op == "Cast" and attributes.get("to") in _INTEGERS
        if op == "ConstantOfShape":
            tensor = attributes.tensor("value")
            is_integer |= tensor is not None and tensor.data_type in _INTEGERS
        if is_integer:
            self.integer_values.update(node.output)

    def _output_sizes(self, node: onnx.NodeProto, attributes: Attributes) -> Dims | None:
        """The integers of the first output, if it is computed from sizes."""
        op, names = node.op_type, node.input
        if op == "Shape":
            dims = self.dims.get(names[0])
            return None if dims is None else shape_functions.shape_range(dims, attributes)
        if op == "Concat":
            parts = [self.sizes(name) for name in names[:MAX_RANK]]
            return None if None in parts else [size for part in parts for size in part or ()]
        row = self.sizes(names[0]) if names else None
        if row is None:
            return None
        if op in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"):
            return row
        if op == "Gather":
            indices = self.sizes(names[1])
            return None if indices is None else [row[int(k)] for k in indices]
        if op == "Slice":
            start, end, axes, step = self._slice_bounds(node, attributes)
            return row[start[0] : end[0] : step[0]] if axes in ([0], [-1]) else None
        if op in _INTEGER_ARITHMETIC:
            return _calculated(op, row, self.sizes(names[1]))
        return None

    def _output_shapes(self, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        op, count = node.op_type, len(node.output)
        if op in _BROADCAST:
            return [broadcast([self.dims.get(name) for name in node.input])]
        if op == "ConstantOfShape":
            return [self.sizes(node.input[0])]
        if op == "Range":
            return [[""]]
        x = self.dims.get(node.input[0]) if node.input else None
        if x is None:
            return [None] * count
        if op in _SAME_SHAPE:
            return [list(x)] * count
        if op in _SHAPE_RULES:
            return _SHAPE_RULES[op](self, x, node, attributes)
        return [None] * count

    def _axes(self, node: onnx.NodeProto, attributes: Attributes) -> list[int] | None:
        axes = attributes.integers("axes")
        if axes is not None:
            return axes
        if len(node.input) < 2 or not node.input[1]:
            return None
        return self._known_integers(node.input[1])

    def _known_integers(self, name: str) -> list[int]:
        sizes = self.sizes(name)
        if sizes is None:
            raise ValueError(f"{name!r} must be a constant or computed from sizes, got neither")
        return [int(size) for size in sizes]

    def _slice_bounds(
        self, node: onnx.NodeProto, attributes: Attributes
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Starts, ends, axes and steps of a Slice."""
        steps: list[int] | None = None
        if "starts" in attributes:  # before opset 10
            starts, ends = attributes.integers("starts") or [], attributes.integers("ends") or []
            axes = attributes.integers("axes")
        else:
            names = [*node.input[1:], "", ""]
            starts, ends = self._known_integers(names[0]), self._known_integers(names[1])
            axes = self._known_integers(names[2]) if names[2] else None
            steps = self._known_integers(names[3]) if names[3] else None
        axes = list(range(len(starts))) if axes is None else axes
        return starts, ends, axes, [1] * len(starts) if steps is None else steps

    def _squeeze(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        return [shape_functions.squeeze(x, self._axes(node, attributes))]

    def _unsqueeze(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        axes = self._axes(node, attributes) or []
        if len(x) + len(axes) > MAX_RANK:
            return [None]
        return [shape_functions.unsqueeze(x, axes)]

    def _reshape(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        shape = self.sizes(node.input[1])
        if shape is not None:
            return [shape_functions.reshape(x, shape, attributes.flag("allowzero"))]
        dims = self.dims.get(node.input[1])
        if dims is None or len(dims) != 1 or not isinstance(dims[0], int):
            return [None]
        return [[""] * min(dims[0], MAX_RANK + 1)]

    def _concat(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        axis = attributes.integer("axis")
        return [shape_functions.concat(x, [self.dims.get(name) for name in node.input], axis)]

    def _gather(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        indices, axis = self.dims.get(node.input[1]), attributes.integer("axis", 0) % len(x)
        return [None if indices is None else [*x[:axis], *indices, *x[axis + 1 :]]]

    def _slice(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        try:
            bounds = self._slice_bounds(node, attributes)
        except ValueError:
            return [[""] * len(x)]
        return [shape_functions.slice_along(x, *bounds)]

    def _split(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        axis, count = attributes.integer("axis", 0) % len(x), len(node.output)
        attribute = attributes.integers("split")
        sizes: Dims | None = None if attribute is None else [*attribute]
        if len(node.input) > 1 and node.input[1]:
            sizes = self.sizes(node.input[1])
        elif sizes is None:
            sizes = shape_functions.equal_parts(x[axis], count)
        return [[*x[:axis], part, *x[axis + 1 :]] for part in sizes or [""] * count]

    def _expand(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        return [broadcast([x, self.sizes(node.input[1])])]

    def _matmul(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        return [shape_functions.matmul(x, self.dims.get(node.input[1]))]

    def _gemm(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        y = self.dims.get(node.input[1])
        rows = x[1 if attributes.flag("transA") else 0]
        return [None if y is None else [rows, y[0 if attributes.flag("transB") else 1]]]

    def _reduce(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        axes = self._axes(node, attributes)
        return [shape_functions.reduce(x, axes, attributes.flag("keepdims", True))]

    def _recurrent(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        R = self.dims.get(node.input[2])
        D, H = (R[0], R[2]) if R is not None else ("", "")
        if attributes.get("layout", 0) == 1:
            return [[x[0], x[1], D, H], [x[0], D, H], [x[0], D, H]]
        return [[x[0], D, x[1], H], [D, x[1], H], [D, x[1], H]]

    def _scan(self, x: Dims, node: onnx.NodeProto, attributes: Attributes) -> list[Shape]:
        """The outputs of a Scan over the steps of a layer, whose input is [T, N, ·]."""
        count = len(node.input) - attributes.integer("num_scan_inputs")
        states = [self.dims.get(name) for name in node.input[:count]]
        sequence = self.dims.get(node.input[count])
        output = None if sequence is None or len(sequence) != 3 else [*sequence[:2], ""]
        return [*states, output]


ShapeRule = Callable[[ShapeInference, Dims, onnx.NodeProto, Attributes], list[Shape]]
"""The shapes of a node's outputs, from the shape of its first input."""

_SHAPE_RULES: dict[str, ShapeRule] = {
    "Squeeze": ShapeInference._squeeze,
    "Unsqueeze": ShapeInference._unsqueeze,
    "Reshape": ShapeInference._reshape,
    "Concat": ShapeInference._concat,
    "Gather": ShapeInference._gather,
    "Slice": ShapeInference._slice,
    "Split": ShapeInference._split,
    "Expand": ShapeInference._expand,
    "MatMul": ShapeInference._matmul,
    "Gemm": ShapeInference._gemm,
    "ReduceMean": ShapeInference._reduce,
    "ReduceSum": ShapeInference._reduce,
    "ReduceMax": ShapeInference._reduce,
    "RNN": ShapeInference._recurrent,
    "GRU": ShapeInference._recurrent,
    "LSTM": ShapeInference._recurrent,
    "Scan": ShapeInference._scan,
    "Transpose": lambda _, x, node, attributes: [
        shape_functions.transpose(x, attributes.integers("perm"))
    ],
    "Flatten": lambda _, x, node, attributes: [
        shape_functions.flatten(x, attributes.integer("axis", 1))
    ],
    "Shape": lambda _, x, node, attributes: [[len(shape_functions.shape_range(x, attributes))]],
}


def _calculated(op: str, row: Dims, operand: Dims | None) -> Dims | None:
    """An arithmetic operation on two rows of sizes; None unless all are numbers."""
    if operand is None or 1 not in (len(row), len(operand), len(row) // len(operand)):
        return None
    count = max(len(row), len(operand))
    left = row * count if len(row) == 1 else row
    right = operand * count if len(operand) == 1 else operand
    results: list[int] = []
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, int) or not isinstance(b, int):
            return None
        results.append(_INTEGER_ARITHMETIC[op](a, b))
    return None if max(map(abs, results)) > MAX_SIZE else [*results]
