"""Reads the product whose results are the sequence of a Scan: a linear layer, or a product with a
block-diagonal weight."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from unrolled.onnx._importer import torch_functions
from unrolled.onnx._importer.block_diagonal import OPERATORS, Chain
from unrolled.onnx._importer.graph_builder import GraphBuilder, ImportedNode
from unrolled.onnx._importer.scan_body import InputForm
from unrolled.onnx._importer.values import RefusedError, Value

_FUNCTIONS = {
    "Reshape": torch_functions.reshape,
    "Transpose": torch.permute,
    "MatMul": torch.matmul,
}


@dataclass(frozen=True)
class ScanInput:
    """The product W x + b before a Scan: the node of x, with the first two axes exchanged if
    ``swapped``; W [rows, I / blocks]; b or None."""

    source: fx.Node
    swapped: bool
    weight: np.ndarray
    bias: np.ndarray | None = None
    blocks: int = 1
    required_parts: int | None = None

    @property
    def form(self) -> InputForm:
        """What the body has to know of it."""
        rows, bias = len(self.weight), self.bias is not None
        return InputForm(rows, bias, self.blocks, self.required_parts)


def input_product(b: GraphBuilder, n: ImportedNode, sequence: Value) -> ScanInput:
    """The product whose results a Scan reads.

    Raises:
        RefusedError: the sequence is another value.
    """
    node = sequence.node
    if node is not None and node.op == "call_module":
        module = b.root.get_submodule(str(node.target))
        source = node.args[0]
        if isinstance(module, nn.Linear) and isinstance(source, fx.Node):
            weight, bias = module.weight, module.bias
            return ScanInput(
                source, sequence.swapped, _array(weight), None if bias is None else _array(bias)
            )
    product = None if node is None else _block_product(b, node)
    if product is None:
        raise RefusedError(
            f"{n.label}: its sequence must be a product with weights, got another value"
        )
    return product


def _block_product(b: GraphBuilder, node: fx.Node) -> ScanInput | None:
    """The product with a block-diagonal weight that a node is the result of, or None."""
    bias = None
    if node.op == "call_function" and node.target is torch.add:
        node, row = node.args  # type: ignore[assignment]
        bias = _constant(b, row)
        if bias is None or not isinstance(node, fx.Node):
            return None
    arguments: list[object] = []
    for operator in reversed(OPERATORS):
        if node.op != "call_function" or node.target is not _FUNCTIONS[operator]:
            return None
        node, argument = node.args[:2]  # type: ignore[assignment]
        arguments.append(_constant(b, argument) if operator == "MatMul" else argument)
        if not isinstance(node, fx.Node) or not isinstance(arguments[-1], np.ndarray | list):
            return None
    chain = Chain("", tuple(map(np.asarray, reversed(arguments))))
    product = chain.product(rank=3)
    if product is None or (bias is not None and bias.shape != (len(product.weight),)):
        return None
    swapped = node.target is torch.transpose and node.args[1:] == (0, 1)
    source = node.args[0] if swapped else node
    assert isinstance(source, fx.Node)
    return ScanInput(source, swapped, product.weight, bias, product.blocks, product.parts)


def _constant(b: GraphBuilder, argument: object) -> np.ndarray | None:
    """The numbers of a node that is a constant; else None."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    return _array(b.root.get_buffer(str(argument.target)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array
