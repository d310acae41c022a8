"""The operator of our layers for ``torch.onnx.export``: graphs inside of torch's own exporter.

What a sweep becomes is decided where files are made (``stack``); here its arguments are read, and
nodes are made as the exporter wants them.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import count
from typing import Any

import numpy as np
import torch

import unrolled.engines  # noqa: F401  registers the operator
from unrolled.export import ExportError
from unrolled.onnx.exporter.graph import Value, lifted
from unrolled.onnx.exporter.portability import NO_FLOAT64
from unrolled.onnx.exporter.recurrent_layers import layer
from unrolled.onnx.exporter.sweep import Lengths, Sweep
from unrolled.program.decode import decode_forward

__all__ = ["translation_table"]

_numbers = count()
_REARRANGING = ("Cast", "CastLike", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")


def translation_table(portable: bool = False) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export`` must know of our layers, for its ``custom_translation_table``.

    Any model that holds layers of ``unrolled.nn`` is exported with it, of any cell, with free T and
    N, and with lengths::

        torch.onnx.export(
            model.eval(), (x,), "model.onnx", dynamo=True,
            dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},),   # torch.export.Dim; x [T, N, I]
            custom_translation_table=unrolled.onnx.translation_table(),
        )

    A layer in one direction becomes RNN, LSTM or GRU where its equations are the operator's, else a
    Scan over its program, as in :func:`unrolled.onnx.export`. Resets have no operator and are
    refused, as is what is neither in float32 nor in float64.

    Args:
        portable: use for our layers only nodes that ONNX Runtime, OpenVINO and tract compute alike,
            as in :func:`unrolled.onnx.export`.

    Raises:
        ModuleNotFoundError: torch's exporter needs the package onnxscript, which is not there.
    """
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "torch.onnx.export needs the package onnxscript: pip install onnxscript",
            name="onnxscript",
        ) from error
    translate = _Translation(portable).sweep

    @wraps(translate)
    def sweep(*args: Any, **options: Any) -> Any:  # torch sets an attribute, which no method takes
        return translate(*args, **options)

    return {torch.ops.unrolled.sweep.default: sweep}


class _Translation:
    """What the operator of our layers becomes."""

    def __init__(self, portable: bool) -> None:
        self.portable = portable

    def sweep(
        self,
        values: Any,
        states: Any,
        reset_states: Any,
        matrices: Any,
        vectors: Any,
        program: str,
        sizes: Any,
        batch_first: Any,
        reverse: Any,
        lengths: Any,
        resets: Any,
        training: Any,
    ) -> Any:
        """``torch.ops.unrolled.sweep`` as nodes: output, final states, nothing for backward."""
        _check(values, resets)
        if self.portable and values.dtype.name == "DOUBLE":
            raise ExportError(f"unrolled::sweep in ONNX: portable must be False: {NO_FLOAT64}")
        g = _ExporterGraph(values.dtype.numpy(), portable=self.portable)
        x = g.op("Transpose", values, perm=[1, 0, 2]) if batch_first else values
        matrices = [None if matrix.shape[0] == 0 else matrix for matrix in matrices]
        H, P, *_ = sizes
        I = matrices[0].shape[1]  # noqa: E741
        sweep = Sweep(
            decode_forward(program), I, H, P, reverse, tuple(matrices), tuple(vectors or ())
        )
        # As torch writes them, tract takes zeros for float64.
        left_out = self.portable and all(_is_zeros(state) for state in states)
        starts = None if left_out else [lifted(g, state) for state in states]
        ends = None if lengths is None else Lengths(g, x, lengths)
        y, finals = layer(g, x, [sweep], starts, ends)
        y = g.op("Transpose", y, perm=[1, 0, 2]) if batch_first else y
        finals = [g.op("Squeeze", state, np.array([0])) for state in finals]
        return g.given(y), g.sequence(finals), g.given(np.zeros((0, 1), g.dtype))


def _is_zeros(value: Any) -> bool:
    """Whether a value is made of the zeros that stand for a state that was not given."""
    node = value.producer()
    while node is not None and node.op_type in _REARRANGING:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "ConstantOfShape" and not node.attributes


def _check(values: Any, resets: Any) -> None:
    """Refuse resets and half precision."""
    who = "unrolled::sweep in ONNX"
    if resets is not None:
        raise ExportError(f"{who}: resets have no operator; wanted resets=None")
    if values.dtype is None or values.dtype.name not in ("FLOAT", "DOUBLE"):
        raise ExportError(f"{who}: wanted float32 or float64, got {values.dtype}")


class _ExporterGraph:
    """The graph that torch's exporter records at the moment."""

    def __init__(
        self, dtype: Any, outer: "_ExporterGraph | None" = None, portable: bool = False
    ) -> None:
        from onnxscript import evaluator

        self.dtype, self.portable = np.dtype(dtype), portable
        self.outer = outer
        self.inputs: list[Any] = []
        # The exporter's recorder of nodes; its own functions know no operator with as many results
        # as it is asked for, which Scan is.
        self.nodes: list[Any] = [] if outer else evaluator.default().nodes  # type: ignore[attr-defined]

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """See ``Graph``."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: Value | None, **attributes: Any) -> list[Any]:
        """See ``Graph``."""
        import onnx_ir as ir

        values = [self._constant(v) if isinstance(v, np.ndarray) else v for v in inputs]
        while values and values[-1] is None:
            values.pop()
        told = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", kind, values, told, num_outputs=count)
        for value in node.outputs:
            value.name = _free(kind)
        self.nodes.append(node)
        return list(node.outputs)

    def named(self, value: Value, name: str) -> Value:
        """See ``Graph``; parameters have names already."""
        return value

    def body(self) -> "_ExporterGraph":
        """See ``Graph``."""
        return _ExporterGraph(self.dtype, self, self.portable)

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[Any]) -> Value:
        """See ``Body``."""
        import onnx_ir as ir

        kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        value = ir.Value(name=_free(name), type=kind, shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def close(self, results: Sequence[Value], shapes: Sequence[Sequence[Any]]) -> Any:
        """See ``Body``."""
        import onnx_ir as ir

        for value, shape in zip(results, shapes, strict=True):
            value.type = ir.TensorType(ir.DataType.from_numpy(self.dtype))
            value.shape = ir.Shape(shape)
        return ir.Graph(self.inputs, list(results), nodes=self.nodes, name=_free("step"))

    def given(self, value: Value) -> Value:
        """A value as torch's own translations calculate with it."""
        from onnxscript import opset18

        return opset18.Identity(self._constant(value) if isinstance(value, np.ndarray) else value)

    def sequence(self, values: Sequence[Value]) -> Value:
        """Several values as the one that a list of tensors is."""
        from onnxscript import opset18

        return opset18.SequenceConstruct(*values)

    def _constant(self, array: np.ndarray) -> Value:
        """Constants stand outside of bodies."""
        import onnx_ir as ir

        if self.outer is not None:
            return self.outer._constant(array)
        return self.op("Constant", value=ir.tensor(np.asarray(array, order="C")))


def _free(name: str) -> str:
    """A name that no value of the exporter's has."""
    return f"unrolled_{name.lower()}_{next(_numbers)}"
