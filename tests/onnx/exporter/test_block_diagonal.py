"""Block-diagonal products in ONNX files: small matrices, in all runtimes, without their zeros."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from tests.support.block_cells import Heads, HeadsLSTM, VectorHeads
from tests.support.onnx_files import (
    Batch,
    check_layer,
    exported_session,
    node_counts,
    randomize,
    session,
)
from tests.support.onnx_runtimes import RUNTIMES, Load
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.cells import Cell
from unrolled.nn import Recurrent
from unrolled.onnx import export, translation_table

I, H = 12, 24  # noqa: E741
CELLS: dict[str, Cell] = {
    "recurrent": Heads(4),
    "input": Heads(1, 3),
    "both": Heads(12, 2),
    "SLSTM": cells.SLSTM(heads=2),
    "of a vector": VectorHeads(3),
}
FORMS: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({}, {}),
    ({"num_layers": 2, "bidirectional": True, "bias": False}, {"lengths": True, "states": True}),
    ({"batch_first": True}, {"lengths": True}),
]


def check(layer: Recurrent, run: Any, inputs: dict[str, bool]) -> None:
    for T, N in ((6, 4), (1, 1)):
        batch = Batch.of(layer, T, N, **{"lengths": False, "states": False, **inputs})
        check_layer(layer, run, batch)


@pytest.mark.sampled
@pytest.mark.parametrize("load_file", RUNTIMES)
@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("name", CELLS)
def test_in_every_runtime(name: str, form: int, load_file: Load, tmp_path: Path) -> None:
    """Against the layer in float64, with free T and N."""
    options, inputs = FORMS[form]
    layer = randomize(Recurrent(CELLS[name], I, H, **options))
    export(layer, tmp_path / "model.onnx", portable=True, **inputs)
    check(layer, load_file(tmp_path / "model.onnx"), inputs)


@pytest.mark.parametrize("name", CELLS)
def test_in_the_reference_implementation(name: str, tmp_path: Path) -> None:
    """It has no Scan in the reverse direction."""
    layer = randomize(Recurrent(CELLS[name], I, H))
    export(layer, tmp_path / "model.onnx")
    check(layer, ReferenceEvaluator(onnx.load(tmp_path / "model.onnx")), {})


def test_in_float64(tmp_path: Path) -> None:
    layer = randomize(Recurrent(Heads(4, 2), I, H)).double()
    run = exported_session(layer, tmp_path)
    x = torch.rand(5, 3, I).double()
    with torch.no_grad(), engines.use("reference"):
        expected = layer(x)[0]
    close(torch.from_numpy(run.run(["y"], {"x": x.numpy()})[0]), expected, "output")


def test_zeros_are_not_stored(tmp_path: Path) -> None:
    """The numbers of all arrays with two axes or more are those of the weights (a state is 0)."""
    layer = randomize(Recurrent(Heads(4, 3), I, H))
    export(layer, tmp_path / "model.onnx")
    arrays = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
    ]
    stored = np.concatenate([array.ravel() for array in arrays if array.size > 1 < array.ndim])
    weights = torch.cat([p.detach().flatten() for p in layer.parameters() if p.dim() > 1])
    np.testing.assert_array_equal(np.sort(stored), np.sort(weights.numpy()))


@pytest.mark.parametrize(("units", "op_type"), [(64, "LSTM"), (256, "Scan")])
def test_an_operator_only_where_it_is_faster(units: int, op_type: str, tmp_path: Path) -> None:
    layer = randomize(Recurrent(HeadsLSTM(4), 3, units))
    run = exported_session(layer, tmp_path)
    assert node_counts(tmp_path / "model.onnx")[op_type] == 1
    check_layer(layer, run, Batch.of(layer, 3, 2, lengths=False, states=False), exact=False)


class Outputs(nn.Module):
    """The outputs of a layer."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)[0]
        return y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("optimize", [False, True])
def test_by_the_exporter_of_torch(optimize: bool) -> None:
    model = randomize(Outputs(Recurrent(Heads(4, 3), I, H))).eval()
    x = torch.rand(5, 3, I)
    program = torch.onnx.export(
        model, (x,), dynamo=True, verbose=False, optimize=optimize,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
        custom_translation_table=translation_table(),
    )  # fmt: skip
    assert program is not None
    run = session(program.model_proto.SerializeToString())
    x = torch.rand(4, 2, I)
    result = run.run(None, {run.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad(), engines.use("reference"):
        expected = model.double()(x.double())
    close(torch.from_numpy(result), expected, "output")
