"""Implements ``Graph`` for the graph that torch's own exporter builds."""

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from unrolled.onnx._exporter.graph import AttributeValue, Dim, Value

if TYPE_CHECKING:
    import onnx_ir as ir

_value_numbers = count()


class TorchGraph:
    """The graph that torch's exporter records at the moment."""

    def __init__(
        self,
        dtype: np.dtype[np.generic],
        outer: "TorchGraph | None" = None,
        portable: bool = False,
    ) -> None:
        from onnxscript import evaluator

        self.dtype, self.portable = np.dtype(dtype), portable
        self.outer = outer
        self.inputs: list[ir.Value] = []
        # Nodes are added to the exporter's list directly: its functions have no operator with a
        # variable number of results, as Scan has.
        self.nodes: list[ir.Node] = [] if outer else evaluator.default().nodes  # type: ignore[attr-defined]

    def op(self, op_type: str, *inputs: Value | None, **attributes: AttributeValue) -> Value:
        """See ``Graph``."""
        return self.multi_op(op_type, 1, *inputs, **attributes)[0]

    def multi_op(
        self, op_type: str, count: int, *inputs: Value | None, **attributes: AttributeValue
    ) -> list[Value]:
        """See ``Graph``."""
        return [*self._add_node(op_type, count, inputs, attributes).outputs]

    def _add_node(
        self,
        op_type: str,
        count: int,
        inputs: Sequence[Value | None],
        attributes: dict[str, AttributeValue],
    ) -> "ir.Node":
        import onnx_ir as ir

        values = [None if value is None else self._ir_value(value) for value in inputs]
        while values and values[-1] is None:
            values.pop()
        ir_attributes = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", op_type, values, ir_attributes, num_outputs=count)
        for value in node.outputs:
            value.name = _unique_name(op_type)
        self.nodes.append(node)
        return node

    def named(self, value: Value, name: str) -> Value:
        """See ``Graph``; parameters have names already."""
        return value

    def body(self) -> "TorchGraph":
        """See ``Graph``."""
        return TorchGraph(self.dtype, self, self.portable)

    def input(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> Value:
        """See ``Body``."""
        import onnx_ir as ir

        tensor_type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        value = ir.Value(name=_unique_name(name), type=tensor_type, shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Dim]]) -> "ir.Graph":
        """See ``Body``."""
        import onnx_ir as ir

        outputs = [self._ir_value(result) for result in results]
        for value, shape in zip(outputs, shapes, strict=True):
            value.type = ir.TensorType(ir.DataType.from_numpy(self.dtype))
            value.shape = ir.Shape(shape)
        return ir.Graph(self.inputs, outputs, nodes=self.nodes, name=_unique_name("step"))

    def result(self, value: Value) -> object:
        """A value that torch's own translations can compute with."""
        from onnxscript import opset18

        return opset18.Identity(self._ir_value(value))  # type: ignore[type-var]

    def sequence(self, values: Sequence[Value]) -> object:
        """Values as the one result that stands for a list of tensors."""
        from onnxscript import opset18

        return opset18.SequenceConstruct(*values)  # type: ignore[type-var]

    def _ir_value(self, value: Value) -> "ir.Value":
        """A value of the graph; an array becomes a constant outside of all bodies."""
        import onnx_ir as ir

        if isinstance(value, np.ndarray):
            if self.outer is not None:
                return self.outer._ir_value(value)
            array = ir.tensor(np.asarray(value, order="C"))
            return self._add_node("Constant", 1, (), {"value": array}).outputs[0]
        assert not isinstance(value, str)
        return value


def _unique_name(name: str) -> str:
    return f"unrolled_{name.lower()}_{next(_value_numbers)}"
