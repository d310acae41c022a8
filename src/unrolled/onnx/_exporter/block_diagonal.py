"""Writes products with weights; those of block-diagonal weights as batches of small matrices.

One node multiplies all blocks, so that the number of nodes does not grow with them, and the zeros
between them are neither stored nor multiplied. Only the standard operators need dense matrices.
"""

from dataclasses import dataclass, replace

import numpy as np

from unrolled.onnx._exporter.graph import INTEGERS, Graph, Value, transposed
from unrolled.onnx._exporter.pointwise import scalar
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.program._decode import Matrix


@dataclass(frozen=True)
class Product:
    """A product W v + b of rows v with ``rank`` axes.

    ``weight`` is W's transpose [K, M]; of a block-diagonal W [blocks, (1,) K / blocks, M / blocks],
    each with the rows of all parts. ``rows`` and ``columns`` are those of a block of one part.
    """

    weight: Value
    bias: Value | None
    rank: int
    parts: int
    blocks: int
    rows: int
    columns: int

    @classmethod
    def of(
        cls, g: Graph, weights: tuple[Value, Value | None], matrix: Matrix, sweep: Sweep, rank: int
    ) -> "Product":
        """The product of a sweep, whose weight is transposed in ``g``."""
        (weight, bias), parts, blocks = weights, matrix.parts, matrix.blocks
        rows = sweep.width(matrix.width) // blocks
        columns = sweep.width(matrix.source) // blocks
        if blocks == 1:
            weight = transposed(g, weight)
        else:
            joined = (blocks, *[1] * (rank - 2), columns, parts * rows)
            weight = _transposed_blocks(g, weight, (parts, blocks, rows, columns), joined)
        return cls(weight, bias, rank, parts, blocks, rows, columns)

    def apply(self, g: Graph, v: Value, name: str) -> Value:
        """The result [..., M]; ``name`` is a format of the arrays' names."""
        weight = g.named(self.weight, name.format("weight"))
        product = g.op("MatMul", v, weight) if self.blocks == 1 else self._batched(g, v, weight)
        return (
            product
            if self.bias is None
            else g.op("Add", product, g.named(self.bias, name.format("bias")))
        )

    def _batched(self, g: Graph, v: Value, weight: Value) -> Value:
        last, leading = self.rank - 1, [*range(self.rank - 1)]
        same = [0] * last  # a size of 0 in Reshape is that of the input
        v = g.op("Reshape", v, np.array([*same, self.blocks, self.columns], INTEGERS))
        v = g.op("Transpose", v, perm=[last, *leading, last + 1])
        product = g.op("MatMul", v, weight)
        separate = [self.blocks, *same, self.parts, self.rows]
        product = g.op("Reshape", product, np.array(separate, INTEGERS))
        product = g.op("Transpose", product, perm=[*range(1, self.rank + 1), 0, self.rank + 1])
        M = self.parts * self.blocks * self.rows
        return g.op("Reshape", product, np.array([*same, M], INTEGERS))


def _transposed_blocks(
    g: Graph, weight: Value, separate: tuple[int, ...], joined: tuple[int, ...]
) -> Value:
    """A weight [parts * width, K / blocks] as blocks with the rows of all parts."""
    if isinstance(weight, np.ndarray):
        return weight.reshape(separate).transpose(1, 3, 0, 2).reshape(joined)
    rows = g.op("Reshape", weight, np.array(separate, INTEGERS))
    rows = g.op("Transpose", rows, perm=[1, 3, 0, 2])
    return g.op("Reshape", rows, np.array(joined, INTEGERS))


def with_dense_matrices(g: Graph, sweep: Sweep) -> Sweep:
    """The sweep with dense weights in place of block-diagonal ones."""
    if not sweep.is_block_diagonal:
        return sweep
    matrices = list(sweep.matrices)
    for k, product in enumerate((sweep.forward.input, *sweep.forward.products)):
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
