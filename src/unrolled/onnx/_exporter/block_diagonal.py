"""Expands block-diagonal weights: ONNX has dense matrix products only."""

from dataclasses import replace

import numpy as np

from unrolled.onnx._exporter.graph import INTEGERS, Graph, Value
from unrolled.onnx._exporter.pointwise import scalar
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.program._decode import Matrix


def with_dense_matrices(g: Graph, sweep: Sweep) -> Sweep:
    """The sweep with dense weights in place of block-diagonal ones."""
    products = (sweep.forward.input, *sweep.forward.products)
    if all(product.blocks == 1 for product in products):
        return sweep
    matrices = list(sweep.matrices)
    for k, product in enumerate(products):
        weight = matrices[2 * k]
        if product.blocks > 1 and weight is not None:
            matrices[2 * k] = _dense(g, weight, product, sweep)
    forward = replace(
        sweep.forward,
        input=replace(sweep.forward.input, blocks=1),
        products=tuple(replace(product, blocks=1) for product in sweep.forward.products),
    )
    return replace(sweep, forward=forward, matrices=tuple(matrices))


def _dense(g: Graph, weight: Value, product: Matrix, sweep: Sweep) -> Value:
    """A weight [parts * width, K / blocks] as [parts * width, K], with its zeros."""
    width, K, blocks = sweep.width(product.width), sweep.width(product.source), product.blocks
    separate = (product.parts, blocks, width // blocks, 1, K // blocks)
    shape = (product.parts * width, K)
    diagonal = np.eye(blocks, dtype=np.bool_)[:, None, :, None]
    if isinstance(weight, np.ndarray):
        return np.where(diagonal, weight.reshape(separate), weight.dtype.type(0)).reshape(shape)
    import onnx_ir as ir

    rows = g.op("Reshape", weight, np.array(separate, INTEGERS))
    rows = g.op("Where", diagonal, rows, scalar(g, 0))
    dense = g.op("Reshape", rows, np.array(shape, INTEGERS))
    assert isinstance(dense, ir.Value)
    dense.shape = ir.Shape(shape)
    return dense
