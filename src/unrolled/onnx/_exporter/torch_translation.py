"""Translates the operator ``unrolled::sweep`` of our layers for ``torch.onnx.export``.

This module reads the arguments of the operator; ``recurrent_layers`` writes the nodes of a sweep.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np
import torch

import unrolled.engines  # noqa: F401  registers the operator
from unrolled.export import ExportError
from unrolled.onnx._exporter.graph import unsqueezed
from unrolled.onnx._exporter.portability import NO_FLOAT64
from unrolled.onnx._exporter.recurrent_layers import layer
from unrolled.onnx._exporter.sequences import Lengths
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.onnx._exporter.torch_graph import TorchGraph
from unrolled.program._decode import decode_forward

if TYPE_CHECKING:
    import onnx_ir as ir

_OPERATOR = "unrolled::sweep in ONNX"
_MOVING_OPERATORS = ("Cast", "CastLike", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")


def translation_table(
    portable: bool = False,
) -> dict[Callable[..., object], Callable[..., object]]:
    """The ``custom_translation_table`` with which ``torch.onnx.export`` translates our layers.

    With it torch exports any model that contains layers of ``unrolled.nn``, with any cell, dynamic
    T and N, and lengths::

        torch.onnx.export(
            model.eval(), (x,), "model.onnx", dynamo=True,
            dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},),   # torch.export.Dim; x [T, N, I]
            custom_translation_table=unrolled.onnx.translation_table(),
        )

    A layer in one direction becomes RNN, LSTM or GRU if it has the equations of the operator, else
    a Scan over its program, as in :func:`unrolled.onnx.export`. Resets raise an error, and so do
    dtypes other than float32 and float64.

    Args:
        portable: use for our layers only nodes that ONNX Runtime, OpenVINO and tract compute alike,
            as in :func:`unrolled.onnx.export`.

    Raises:
        ModuleNotFoundError: the package onnxscript is missing, which torch's exporter needs.
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
    def sweep(*args: object, **options: object) -> object:
        return translate(*args, **options)  # type: ignore[arg-type]  # torch binds the arguments

    # torch reads annotations as types of ONNX; an argument without one is passed unchanged.
    sweep.__annotations__ = {"program": str, "products": str}
    return {torch.ops.unrolled.sweep.default: sweep}


class _Translation:
    """The translation of the operator of our layers."""

    def __init__(self, portable: bool) -> None:
        self.portable = portable

    def sweep(
        self,
        values: "ir.Value",
        states: "Sequence[ir.Value]",
        reset_states: "Sequence[ir.Value]",
        matrices: "Sequence[ir.Value]",
        vectors: "Sequence[ir.Value] | None",
        program: str,
        sizes: Sequence[int],
        batch_first: bool,
        reverse: bool,
        lengths: "ir.Value | None",
        resets: "ir.Value | None",
        training: bool,
        products: str = "",
    ) -> tuple[object, object, object]:
        """``torch.ops.unrolled.sweep`` as nodes: output, final states, nothing for backward. What
        products round is up to the runtime."""
        dtype = _checked_dtype(values)
        if resets is not None:
            raise ExportError(
                f"{_OPERATOR}: resets must be None, as they have no operator, got a tensor"
            )
        if self.portable and dtype == np.float64:
            raise ExportError(f"{_OPERATOR}: portable must be False, got True: {NO_FLOAT64}")
        g = TorchGraph(dtype, portable=self.portable)
        x = g.op("Transpose", values, perm=[1, 0, 2]) if batch_first else values
        sweep = _sweep(program, sizes, matrices, vectors, reverse)
        # tract takes zeros as torch writes them for float64.
        omits_states = self.portable and all(_is_zeros(state) for state in states)
        initial_states = None if omits_states else [unsqueezed(g, state) for state in states]
        sequence_lengths = None if lengths is None else Lengths(g, x, lengths)
        y, final_states = layer(g, x, [sweep], initial_states, sequence_lengths)
        y = g.op("Transpose", y, perm=[1, 0, 2]) if batch_first else y
        final_states = [g.op("Squeeze", state, np.array([0])) for state in final_states]
        saved = g.result(np.zeros(0, g.dtype))
        return g.result(y), g.sequence(final_states), saved


def _checked_dtype(values: "ir.Value") -> np.dtype[np.generic]:
    if values.dtype is None or values.dtype.name not in ("FLOAT", "DOUBLE"):
        raise ExportError(f"{_OPERATOR}: numbers must be float32 or float64, got {values.dtype}")
    return values.dtype.numpy()


def _sweep(
    program: str,
    sizes: Sequence[int],
    matrices: "Sequence[ir.Value]",
    vectors: "Sequence[ir.Value] | None",
    reverse: bool,
) -> Sweep:
    H, P, *_ = sizes
    shapes = [matrix.shape for matrix in matrices]
    present = [
        None if shape is not None and shape[0] == 0 else matrix
        for matrix, shape in zip(matrices, shapes, strict=True)
    ]
    forward = decode_forward(program)
    I = forward.input.blocks * int(shapes[0][1])  # type: ignore[index, arg-type]  # noqa: E741
    return Sweep(forward, I, H, P, reverse, tuple(present), tuple(vectors or ()))


def _is_zeros(value: "ir.Value") -> bool:
    """Whether a value is made of the zeros that stand for a state that was not given."""
    node = value.producer()
    while node is not None and node.op_type in _MOVING_OPERATORS:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node is not None and node.op_type == "ConstantOfShape" and not node.attributes
