"""Models and chains as ONNX files: blocks around layers, pooling, refusals."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.support.onnx_files import exported_session, node_counts, randomize, session
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.export import ExportError
from unrolled.models import EncoderDecoder, SequenceModel, Tagger
from unrolled.nn import GRU, LSTM, Recurrent
from unrolled.onnx import export
from unrolled.tasks._forecasting import Forecaster

LENGTHS = torch.tensor([2, 6, 0, 5])


def run_reference(module: nn.Module, *args: Any, **options: Any) -> Any:
    with torch.no_grad(), engines.use("reference"):
        return module(*args, **options)


def assert_close(results: np.ndarray, expected: Tensor) -> None:
    close(torch.from_numpy(results), expected, "output")


@pytest.mark.parametrize("cell", ["LSTM", "JANET"])
@pytest.mark.parametrize("pooling", [None, "last", "mean", "max", "attention"])
def test_a_model(pooling: str | None, cell: str, tmp_path: Path) -> None:
    """Embedding, two layers in two directions, pooling, head."""
    options: dict[str, Any] = {"cell": cell, "pooling": pooling, "bidirectional": True}
    model = SequenceModel(11, 4, hidden_size=5, num_layers=2, dropout=0.4, **options)
    randomize(model.eval())
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, 11, (6, 4)))
    run = exported_session(model, tmp_path)
    assert_close(run.run(["y"], {"x": tokens.numpy()})[0], run_reference(model, tokens)[0])
    run = exported_session(model, tmp_path, lengths=True)
    feed = {"x": tokens.numpy(), "lengths": LENGTHS.numpy()}
    y, state = run_reference(model, tokens, lengths=LENGTHS)
    assert_close(run.run(["y"], feed)[0], y)
    assert_close(run.run(["h_n"], feed)[0], state[0] if cell == "LSTM" else state)


def test_a_model_begins_with_what_it_learned(tmp_path: Path) -> None:
    """Unless another state is given."""
    model = randomize(SequenceModel(3, 2, hidden_size=5, input="one-hot", initial="learned").eval())
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, 3, (4, 3)))
    feed = {"x": tokens.numpy()}
    y = run_reference(model, tokens)[0]
    assert_close(exported_session(model, tmp_path).run(["y"], feed)[0], y)
    run = exported_session(model, tmp_path, states=True)
    assert_close(run.run(["y"], feed)[0], y)
    state = torch.rand(1, 3, 5)
    assert_close(
        run.run(["y"], {**feed, "h_0": state.numpy()})[0], run_reference(model, tokens, state)[0]
    )


def test_a_chain_of_parts(tmp_path: Path) -> None:
    """Two layers of their own have states of their own; linear layers keep all dimensions."""
    for activation in (nn.ReLU(), nn.Sigmoid(), nn.Softmax(-1), nn.LogSoftmax(-1)):
        lstm, second = LSTM(4, 5), Recurrent(cells.MGU, 5, 6)
        enter, head = nn.Linear(3, 4), nn.Linear(6, 2, bias=False)
        chain = nn.Sequential(enter, lstm, nn.Tanh(), nn.Dropout(0.5), second, head, activation)
        randomize(chain)
        x = torch.rand(5, 2, 3)
        run = exported_session(chain, tmp_path, states=True)
        results = run.run(["y", "h_n_1", "c_n_1", "h_n_2"], {"x": x.numpy()})
        with torch.no_grad(), engines.use("reference"):
            y, (h, c) = lstm(enter(x))
            y, n = second(torch.tanh(y))
            expected = (activation(head(y)), h, c, n)
        for got, value in zip(results, expected, strict=True):
            assert_close(got, value)


class UserModel(nn.Module):
    """A module as users write it: the final state of a batch_first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 3)
        self.rnn = GRU(3, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(x))[1][-1])


def test_a_module_of_the_user(tmp_path: Path) -> None:
    model = randomize(UserModel())
    tokens = torch.from_numpy(np.random.default_rng(3).integers(0, 7, (2, 5)))
    results = exported_session(model, tmp_path).run(["y"], {"x": tokens.numpy()})[0]
    assert_close(results, run_reference(model, tokens))


def test_a_tagger_reads_characters(tmp_path: Path) -> None:
    model = randomize(Tagger(9, 6, 4, hidden_size=5, embedding_size=6, cell="LSTM").eval())
    rng = np.random.default_rng(4)
    T, N, C = 6, 4, 5
    words = rng.integers(0, 9, (T, N))
    inside = np.arange(T)[:, None] < LENGTHS.numpy()
    spellings = np.where(inside, rng.integers(1, C + 1, (T, N)), 0).reshape(-1)
    characters = rng.integers(0, 6, (C, T * N))
    feed = {"x": words, "characters": characters, "spellings": spellings}
    results = exported_session(model, tmp_path, lengths=True).run(
        ["y"], {**feed, "lengths": LENGTHS.numpy()}
    )[0]
    inputs = [torch.from_numpy(array) for array in (words, characters, spellings)]
    assert_close(results, run_reference(model, inputs[0], LENGTHS, *inputs[1:]))


