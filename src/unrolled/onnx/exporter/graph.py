"""A graph of ONNX while it is made: nodes, and the arrays that they read.

What makes nodes (``operations``, ``scan``, ``standard``, ``parts``) asks for a ``Graph`` only. Here
is the one that becomes a file; ``torch_table`` has the one that grows inside of torch's exporter.
A value is a NumPy array, which is a constant, or whatever a graph names its results by.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["FLOATS", "INTS", "FileGraph", "Graph", "Value", "join", "lifted", "split", "turned"]

Value = Any
INTS = np.dtype(np.int64)
FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
_KINDS = {**FLOATS, INTS: TensorProto.INT64, np.dtype(np.bool_): TensorProto.BOOL}


class Graph(Protocol):
    """What a graph can be asked for. ``dtype`` is that of its numbers; ``portable`` allows only
    nodes that ONNX Runtime, OpenVINO and tract compute alike."""

    dtype: np.dtype[Any]
    portable: bool

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """The one result of an operator; None stands for an input that is left out."""

    def several(self, kind: str, count: int, *inputs: Value | None, **attributes: Any) -> list[Any]:
        """The results of an operator that has more than one."""

    def named(self, value: Value, name: str) -> Value:
        """The same value; an array gets a name by which readers of the file find it."""

    def body(self) -> "Body":
        """A graph inside of this one, which may read this one's values."""


class Body(Graph, Protocol):
    """The graph of a loop's body."""

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[Any]) -> Value:
        """What comes into the body; a dimension that is not a number is free."""

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Any]]) -> Any:
        """The body as the attribute of a node; what it gives must be its own nodes' results."""


class FileGraph:
    """A graph of names, for a file. All constants stand in the outermost graph."""

    def __init__(
        self, dtype: np.dtype[Any], outer: "FileGraph | None" = None, portable: bool = False
    ) -> None:
        self.dtype, self.portable = dtype, portable
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        root = self if outer is None else outer
        self._taken: set[str] = set() if outer is None else root._taken
        self._arrays: dict[str, np.ndarray] = {} if outer is None else root._arrays
        self._known: dict[Any, str] = {} if outer is None else root._known

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """See ``Graph``."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: Value | None, **attributes: Any) -> list[Any]:
        """See ``Graph``."""
        names = ["" if value is None else self._name(value) for value in inputs]
        while names and not names[-1]:
            names.pop()
        made = [self.free(kind.lower()) for _ in range(count)]
        self.nodes.append(helper.make_node(kind, names, made, name=self.free(kind), **attributes))
        return made

    def named(self, value: Value, name: str) -> Value:
        """See ``Graph``."""
        return self._place(value, name) if isinstance(value, np.ndarray) else value

    def body(self) -> "FileGraph":
        """See ``Graph``."""
        return FileGraph(self.dtype, self, self.portable)

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[Any]) -> Value:
        """See ``Body``."""
        name = self.free(name)
        self.inputs.append(info(name, dtype, shape))
        return name

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Any]]) -> GraphProto:
        """See ``Body``."""
        outputs = [info(n, self.dtype, shape) for n, shape in zip(results, shapes, strict=True)]
        return helper.make_graph(self.nodes, "step", self.inputs, outputs)

    def free(self, name: str) -> str:
        """A name that nothing has: this one, or with a number behind it."""
        taken, number = name, 1
        while taken in self._taken:
            number += 1
            taken = f"{name}_{number}"
        self._taken.add(taken)
        return taken

    def initial(self, name: str, array: np.ndarray) -> None:
        """What an input of the graph is unless it is given."""
        self._arrays[name] = array

    def initializers(self) -> list[TensorProto]:
        """All constants."""
        return [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]

    def _name(self, value: Value) -> str:
        if isinstance(value, np.ndarray):
            return self._place(value, "const")
        assert isinstance(value, str)
        return value

    def _place(self, array: np.ndarray, name: str) -> str:
        """Equal constants are one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.free(name)
            self._arrays[self._known[key]] = array
        return self._known[key]


def info(name: str, dtype: np.dtype[Any], shape: Sequence[Any]) -> ValueInfoProto:
    """The type of a value; dimensions are numbers, names or None."""
    return helper.make_tensor_value_info(name, _KINDS[np.dtype(dtype)], list(shape))


def split(g: Graph, value: Value, parts: int) -> list[Value]:
    """Equal parts of a weight along its first axis; of a constant, constants."""
    if parts == 1:
        return [value]
    if isinstance(value, np.ndarray):
        return list(np.split(value, parts))
    rows = value.shape[0] // parts
    bounds = [np.array([k * rows], INTS) for k in range(parts + 1)]
    return [g.op("Slice", value, *pair) for pair in pairwise(bounds)]


def join(g: Graph, values: Sequence[Value], axis: int = 0) -> Value:
    """One after the other along an axis."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, np.ndarray) for value in values):
        return np.concatenate(list(values), axis)
    return g.op("Concat", *values, axis=axis)


def lifted(g: Graph, value: Value) -> Value:
    """With a first dimension of one."""
    if isinstance(value, np.ndarray):
        return value[None]
    return g.op("Unsqueeze", value, np.array([0], INTS))


def turned(g: Graph, matrix: Value) -> Value:
    """A matrix with rows as columns."""
    if isinstance(matrix, np.ndarray):
        return matrix.T
    return g.op("Transpose", matrix, perm=[1, 0])
