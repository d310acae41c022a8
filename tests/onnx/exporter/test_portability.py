"""Portable ONNX files: ONNX Runtime, OpenVINO and tract compute what our reference computes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.support.command_line import run_export
from tests.support.every_operation import EveryOperation
from tests.support.onnx_files import Batch, check_layer, randomize
from tests.support.onnx_runtimes import RUNTIMES, Load, OpenVINO, Tract
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.cells import Cell
from unrolled.export import ExportError
from unrolled.models import SequenceModel, Tagger
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.onnx import export, load, translation_table
from unrolled.onnx._activations import Activation
from unrolled.onnx._operator_cells import OperatorCoupledLSTM, OperatorGRU, OperatorLSTM
from unrolled.tasks._forecasting import Forecaster

LENGTHS = torch.tensor([2, 6, 0, 5])


class Memoryless(Cell):
    """Reads no state, and has one that is not its output."""

    gates = ("a", "b")
    states = ("h", "s")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x.a), cells.sigmoid(x.b)


class Autonomous(Cell):
    """Reads no input."""

    gates = ("a",)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(h.a) + 0.1


LAYERS: dict[str, Any] = {
    "RNN": RNN,
    "RNN relu": partial(RNN, nonlinearity="relu"),
    "LSTM": LSTM,
    "GRU": GRU,
    "ResetBeforeGRU": partial(Recurrent, cells.ResetBeforeGRU),
    "PeepholeLSTM": partial(Recurrent, cells.PeepholeLSTM),
    "CoupledLSTM": partial(Recurrent, cells.CoupledLSTM),
    "LSTM projected": partial(LSTM, proj_size=2),
    "CoRNN": partial(Recurrent, cells.CoRNN),
    "memoryless": partial(Recurrent, Memoryless),
    "autonomous": partial(Recurrent, Autonomous),
    "every operation": partial(Recurrent, EveryOperation),
    "other functions": partial(
        Recurrent, OperatorLSTM(Activation("HardSigmoid"), Activation("Elu"), Activation("Relu"))
    ),
    "clip": partial(
        Recurrent, OperatorGRU(Activation("Sigmoid", clip=0.2), Activation("Tanh", clip=0.2))
    ),
    "coupled with peepholes": partial(Recurrent, OperatorCoupledLSTM(peepholes=True)),
}
OPERATORS = {"RNN": "RNN", "LSTM": "LSTM", "GRU": "GRU", "ResetBeforeGRU": "GRU"}
FORMS: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({}, {}),
    ({"num_layers": 2, "bidirectional": True}, {"lengths": True, "states": True}),
    ({"bidirectional": True, "merge": "sum", "bias": False, "batch_first": True}, {"states": True}),
]


@pytest.mark.sampled
@pytest.mark.parametrize("load_file", RUNTIMES)
@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, form: int, load_file: Load, tmp_path: Path) -> None:
    """Outputs and final states with free T and N; values in the padding have no effect."""
    options, inputs = FORMS[form]
    layer = randomize(LAYERS[name](3, 5, **options))
    export(layer, tmp_path / "model.onnx", portable=True, **inputs)
    run = load_file(tmp_path / "model.onnx")
    for T, N in ((6, 4), (1, 1)):
        check_layer(
            layer, run, Batch.of(layer, T, N, **{"lengths": False, "states": False, **inputs})
        )


@pytest.mark.parametrize("name", LAYERS)
def test_nodes(name: str, tmp_path: Path) -> None:
    """An operator is used where all three compute it alike; never in reverse, nor with lengths."""
    layer = LAYERS[name](3, 5, bidirectional=True)
    for lengths in (False, True):
        export(layer, tmp_path / "model.onnx", portable=True, lengths=lengths)
        graph = onnx.load(tmp_path / "model.onnx").graph
        nodes = [node for node in graph.node if node.op_type in ("RNN", "LSTM", "GRU", "Scan")]
        op_type = "Scan" if lengths else OPERATORS.get(name, "Scan")
        assert [node.op_type for node in nodes] == [op_type, op_type]
        directions = {
            attribute.s
            for node in nodes
            for attribute in node.attribute
            if attribute.name == "direction"
        }
        assert directions <= {b"forward"}


@pytest.mark.parametrize("load_file", [OpenVINO, pytest.param(Tract, marks=RUNTIMES[-1].marks)])
@pytest.mark.parametrize("lengths", [False, True])
def test_sizes_fixed_when_the_file_is_loaded(lengths: bool, load_file: Any, tmp_path: Path) -> None:
    T, N = 6, 4
    for make in (LSTM, partial(Recurrent, cells.CoRNN)):
        layer = randomize(make(3, 5, bidirectional=True))
        export(layer, tmp_path / "model.onnx", portable=True, lengths=lengths)
        shapes = {"x": (T, N, 3), **({"lengths": (N,)} if lengths else {})}
        run = load_file(tmp_path / "model.onnx", shapes)
        check_layer(layer, run, Batch.of(layer, T, N, lengths=lengths, states=False))


def reference(module: nn.Module, *args: Any, **options: Any) -> Any:
    with torch.no_grad(), engines.use("reference"):
        return module(*args, **options)


def assert_close(results: np.ndarray, expected: Tensor) -> None:
    close(torch.from_numpy(results), expected, "output")


@pytest.mark.parametrize("load_file", RUNTIMES)
@pytest.mark.parametrize("pooling", [None, "last", "mean", "max", "attention"])
def test_models(pooling: str | None, load_file: Load, tmp_path: Path) -> None:
    """Embedding, two layers in two directions, pooling, head."""
    model = SequenceModel(
        11, 4, cell="LSTM", pooling=pooling, bidirectional=True, hidden_size=5, num_layers=2
    )
    randomize(model.eval())
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, 11, (6, 4)))
    path = tmp_path / "model.onnx"
    export(model, path, portable=True)
    assert_close(load_file(path).run(["y"], {"x": tokens.numpy()})[0], reference(model, tokens)[0])
    export(model, path, portable=True, lengths=True)
    feed = {"x": tokens.numpy(), "lengths": LENGTHS.numpy()}
    y, (h, _) = reference(model, tokens, lengths=LENGTHS)
    for results, expected in zip(load_file(path).run(["y", "h_n"], feed), (y, h), strict=True):
        assert_close(results, expected)


@pytest.mark.parametrize("load_file", RUNTIMES)
def test_learned_initial_states(load_file: Load, tmp_path: Path) -> None:
    model = SequenceModel(3, 2, hidden_size=5, input="one-hot", initial="learned", cell="LSTM")
    randomize(model.eval())
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, 3, (4, 3)))
    export(model, tmp_path / "model.onnx", portable=True)
    results = load_file(tmp_path / "model.onnx").run(["y"], {"x": tokens.numpy()})[0]
    assert_close(results, reference(model, tokens)[0])


@pytest.mark.parametrize("load_file", RUNTIMES)
@pytest.mark.parametrize("lengths", [False, True])
def test_forecasters(lengths: bool, load_file: Load, tmp_path: Path) -> None:
    """In float64, in the units of the data."""
    model = randomize(Forecaster(3, 2, 4, hidden_size=5).eval())
    rng = np.random.default_rng(5)
    codec = {"mean": rng.random(3) * 9, "deviation": rng.random(3) + 1.0}
    x = rng.random((6, 2, 3), np.float32) * 10
    scaled = (x.astype(np.float64) - codec["mean"]) / codec["deviation"]
    steps = reference(model, torch.from_numpy(scaled.astype(np.float32))).double().numpy()
    expected = (steps * codec["deviation"][:2] + codec["mean"][:2]).swapaxes(0, 1)
    export(model, tmp_path / "model.onnx", portable=True, lengths=lengths, codec=codec)
    feed = {"x": x}
    if lengths:
        padded = np.concatenate([x, np.full((2, 2, 3), np.nan, np.float32)])
        feed = {"x": padded, "lengths": np.array([6, 6])}
    results = load_file(tmp_path / "model.onnx").run(["y"], feed)[0]
    assert_close(results.astype(np.float32), torch.from_numpy(expected))


def test_states_must_be_handed_in(tmp_path: Path) -> None:
    """OpenVINO and tract take an input with a default for a constant."""
    export(LSTM(3, 5), tmp_path / "model.onnx", portable=True, states=True)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in graph.input] == ["x", "h_0", "c_0"]
    assert not {value.name for value in graph.input} & {tensor.name for tensor in graph.initializer}


@pytest.mark.parametrize("lengths", [False, True])
def test_load_reads_portable_files(lengths: bool, tmp_path: Path) -> None:
    layer = randomize(LSTM(3, 5, num_layers=2, bidirectional=True))
    export(layer, tmp_path / "model.onnx", portable=True, lengths=lengths)
    x = torch.rand(6, 4, 3)
    y, (h, c) = reference(layer, x, lengths=LENGTHS if lengths else None)
    results = reference(load(tmp_path / "model.onnx"), x, *([LENGTHS] if lengths else []))
    for got, expected in zip(results, (y, h, c), strict=True):
        close(got, expected, "output")


REFUSED: list[tuple[Any, dict[str, bool], str]] = [
    (
        lambda: SequenceModel(3, 2, hidden_size=5, initial="learned"),
        {"states": True},
        "SequenceModel: portable must be False here, got True: the learned initial state .* lost",
    ),
    (
        lambda: Tagger(9, 6, 4, hidden_size=5, embedding_size=6),
        {},
        "Tagger: portable must be False here, got True: tract cannot",
    ),
    (lambda: GRU(3, 5).double(), {}, r"GRU: portable must be False here.*export module.float\(\)"),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED)
def test_refusals(make: Any, options: dict[str, bool], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(make(), tmp_path / "model.onnx", portable=True, **options)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    code = "from unrolled.nn import GRU\nlayer = GRU(3, 5, bidirectional=True)\n"
    (tmp_path / "layers.py").write_text(code)
    out = tmp_path / "model.onnx"
    assert run_export(capsys, f"{tmp_path / 'layers.py'}:layer", out, "--portable")[0] == 0
    op_types = [node.op_type for node in onnx.load(out).graph.node]
    assert op_types.count("GRU") == 2
    exit_code, _, message = run_export(
        capsys, f"{tmp_path / 'layers.py'}:layer", tmp_path / "m.safetensors", "--portable"
    )
    assert exit_code == 2
    assert "--portable requires an output file that ends in .onnx" in message


class Model(nn.Module):
    """A model that is not a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = LSTM(3, 5, bidirectional=True)
        self.mgu = Recurrent(cells.MGU, 10, 4)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x, lengths=lengths)
        z, _ = self.mgu(y + 1, lengths=lengths)
        return z * 2, h


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("lengths", [False, True])
def test_models_through_torchs_exporter(lengths: bool, tmp_path: Path) -> None:
    model, free = randomize(Model().eval()), torch.export.Dim.DYNAMIC
    x = torch.rand(6, 4, 3)
    inputs = (x, LENGTHS) if lengths else (x,)
    shapes = ({0: free, 1: free}, {0: free})[: len(inputs)]
    program = torch.onnx.export(
        model, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False,
        input_names=["x", "lengths"][: len(inputs)], output_names=["y", "h_n"],
        custom_translation_table=translation_table(portable=True),
    )  # fmt: skip
    assert program is not None
    program.save(tmp_path / "model.onnx")
    feed = {"x": x[:5].numpy(), **({"lengths": LENGTHS.clamp(max=5).numpy()} if lengths else {})}
    expected = reference(model, *(torch.from_numpy(value) for value in feed.values()))
    for load_file in RUNTIMES:
        results = load_file.values[0](tmp_path / "model.onnx").run(["y", "h_n"], feed)
        for got, value in zip(results, expected, strict=True):
            assert_close(got, value)
