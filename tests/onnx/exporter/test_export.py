"""Layers as ONNX files: ONNX Runtime computes what our reference computes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.support.every_operation import EveryOperation
from tests.support.onnx_files import Batch, check_layer, exported_session, node_counts, randomize
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.cells import Cell
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.onnx import export
from unrolled.onnx._activations import Activation
from unrolled.onnx._operator_cells import OperatorCoupledLSTM, OperatorGRU, OperatorLSTM

LAYERS: dict[str, tuple[Any, str]] = {
    "RNN": (RNN, "RNN"),
    "RNN relu": (partial(RNN, nonlinearity="relu"), "RNN"),
    "LSTM": (LSTM, "LSTM"),
    "GRU": (GRU, "GRU"),
    "ResetBeforeGRU": (partial(Recurrent, cells.ResetBeforeGRU), "GRU"),
    "PeepholeLSTM": (partial(Recurrent, cells.PeepholeLSTM), "LSTM"),
    "CoupledLSTM": (partial(Recurrent, cells.CoupledLSTM), "LSTM"),
    "LSTM projected": (partial(LSTM, proj_size=2), "Scan"),
    "CoRNN": (partial(Recurrent, cells.CoRNN), "Scan"),
}
FORMS: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({}, {}),
    ({"num_layers": 2, "bidirectional": True}, {"lengths": True, "states": True}),
    ({"bidirectional": True, "merge": "sum", "bias": False}, {"states": True}),
    ({"num_layers": 3, "batch_first": True}, {"lengths": True}),
]


@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_every_form(name: str, form: int, tmp_path: Path) -> None:
    """With several T and N; values in the padding have no effect."""
    make, op_type = LAYERS[name]
    options, inputs = FORMS[form]
    layer = randomize(make(3, 5, **options))
    run = exported_session(layer, tmp_path, **inputs)
    nodes_per_layer = layer.spec.num_directions if op_type == "Scan" else 1
    assert node_counts(tmp_path / "model.onnx")[op_type] == layer.num_layers * nodes_per_layer
    for T, N in ((6, 4), (1, 1)):
        flags = {"lengths": False, "states": False, **inputs}
        check_layer(layer, run, Batch.of(layer, T, N, **flags))


PUBLISHED = [
    value
    for value in vars(cells).values()
    if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
]
STANDARD = {
    cells.RNN, cells.LSTM, cells.GRU, cells.ResetBeforeGRU, cells.PeepholeLSTM, cells.CoupledLSTM,
}  # fmt: skip


@pytest.mark.parametrize("cell", PUBLISHED, ids=lambda cell: cell.__name__)
def test_every_published_cell(cell: type[Cell], tmp_path: Path) -> None:
    layer = randomize(Recurrent(cell, 3, 5, bidirectional=True))
    run = exported_session(layer, tmp_path, lengths=True, states=True)
    assert ("Scan" in node_counts(tmp_path / "model.onnx")) == (cell not in STANDARD)
    check_layer(layer, run, Batch.of(layer, 7, 3, lengths=True, states=True), exact=False)


ACTIVATIONS = [
    Activation("Relu"), Activation("Tanh"), Activation("Sigmoid"), Activation("Affine", 0.7, 0.1),
    Activation("LeakyRelu", 0.3), Activation("ThresholdedRelu", 0.2),
    Activation("ScaledTanh", 1.5, 0.6), Activation("HardSigmoid", 0.3, 0.4),
    Activation("Elu", 0.8), Activation("Softsign"), Activation("Softplus"),
]  # fmt: skip


@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
def test_activations_of_the_operators(
    activation: Activation, clip: float | None, tmp_path: Path
) -> None:
    function = Activation(activation.name, activation.alpha, activation.beta, clip)
    layer = randomize(Recurrent(cells.RNN(function), 3, 5, bidirectional=True))
    run = exported_session(layer, tmp_path)
    assert node_counts(tmp_path / "model.onnx")["RNN"] == 1
    check_layer(layer, run, Batch.of(layer, 5, 2, lengths=False, states=False))


GENERAL = [
    OperatorLSTM(
        Activation("HardSigmoid", 0.3, 0.4), Activation("Softsign"), Activation("Affine", 0.7, 0.1)
    ),
    OperatorLSTM(Activation("Sigmoid", clip=0.2), Activation("Tanh", clip=0.2)),
    OperatorCoupledLSTM(peepholes=True),
    OperatorGRU(Activation("HardSigmoid", 0.2, 0.5), Activation("LeakyRelu", 0.2), True),
    OperatorGRU(Activation("Sigmoid", clip=0.3), Activation("Tanh", clip=0.3)),
]


@pytest.mark.parametrize("cell", GENERAL, ids=repr)
def test_general_cells_of_the_operators(cell: Cell, tmp_path: Path) -> None:
    layer = randomize(Recurrent(cell, 3, 5, bidirectional=True))
    run = exported_session(layer, tmp_path, lengths=True)
    assert "Scan" not in node_counts(tmp_path / "model.onnx")
    check_layer(layer, run, Batch.of(layer, 5, 3, lengths=True, states=False))


def test_a_clip_that_the_operator_lacks_becomes_a_scan(tmp_path: Path) -> None:
    """ONNX Runtime clips the arguments of f and g of an LSTM, not of h."""
    functions = [Activation(name, clip=0.2) for name in ("Sigmoid", "Tanh", "Tanh")]
    layer = randomize(Recurrent(OperatorLSTM(*functions), 3, 5))
    run = exported_session(layer, tmp_path)
    assert node_counts(tmp_path / "model.onnx")["Scan"] == 1
    check_layer(layer, run, Batch.of(layer, 9, 3, lengths=False, states=False))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_every_operation_of_a_program(options: dict[str, Any], tmp_path: Path) -> None:
    layer = randomize(Recurrent(EveryOperation, 4, 5, **options))
    run = exported_session(layer, tmp_path, lengths=True, states=True)
    check_layer(layer, run, Batch.of(layer, 4, 3, lengths=True, states=True))
    run = exported_session(layer, tmp_path)
    check_layer(layer, run, Batch.of(layer, 4, 3, lengths=False, states=False))


def test_float64_stays_float64(tmp_path: Path) -> None:
    """ONNX Runtime runs an LSTM in float64 as Scan only."""
    for make in (LSTM, partial(Recurrent, cells.SLSTM), partial(Recurrent, EveryOperation)):
        layer = randomize(make(3, 5, num_layers=2, bidirectional=True)).double()
        run = exported_session(layer, tmp_path, lengths=True)
        batch = Batch.of(layer, 5, 3, lengths=True, states=False)
        batch.x = batch.x.double()
        check_layer(layer, run, batch)
        assert run.get_outputs()[0].type == "tensor(double)"


@pytest.mark.parametrize("make", [RNN, GRU, LSTM, partial(Recurrent, cells.MGU)])
def test_another_reader_agrees(make: Any, tmp_path: Path) -> None:
    """The reference implementation of the onnx package, which runs Scan forward only."""
    layer = randomize(make(3, 5, num_layers=2))
    export(layer, tmp_path / "model.onnx")
    x = torch.rand(5, 2, 3)
    y = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(["y"], {"x": x.numpy()})[0]
    with torch.no_grad(), engines.use("reference"):
        close(torch.from_numpy(y), layer(x)[0], "output")


def test_states_are_optional(tmp_path: Path) -> None:
    """They are inputs with a default; h_0 of one step is h_n of the step before."""
    layer = randomize(LSTM(3, 5, num_layers=2))
    run = exported_session(layer, tmp_path, states=True)
    assert [info.name for info in run.get_inputs()] == ["x"]
    assert {info.name for info in run.get_overridable_initializers()} == {"h_0", "c_0"}
    batch = Batch.of(layer, 6, 2, lengths=False, states=False)
    check_layer(layer, run, batch)
    y_of_all = run.run(["y"], {"x": batch.x.numpy()})[0]
    state: dict[str, Any] = {}
    for t in range(6):
        y, h, c = run.run(["y", "h_n", "c_n"], {"x": batch.x[t : t + 1].numpy(), **state})
        state = {"h_0": h, "c_0": c}
        close(torch.from_numpy(y[0]), torch.from_numpy(y_of_all[t]), "output")
