"""Block-diagonal products of files that our exporter wrote become products with blocks again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from tests.support.block_cells import Heads
from tests.support.imported_models import agrees, runs
from tests.support.onnx_files import randomize
from unrolled.nn import Recurrent
from unrolled.onnx import export, load

I, H = 12, 24  # noqa: E741


def recurrent_layers(module: torch.nn.Module) -> list[Recurrent]:
    return [part for part in module.modules() if isinstance(part, Recurrent)]


def stored_forms(layer: Recurrent) -> list[tuple[int, int, tuple[int, ...]]]:
    """Blocks and parts of each product, and the shape of its weight."""
    declared = layer.cell.products(layer.spec.sizes(0)).values()
    shapes = [tuple(p.shape) for p in layer.parameters() if p.dim() == 2]
    return [(p.blocks, p.parts, shape) for p, shape in zip(declared, shapes, strict=True)]


@pytest.mark.parametrize("blocks", [(4, 1), (1, 3), (12, 2)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True, "num_layers": 2}, {"bias": False}], ids=str
)
def test_a_file_becomes_the_same_layers(
    blocks: tuple[int, int], options: dict[str, Any], tmp_path: Path
) -> None:
    """Values, form of the weights, gradients, streams."""
    layer = randomize(Recurrent(Heads(*blocks), I, 12 if "num_layers" in options else H, **options))
    export(layer, tmp_path / "layer.onnx")
    module = load(tmp_path / "layer.onnx")
    x = torch.randn(5, 3, I)
    agrees(module, layer(x), x)
    imported = recurrent_layers(module)
    assert len(imported) == layer.num_layers
    assert stored_forms(imported[0]) == stored_forms(
        Recurrent(Heads(*blocks), I, layer.hidden_size)
    )
    module(x)[0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters() if p.dim() == 2)
    runs(module, x, tmp_path, layer.batch_first)


def test_lengths_and_two_directions(tmp_path: Path) -> None:
    layer = randomize(Recurrent(Heads(4, 3), I, H, bidirectional=True))
    export(layer, tmp_path / "layer.onnx", lengths=True)
    x, lengths = torch.randn(6, 3, I), torch.tensor([6, 2, 4])
    module = load(tmp_path / "layer.onnx")
    agrees(module, layer(x, lengths=lengths), x, lengths)
    assert [stored_forms(part) for part in recurrent_layers(module)] == [
        stored_forms(Recurrent(Heads(4, 3), I, H))
    ] * 2


def body(model: onnx.ModelProto) -> onnx.GraphProto:
    node = next(node for node in model.graph.node if node.op_type == "Scan")
    return next(attribute.g for attribute in node.attribute if attribute.name == "body")


def other_axes(model: onnx.ModelProto) -> None:
    node = next(node for node in body(model).node if node.op_type == "Transpose")
    node.attribute[0].ints[:] = [1, 2, 0]


def other_sizes(model: onnx.ModelProto) -> None:
    node = next(node for node in body(model).node if node.op_type == "Reshape")
    sizes = next(t for t in model.graph.initializer if t.name == node.input[1])
    sizes.CopyFrom(numpy_helper.from_array(np.array([0, 2, H // 2]), sizes.name))


def no_product(model: onnx.ModelProto) -> None:
    node = next(node for node in body(model).node if node.op_type == "MatMul")
    node.op_type = "Mul"


def unfinished(model: onnx.ModelProto) -> None:
    nodes = body(model).node
    product = next(node for node in nodes if node.op_type == "MatMul")
    nodes.append(helper.make_node("Identity", product.output, ["again"]))


def other_parts(model: onnx.ModelProto) -> None:
    node = [node for node in body(model).node if node.op_type == "Split"][1]
    del node.output[2:]


@pytest.mark.parametrize("spoil", [other_axes, other_sizes, no_product, unfinished, other_parts])
def test_other_nodes_are_refused(spoil: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    export(randomize(Recurrent(Heads(4), I, H)), tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    load(model)
    spoil(model)
    with pytest.raises(ValueError, match="Scan"):
        load(model)
