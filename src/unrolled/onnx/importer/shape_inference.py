"""Shapes of the values of a graph, followed node by node from the inputs and the constants.

A size is a number, the name of a free dimension, or "" where it is not known; None is a shape of
unknown rank. What a file claims of values between is never read, and nothing here takes more time
or memory than the file is long.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx

from unrolled.io import CORRUPT_FILE_ERRORS

__all__ = ["Dims", "Shapes"]

Dims = list[int | str]
LARGEST_RANK = 16
LARGEST_SIZE = 2**63 - 1
_WHOLE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_SAME = {
    "Relu", "Tanh", "Sigmoid", "Exp", "Log", "Sqrt", "Neg", "Abs", "Not", "Softplus", "Softsign",
    "Sign", "Identity", "Dropout", "Softmax", "LogSoftmax", "Cast", "CastLike", "HardSigmoid",
    "LeakyRelu", "ThresholdedRelu", "Elu",
}  # fmt: skip
_BROADCAST = {
    "Add", "Sub", "Mul", "Div", "Pow", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal",
    "And", "Or", "Where", "Max", "Min",
}  # fmt: skip
_KEEP_TYPE = {
    "Identity", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Flatten",
    "Transpose", "Expand", "Split", "Range", "Neg", "Abs", "Add", "Sub", "Mul", "Div", "Max", "Min",
    "ReduceSum", "ReduceMax",
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b if a >= 0 < b else int(a / b),
}  # fmt: skip


class Shapes:
    """What is known of each value: its shape, whether it holds whole numbers, and where it is a
    number or a row of them made of sizes, these."""

    def __init__(self) -> None:
        self.dims: dict[str, Dims | None] = {}
        self.whole: set[str] = set()
        self._sizes: dict[str, Dims] = {}
        self._arrays: dict[str, Any] = {}

    def of_input(self, info: onnx.ValueInfoProto) -> None:
        """Note what is declared of an input of the graph."""
        kind = info.type.tensor_type
        dims: Dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim
        ]
        dims = ["" if isinstance(one, int) and one < 0 else one for one in dims]
        self.dims[info.name] = dims if kind.HasField("shape") else None
        if kind.elem_type in _WHOLE:
            self.whole.add(info.name)

    def of_constant(self, name: str, array: Any) -> None:
        """Note a constant."""
        self.dims[name] = list(array.shape)
        self._arrays[name] = array
        if array.dtype.kind == "i" and array.dtype.itemsize >= 4:
            self.whole.add(name)

    def follow(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        """Note the outputs of a node."""
        try:
            results = self._follow(node, attributes)
        except CORRUPT_FILE_ERRORS:  # a contradiction, which its rule will name
            results = []
        for name, dims in zip(node.output, results, strict=False):
            self.dims[name] = dims if dims is None or len(dims) <= LARGEST_RANK else None
        self._types(node, attributes)
        try:
            sizes = self._row(node, attributes)
        except CORRUPT_FILE_ERRORS:
            sizes = None
        if sizes is not None and self._is_row(node.output[0], len(sizes)):
            self._sizes[node.output[0]] = sizes

    def _is_row(self, name: str, count: int) -> bool:
        """Whether a value is a whole number, or a row of so many."""
        dims = self.dims.get(name)
        if dims is None or name not in self.whole or count > LARGEST_RANK:
            return False
        return len(dims) == 0 or (len(dims) == 1 and dims[0] in (count, ""))

    def sizes(self, name: str) -> Dims | None:
        """The numbers of a row that is constant or made of sizes."""
        array = self._arrays.get(name)
        if array is None:
            return self._sizes.get(name)
        if array.dtype.kind != "i" or array.ndim > 1 or array.size > LARGEST_RANK:
            return None
        return [int(one) for one in array.reshape(-1)]

    def _types(self, node: onnx.NodeProto, told: dict[str, Any]) -> None:
        kind, reads = node.op_type, node.input
        whole = kind in _KEEP_TYPE and reads[0] in self.whole
        whole |= kind == "Where" and reads[-1] in self.whole
        whole |= kind == "Cast" and told.get("to") in _WHOLE
        whole |= kind == "ConstantOfShape" and "value" in told and told["value"].data_type in _WHOLE
        if kind == "Shape" or whole:
            self.whole.update(node.output)

    def _row(self, node: onnx.NodeProto, told: dict[str, Any]) -> Dims | None:
        """The numbers of the first output, where it is a row made of sizes."""
        kind, reads = node.op_type, node.input
        if kind == "Shape":
            dims = self.dims.get(reads[0])
            return None if dims is None else dims[told.get("start", 0) : told.get("end")]
        if kind == "Concat":
            parts = [self.sizes(name) for name in reads[:LARGEST_RANK]]
            return None if None in parts else [one for part in parts for one in part or ()]
        row = self.sizes(reads[0]) if reads else None
        if row is None:
            return None
        if kind in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"):
            return row
        if kind == "Gather":
            at = self.sizes(reads[1])
            return None if at is None else [row[int(k)] for k in at]
        if kind == "Slice":
            start, end, axes, step = self._bounds(node, told)
            return row[start[0] : end[0] : step[0]] if axes in ([0], [-1]) else None
        if kind in _ARITHMETIC:
            other = self.sizes(reads[1])
            if other is None or 1 not in (len(row), len(other), len(row) // len(other)):
                return None
            count = max(len(row), len(other))
            pairs = zip(_wide(row, count), _wide(other, count), strict=True)
            known = all(isinstance(one, int) for one in (*row, *other))
            made = [_ARITHMETIC[kind](int(a), int(b)) for a, b in pairs] if known else None
            return None if made is None or max(map(abs, made)) > LARGEST_SIZE else [*made]
        return None

    def _follow(self, node: onnx.NodeProto, told: dict[str, Any]) -> list[Dims | None]:
        kind, outputs = node.op_type, len(node.output)
        if kind in _BROADCAST:
            return [_broadcast([self.dims.get(name) for name in node.input])]
        if kind == "ConstantOfShape":
            return [self.sizes(node.input[0])]
        if kind == "Range":
            return [[""]]
        x = self.dims.get(node.input[0]) if node.input else None
        if x is None:
            return [None] * outputs
        if kind in _SAME:
            return [list(x)] * outputs
        rule = getattr(self, f"_{kind.lower()}", None)
        return [None] * outputs if rule is None else rule(x, node, told)

    def _axes(self, node: onnx.NodeProto, told: dict[str, Any]) -> list[int] | None:
        if "axes" in told:
            return [int(one) for one in told["axes"]]
        if len(node.input) < 2 or not node.input[1]:
            return None
        sizes = self.sizes(node.input[1])
        if sizes is None:
            raise ValueError("axes that are not known")
        return [int(one) for one in sizes]

    def _bounds(self, node: onnx.NodeProto, told: dict[str, Any]) -> list[list[int]]:
        """Starts, ends, axes and steps of a Slice."""
        rows: list[Any] = [told.get("starts"), told.get("ends"), told.get("axes"), None]
        if "starts" not in told:
            names = [*node.input[1:], "", "", ""][:4]
            rows = [self.sizes(name) if name else None for name in names]
            if any(name and row is None for name, row in zip(names, rows, strict=True)):
                raise ValueError("bounds that are not known")
        starts, ends, axes, steps = rows
        axes = list(range(len(starts))) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
        return [[int(one) for one in row] for row in (starts, ends, axes, steps)]

    def _transpose(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        return [[x[k] for k in told.get("perm", range(len(x))[::-1])]]

    def _squeeze(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        axes = self._axes(node, told)
        if axes is None:
            return (
                [None] if any(not isinstance(one, int) for one in x) else [[k for k in x if k != 1]]
            )
        dropped = {axis % len(x) for axis in axes}
        return [[one for k, one in enumerate(x) if k not in dropped]]

    def _unsqueeze(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        axes = self._axes(node, told) or []
        rank = len(x) + len(axes)
        if rank > LARGEST_RANK:
            return [None]
        added = {axis % rank for axis in axes}
        rest = iter(x)
        return [[1 if k in added else next(rest) for k in range(rank)]]

    def _reshape(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        shape = self.sizes(node.input[1])
        if shape is None:
            rank = self.dims.get(node.input[1])
            known = rank is not None and len(rank) == 1 and isinstance(rank[0], int)
            return [[""] * min(int(rank[0]), LARGEST_RANK + 1) if known else None]  # type: ignore[index]
        copies = not told.get("allowzero", 0)
        return [
            _with_rest(x, [x[k] if one == 0 and copies else one for k, one in enumerate(shape)])
        ]

    def _flatten(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        axis = told.get("axis", 1)
        return [[_product(x[:axis]), _product(x[axis:])]]

    def _concat(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        parts = [self.dims.get(name) for name in node.input]
        axis = told["axis"] % len(x)
        found = list(x)
        along = [None if part is None else part[axis] for part in parts]
        known = all(isinstance(one, int) for one in along)
        found[axis] = sum(map(int, along)) if known else ""  # type: ignore[arg-type]
        return [found]

    def _gather(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        at, axis = self.dims.get(node.input[1]), told.get("axis", 0) % len(x)
        return [None if at is None else [*x[:axis], *at, *x[axis + 1 :]]]

    def _slice(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        try:
            bounds = self._bounds(node, told)
        except ValueError:
            return [[""] * len(x)]
        found = list(x)
        for start, end, axis, step in zip(*bounds, strict=True):
            size = x[axis]
            if isinstance(size, int):
                stop = None if step < 0 and end < -size else end
                found[axis] = len(range(size)[start:stop:step])
            elif (start, step) != (0, 1) or end < 2**31 - 1:
                found[axis] = ""
        return [found]

    def _split(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        axis, count = told.get("axis", 0) % len(x), len(node.output)
        sizes: Sequence[Any] | None = told.get("split")
        if len(node.input) > 1 and node.input[1]:
            sizes = self.sizes(node.input[1])
        elif sizes is None and isinstance(x[axis], int) and int(x[axis]) % count == 0:
            sizes = [int(x[axis]) // count] * count
        parts = sizes or [""] * count
        return [[*x[:axis], part, *x[axis + 1 :]] for part in parts]

    def _shape(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        return [[len(x[told.get("start", 0) : told.get("end")])]]

    def _expand(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        return [_broadcast([x, self.sizes(node.input[1])])]

    def _matmul(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        y = self.dims.get(node.input[1])
        if y is None or len(x) < 2 or len(y) < 2:
            return [None]
        rows = _broadcast([x[:-2], y[:-2]])
        return [None if rows is None else [*rows, x[-2], y[-1]]]

    def _gemm(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        y = self.dims.get(node.input[1])
        rows = x[1 if told.get("transA", 0) else 0]
        return [None if y is None else [rows, y[0 if told.get("transB", 0) else 1]]]

    def _reduced(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        axes = {axis % len(x) for axis in self._axes(node, told) or range(len(x))}
        if told.get("keepdims", 1):
            return [[1 if k in axes else one for k, one in enumerate(x)]]
        return [[one for k, one in enumerate(x) if k not in axes]]

    _reducemean = _reducesum = _reducemax = _reduced

    def _recurrent(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        R = self.dims.get(node.input[2])
        D, H = (R[0], R[2]) if R is not None else ("", "")
        if told.get("layout", 0) == 1:
            return [[x[0], x[1], D, H], [x[0], D, H], [x[0], D, H]]
        return [[x[0], D, x[1], H], [D, x[1], H], [D, x[1], H]]

    _rnn = _gru = _lstm = _recurrent

    def _scan(self, x: Dims, node: Any, told: dict[str, Any]) -> list[Dims | None]:
        """Of a layer's steps, which is what is followed: [T, N, ·] is fed."""
        count = len(node.input) - told["num_scan_inputs"]
        states = [self.dims.get(name) for name in node.input[:count]]
        fed = self.dims.get(node.input[count])
        known = fed is not None and len(fed) == 3
        return [*states, [*fed[:2], ""] if known else None]  # type: ignore[index]


