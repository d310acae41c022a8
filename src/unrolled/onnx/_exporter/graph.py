"""Builds ONNX graphs of nodes and the arrays that they read.

The functions that make nodes (``pointwise``, ``scan_nodes``, ``operator_nodes``, ``block_nodes``)
depend on ``Graph`` only. ``FileGraph`` becomes a file; ``torch_graph`` has the graph inside torch's
own exporter.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

if TYPE_CHECKING:
    import onnx_ir as ir

Value = Union[np.ndarray, str, "ir.Value"]
"""An array is a constant; a computed value is a name in a file, an ``ir.Value`` inside torch."""
BodyGraph = Union[GraphProto, "ir.Graph"]
AttributeValue = Union[
    int, float, str, Sequence[int], Sequence[float], Sequence[str], "ir.TensorProtocol", BodyGraph
]
Dim = int | str | None
"""A number, the name of a free size, or None."""
INTEGERS = np.dtype(np.int64)
FLOATS: dict[np.dtype[np.generic], int] = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
}
_ELEMENT_TYPES: dict[np.dtype[np.generic], int] = {
    **FLOATS,
    INTEGERS: TensorProto.INT64,
    np.dtype(np.bool_): TensorProto.BOOL,
}


class Graph(Protocol):
    """A graph to which nodes are added.

    ``dtype`` is the dtype of its values; a ``portable`` graph has only nodes that ONNX Runtime,
    OpenVINO and tract compute alike.
    """

    dtype: np.dtype[np.generic]
    portable: bool

    def op(self, op_type: str, *inputs: Value | None, **attributes: AttributeValue) -> Value:
        """The result of an operator; None is an omitted input."""

    def multi_op(
        self, op_type: str, count: int, *inputs: Value | None, **attributes: AttributeValue
    ) -> list[Value]:
        """The results of an operator with several results."""

    def named(self, value: Value, name: str) -> Value:
        """The same value; an array gets a name in the file."""

    def body(self) -> "Body":
        """A graph inside this one, which may read the values of this one."""


class Body(Graph, Protocol):
    """The graph of a loop's body."""

    def input(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> Value:
        """An input of the body."""

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Dim]]) -> BodyGraph:
        """The body as the attribute of a node; its results must be results of its own nodes."""


class FileGraph:
    """A graph of names, for a file. All constants are in the outermost graph."""

    def __init__(
        self,
        dtype: np.dtype[np.generic],
        outer: "FileGraph | None" = None,
        portable: bool = False,
    ) -> None:
        self.dtype, self.portable = dtype, portable
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self._names: set[str] = set() if outer is None else outer._names
        self._arrays: dict[str, np.ndarray] = {} if outer is None else outer._arrays
        self._constant_names: dict[tuple[str, tuple[int, ...], bytes], str] = (
            {} if outer is None else outer._constant_names
        )

    def op(self, op_type: str, *inputs: Value | None, **attributes: AttributeValue) -> Value:
        """See ``Graph``."""
        return self.multi_op(op_type, 1, *inputs, **attributes)[0]

    def multi_op(
        self, op_type: str, count: int, *inputs: Value | None, **attributes: AttributeValue
    ) -> list[Value]:
        """See ``Graph``."""
        names = ["" if value is None else self._name_of(value) for value in inputs]
        while names and not names[-1]:
            names.pop()
        results = [self.unique_name(op_type.lower()) for _ in range(count)]
        node_name = self.unique_name(op_type)
        node = helper.make_node(op_type, names, results, name=node_name)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in sorted(attributes.items())
        )
        self.nodes.append(node)
        return [*results]

    def named(self, value: Value, name: str) -> Value:
        """See ``Graph``."""
        return self._constant(value, name) if isinstance(value, np.ndarray) else value

    def body(self) -> "FileGraph":
        """See ``Graph``."""
        return FileGraph(self.dtype, self, self.portable)

    def input(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> Value:
        """See ``Body``."""
        name = self.unique_name(name)
        self.inputs.append(value_info(name, dtype, shape))
        return name

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Dim]]) -> GraphProto:
        """See ``Body``."""
        outputs = [
            value_info(self._name_of(result), self.dtype, shape)
            for result, shape in zip(results, shapes, strict=True)
        ]
        return helper.make_graph(self.nodes, "step", self.inputs, outputs)

    def unique_name(self, name: str) -> str:
        """This name, or with a number after it if it is in use."""
        unique, number = name, 1
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique

    def add_output(self, name: str, value: Value) -> None:
        """Give a value the name of an output."""
        node_name = f"give_{name}"
        self.nodes.append(
            helper.make_node("Identity", [self._name_of(value)], [name], name=node_name)
        )

    def set_default(self, name: str, array: np.ndarray) -> None:
        """Set the default value of an input."""
        self._arrays[name] = array

    def initializers(self) -> list[TensorProto]:
        """All constants."""
        return [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]

    def _name_of(self, value: Value) -> str:
        if isinstance(value, np.ndarray):
            return self._constant(value, "const")
        assert isinstance(value, str)
        return value

    def _constant(self, array: np.ndarray, name: str) -> str:
        """The name of a constant; equal constants have one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constant_names:
            self._constant_names[key] = self.unique_name(name)
            self._arrays[self._constant_names[key]] = array
        return self._constant_names[key]


def value_info(name: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> ValueInfoProto:
    """The type and the shape of a value."""
    return helper.make_tensor_value_info(name, _ELEMENT_TYPES[np.dtype(dtype)], list(shape))


def split_rows(g: Graph, value: Value, parts: int) -> list[Value]:
    """Equal parts of a weight along its first axis; parts of a constant are constants."""
    if parts == 1:
        return [value]
    if isinstance(value, np.ndarray):
        return [*np.split(value, parts)]
    assert not isinstance(value, str)  # a weight in torch's graph
    assert value.shape is not None
    total = value.shape[0]
    assert isinstance(total, int)
    rows = total // parts
    bounds = [np.array([k * rows], INTEGERS) for k in range(parts + 1)]
    return [g.op("Slice", value, start, end) for start, end in pairwise(bounds)]


def concatenate(g: Graph, values: Sequence[Value], axis: int = 0) -> Value:
    """Values one after the other along an axis."""
    if len(values) == 1:
        return values[0]
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if len(arrays) == len(values):
        return np.concatenate(arrays, axis)
    return g.op("Concat", *values, axis=axis)


def unsqueezed(g: Graph, value: Value) -> Value:
    """A value with a first axis of size one."""
    if isinstance(value, np.ndarray):
        return value[None]
    return g.op("Unsqueeze", value, np.array([0], INTEGERS))


def transposed(g: Graph, matrix: Value) -> Value:
    """A matrix with rows and columns exchanged."""
    if isinstance(matrix, np.ndarray):
        return matrix.T
    return g.op("Transpose", matrix, perm=[1, 0])