def test_forecasts_are_in_the_units_of_the_data(tmp_path: Path) -> None:
    model = randomize(Forecaster(3, 2, 4, hidden_size=5).eval())
    rng = np.random.default_rng(5)
    codec = {"mean": rng.random(3) * 9, "deviation": rng.random(3) + 1.0}
    x = rng.random((6, 2, 3), np.float32) * 10
    scaled = (x.astype(np.float64) - codec["mean"]) / codec["deviation"]
    steps = run_reference(model, torch.from_numpy(scaled.astype(np.float32)))
    expected = steps.double().numpy() * codec["deviation"][:2] + codec["mean"][:2]
    run = exported_session(model, tmp_path, codec=codec)
    results = run.run(["y"], {"x": x})[0]
    assert results.dtype == np.float64
    assert_close(results.astype(np.float32).swapaxes(0, 1), torch.from_numpy(expected))
    padded = np.concatenate([x, np.full((2, 2, 3), np.nan, np.float32)])
    run = exported_session(model, tmp_path, codec=codec, lengths=True)
    y_padded = run.run(["y"], {"x": padded, "lengths": np.array([6, 6])})[0]
    assert_close(y_padded.astype(np.float32), torch.from_numpy(results))


def test_metadata_and_signature_of_a_file(tmp_path: Path) -> None:
    codec = {"words": ["a", "b"], "mean": None, "steps": torch.tensor([1, 2])}
    export(randomize(GRU(3, 5)), tmp_path / "m.onnx", task="classify", codec=codec, lengths=True)
    model = onnx.load(tmp_path / "m.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["task"] == "classify"
    assert json.loads(properties["codec"]) == {"words": ["a", "b"], "mean": None, "steps": [1, 2]}
    assert (model.producer_name, model.opset_import[0].version, model.ir_version) == (
        "unrolled", 18, 8,
    )  # fmt: skip
    run = session(tmp_path / "m.onnx")
    shapes = {info.name: info.shape for info in (*run.get_inputs(), *run.get_outputs())}
    assert shapes == {
        "x": ["T", "N", 3], "lengths": ["N"], "y": ["T", "N", 5], "h_n": [1, "N", 5],
    }  # fmt: skip


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    layer = randomize(Recurrent(cells.JANET, 40, 40, num_layers=2))
    export(layer, tmp_path / "m.onnx")
    for name in ("weight_ih", "weight_hh"):
        setattr(layer, f"{name}_l1", getattr(layer, f"{name}_l0"))
    export(layer, tmp_path / "tied.onnx")
    sizes = [(tmp_path / name).stat().st_size for name in ("m.onnx", "tied.onnx")]
    assert sizes[0] - sizes[1] > 2 * 40 * 80 * 4 - 200


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: 2 * output)
    return module


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = GRU(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] ** 2


class Branching(cells.Cell):
    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + h) if x.sum() > -1e9 else x


FAULTS: list[tuple[Any, str]] = [
    (lambda: Squared(), "must be relu, tanh, sigmoid, .*, got pow"),
    (lambda: nn.Sequential(GRU(3, 5), nn.Conv1d(1, 1, 1)), "1: must be a layer of unrolled.nn"),
    (lambda: nn.Sequential(GRU(3, 5), hooked(nn.Linear(5, 2))), "1: must have no hooks"),
    (lambda: nn.Linear(3, 2), "Linear: blocks: one block must be recurrent"),
    (lambda: nn.Sequential(GRU(3, 5), nn.Linear(4, 2)), "linear: inputs must be 5, .*got 4"),
    (
        lambda: nn.Sequential(GRU(3, 5), GRU(5, 5, batch_first=True)),
        "batch_first must be the same in all",
    ),
    (
        lambda: GRU(3, 5, dtype=torch.bfloat16),
        "parameters must be torch.float32, got torch.bfloat16",
    ),
    (lambda: Recurrent(Branching, 3, 5), "must have a program, got none: cell Branching"),
    (lambda: EncoderDecoder(5, 5, hidden_size=4), "EncoderDecoder: module must be a chain"),
]


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_what_cannot_be_exported_is_named(number: int, tmp_path: Path) -> None:
    make, message = FAULTS[number]
    with pytest.raises(ExportError, match=message):
        export(make(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        export(GRU(3, 5), tmp_path / "missing" / "m.onnx")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ("net", {}, "export: module must be a torch.nn.Module, got str"),
        (GRU(3, 5), {"task": 3}, "export: task must be a str or None, got 3"),
        (GRU(3, 5), {"lengths": LENGTHS}, "export: lengths must be True or False, got Tensor"),
    ]
    for module, options, message in wrong:
        with pytest.raises(TypeError, match=message):
            export(module, tmp_path / "m.onnx", **options)
    with pytest.raises(TypeError, match="codec must have plain values and arrays only, got object"):
        export(GRU(3, 5), tmp_path / "m.onnx", codec={"a": object()})
    monkeypatch.setattr("unrolled.onnx._exporter.export.MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="GRU: the file must have at most 1000 bytes"):
        export(GRU(3, 50), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "unrolled.onnx")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unrolled\[onnx\]'$"):
        import unrolled.onnx  # noqa: F401


class Mine(cells.Cell):
    """An LSTM by another name, its gates and the terms of its sums in another order."""

    gates = ("o", "f", "g", "i")
    states = ("h", "c")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        c = cells.sigmoid(h.i + x.i) * cells.tanh(x.g + h.g) + state.c * cells.sigmoid(h.f + x.f)
        return cells.tanh(c) * cells.sigmoid(x.o + h.o), c


class Inverted(cells.LSTM):
    """Not an LSTM, although a subclass of it."""

    def step(self, x: Any, h: Any, state: Any) -> Any:
        h_t, c = super().step(x, h, state)
        return h_t, c + h_t


def test_operators_are_recognized_by_their_equations(tmp_path: Path) -> None:
    for cell, op_type in ((Mine, "LSTM"), (Inverted, "Scan")):
        layer = randomize(Recurrent(cell, 3, 5))
        run = exported_session(layer, tmp_path)
        assert node_counts(tmp_path / "model.onnx")[op_type] == 1
        x = torch.rand(4, 2, 3)
        assert_close(run.run(["y"], {"x": x.numpy()})[0], run_reference(layer, x)[0])