def _wide(row: Dims, count: int) -> Dims:
    return row * count if len(row) == 1 else row


def _product(dims: Dims) -> int | str:
    return math.prod(map(int, dims)) if all(isinstance(one, int) for one in dims) else ""


def _broadcast(shapes: Sequence[Dims | None]) -> Dims | None:
    if any(one is None for one in shapes):
        return None
    rank = max(len(one or ()) for one in shapes)
    padded: list[Dims] = []
    for one in shapes:
        added: Dims = [1] * (rank - len(one or ()))
        padded.append([*added, *(one or ())])
    return [_common([row[k] for row in padded]) for k in range(rank)]


def _common(sizes: Dims) -> int | str:
    """The size of an axis of which arrays have these: those of one are expanded."""
    wide = [one for one in sizes if one != 1]
    if not wide:
        return 1
    numbers = [one for one in wide if isinstance(one, int)]
    return numbers[0] if numbers else wide[0] if len(set(wide)) == 1 else ""


def _with_rest(x: Dims, shape: Dims) -> Dims:
    """A shape with -1 replaced by what of x is left."""
    if -1 not in shape:
        return shape
    left = list(x)
    others = [one for one in shape if one != -1]
    for one in others:
        if isinstance(one, str) and one and one in left:
            left.remove(one)
        elif isinstance(one, str):
            return ["" if size == -1 else size for size in shape]
    names = [one for one in left if isinstance(one, str)]
    have = math.prod(one for one in left if isinstance(one, int))
    wanted = math.prod(one for one in others if isinstance(one, int))
    rest: int | str = ""
    if not names and wanted and have % wanted == 0:
        rest = have // wanted
    elif len(names) == 1 and have == wanted:
        rest = names[0]
    return [rest if size == -1 else size for size in shape]
