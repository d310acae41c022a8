"""Exported models without torch: the layers' numbers; streams and whole sequences to the bit."""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tolerances import close
from unrolled import cells, engines, io
from unrolled.cells import Cell
from unrolled.export import ExportError, export
from unrolled.models import SequenceModel
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.nn.snapshot import describe_layer
from unrolled.runtime import Model, load
from unrolled.runtime.description import VERSION
from unrolled.runtime.model import model_of

GOLDEN = Path(__file__).parent / "golden"

PUBLISHED = [
    kind
    for name in cells.__all__
    if isinstance(kind := getattr(cells, name), type)
    and issubclass(kind, Cell)
    and kind is not Cell
]


def exported(module: nn.Module, folder: Path, **options: Any) -> Model:
    export(module, folder / "model.safetensors", **options)
    return load(folder / "model.safetensors")


def random(module: nn.Module) -> nn.Module:
    """Every parameter random, those that start at constants too."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.4, 0.4)
    return module


def steps(model: Model, x: np.ndarray, batch: int) -> np.ndarray:
    stream = model.stream(batch)
    return np.stack([stream.step(np.ascontiguousarray(row)) for row in x])


def wanted(module: nn.Module, x: np.ndarray, *rest: Any, **options: Any) -> Any:
    with torch.no_grad(), engines.use("reference"):
        return module(torch.from_numpy(x), *rest, **options)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_any_cell_runs_and_steps(kind: type[Cell], tmp_path: Path) -> None:
    H = 6 if kind is cells.SLSTM else 7
    layer = random(Recurrent(kind, 3, H, num_layers=2))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(0).standard_normal((9, 4, 3), np.float32)
    found, (state,) = model.run(x, return_state=True)
    output, final = wanted(layer, x)
    close(torch.from_numpy(found), output, "output")
    parts = (final,) if isinstance(final, Tensor) else final
    for k, part in enumerate(parts):
        close(torch.from_numpy(np.stack([one[k] for one in state])), part, "output")
    assert np.array_equal(steps(model, x, 4), found)
    one = model.stream()
    for t in range(9):
        assert np.array_equal(one.step(x[t, 2])[0], found[t, 2])


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("H", [1, 5, 33, 100])
@pytest.mark.parametrize("layer", [LSTM, GRU, RNN])
def test_steps_are_the_sequence_to_the_bit(
    layer: Any, H: int, weights: str, tmp_path: Path
) -> None:
    """For every number of rows there is another tile, and with threads another panel."""
    export(random(layer(6, H)), tmp_path / "m")
    model = load(tmp_path / "m", weights=weights)
    x = np.random.default_rng(1).standard_normal((40, 13, 6), np.float32)
    model.threads = 2
    found = model.run(x)
    for batch in (1, 2, 3, 5, 13):
        assert np.array_equal(steps(model, x[:, :batch], batch), found[:, :batch])
        assert np.array_equal(model.run(x[:, :batch]), found[:, :batch])
    model.threads = 1
    assert np.array_equal(model.run(x), found)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("N", [1, 3, 40])
def test_large_layers_on_threads(N: int, threads: int, tmp_path: Path) -> None:
    """Where threads share the units of a step, panels are packed for each share."""
    torch.manual_seed(5)
    layer = LSTM(96, 200)
    model = exported(layer, tmp_path)
    model.threads = threads
    x = np.random.default_rng(2).standard_normal((30, N, 96), np.float32)
    found = model.run(x)
    close(torch.from_numpy(found), wanted(layer, x)[0], "output")
    assert np.array_equal(steps(model, x, N), found)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_lengths(options: Any, tmp_path: Path) -> None:
    layer = random(GRU(3, 5, **options))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(3).standard_normal((8, 5, 3), np.float32)
    lengths = [3, 8, 0, 1, 5]
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    found, (state,) = model.run(x, lengths=lengths, return_state=True)
    output, final = wanted(layer, x, lengths=torch.tensor(lengths))
    close(torch.from_numpy(found), output, "output")
    close(torch.from_numpy(np.stack([one[0] for one in state])), final, "output")
    with pytest.raises(ValueError, match=r"lengths: wanted 0 to 8, got \[9, "):
        model.run(x, lengths=[9, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="lengths: wanted 5 whole numbers, got int64 of shape"):
        model.run(x, lengths=[1, 2])


def test_projection_and_state(tmp_path: Path) -> None:
    layer = random(LSTM(3, 8, num_layers=2, proj_size=5))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(4).standard_normal((10, 2, 3), np.float32)
    found = model.run(x)
    close(torch.from_numpy(found), wanted(layer, x)[0], "output")
    first, state = model.run(x[:4], return_state=True)
    second = model.run(x[4:], state=state)
    assert np.array_equal(np.concatenate([first, second]), found)
    stream = model.stream(2)
    stream.state = state[0]
    assert np.array_equal(stream.step(np.ascontiguousarray(x[4])), found[4])


@pytest.mark.parametrize("pooling", [None, "last", "mean", "max", "attention"])
@pytest.mark.parametrize("input", ["embedding", "one-hot"])
def test_a_model_of_tokens(input: str, pooling: str | None, tmp_path: Path) -> None:
    model = SequenceModel(
        11, 4, hidden_size=9, cell="LSTM", input=input, embedding_size=6, num_layers=2,
        pooling=pooling, initial="learned", dropout=0.5,
    ).eval()  # fmt: skip
    random(model)
    runtime = exported(model, tmp_path)
    tokens = np.random.default_rng(5).integers(0, 11, (7, 3))
    found = runtime.run(tokens)
    close(torch.from_numpy(found), wanted(model, tokens)[0], "output")
    stream = runtime.stream(3)
    told = [stream.step(row) for row in tokens]
    assert np.array_equal(np.stack(told) if pooling is None else told[-1], found)
    single = runtime.stream()
    for token in tokens[:, 1].tolist():
        last = single.step(token)
    assert np.array_equal(last[0], found[-1, 1] if pooling is None else found[1])
    lengths = np.array([7, 0 if pooling == "mean" else 2, 4])
    if pooling is not None:
        ends = wanted(model, tokens, lengths=torch.from_numpy(lengths))[0]
        close(torch.from_numpy(runtime.run(tokens, lengths=lengths)), ends, "output")


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_pools_are_read_after_each_step(pooling: str, tmp_path: Path) -> None:
    """As the model's own ``after_each``; reset and copied with the rest."""
    model = random(SequenceModel(5, 3, hidden_size=6, pooling=pooling, embedding_size=2).eval())
    runtime = exported(model, tmp_path)
    tokens = np.random.default_rng(15).integers(0, 5, (8, 2))
    with torch.no_grad():
        expected = model.after_each(torch.from_numpy(tokens))  # type: ignore[operator]
    stream = runtime.stream(2)
    found = []
    for row in tokens:
        twin = stream.copy()
        found.append(stream.step(row))
        assert np.array_equal(twin.step(row), found[-1])
    close(torch.from_numpy(np.stack(found)), expected, "output")
    assert np.array_equal(found[-1], runtime.run(tokens))
    both = random(SequenceModel(5, 3, hidden_size=6, pooling=pooling, bidirectional=True).eval())
    lengths = [8, 3]
    again = exported(both, tmp_path).run(tokens, lengths=lengths)
    ends = wanted(both, tokens, lengths=torch.tensor(lengths))[0]
    close(torch.from_numpy(again), ends, "output")
    stream.reset(rows=[1])
    fresh = runtime.stream(2)
    assert np.array_equal(stream.step(tokens[0])[1], fresh.step(tokens[0])[1])


def test_a_chain_of_parts(tmp_path: Path) -> None:
    last = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
            "softmax": nn.Softmax(-1), "log_softmax": nn.LogSoftmax(-1)}  # fmt: skip
    layer, head = random(GRU(3, 5)), random(nn.Linear(5, 70))
    x = np.random.default_rng(6).standard_normal((6, 2, 3), np.float32)
    hidden = wanted(layer, x)[0]
    for module in last.values():
        chain = nn.Sequential(layer, nn.Tanh(), nn.Dropout(0.5), head, module)
        model = exported(chain, tmp_path)
        found = model.run(x)
        with torch.no_grad():
            close(torch.from_numpy(found), module(head(torch.tanh(hidden))), "output")
        assert np.array_equal(steps(model, x, 2), found)


@pytest.mark.parametrize(("weights", "most"), [("bfloat16", 0.02), ("int8", 0.02)])
def test_short_weights_are_near(weights: str, most: float, tmp_path: Path) -> None:
    """bfloat16 rounds to 1 part in 256, int8 to half a 127th of a row's largest."""
    layer = LSTM(20, 64)
    export(layer, tmp_path / "m", weights=weights)
    x = np.random.default_rng(7).standard_normal((30, 2, 20), np.float32)
    full = load(tmp_path / "m", weights="float32").run(x)
    close(torch.from_numpy(full), wanted(layer, x)[0], "output")
    error = np.abs(load(tmp_path / "m").run(x) - full).max()
    assert 1e-6 < error < most


def test_int8_is_exact_where_the_weights_are(tmp_path: Path) -> None:
    """Whole multiples of a row's scale lose nothing."""
    layer = RNN(4, 3)
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (layer.weight_ih_l0, layer.weight_hh_l0):
            weight.copy_(torch.randint(-126, 127, weight.shape, generator=chance) / 128)
            weight[:, 0] = 127 / 128
    export(layer, tmp_path / "m")
    x = np.random.default_rng(8).integers(-8, 8, (12, 2, 4)).astype(np.float32)
    exact, short = (load(tmp_path / "m", weights=w).run(x) for w in ("float32", "int8"))
    assert np.abs(exact - short).max() < 2e-6


# Streams


def test_streams_reset_and_copy(tmp_path: Path) -> None:
    model = exported(random(LSTM(3, 5, num_layers=2)), tmp_path)
    x = np.random.default_rng(9).standard_normal((6, 4, 3), np.float32)
    stream, fresh = model.stream(4), model.stream(4)
    for row in x[:3]:
        stream.step(row)
    twin = stream.copy()
    after = stream.step(x[3])
    assert np.array_equal(twin.step(x[3]), after)
    stream.reset(rows=[0, 2])
    found, begun = stream.step(x[4]), fresh.step(x[4])
    went_on = twin.step(x[4])
    assert np.array_equal(found[[0, 2]], begun[[0, 2]])
    assert np.array_equal(found[[1, 3]], went_on[[1, 3]])
    assert not np.array_equal(found[1], begun[1])
    stream.reset()
    fresh.reset()
    assert np.array_equal(stream.step(x[5]), fresh.step(x[5]))


def test_out_takes_what_is_made(tmp_path: Path) -> None:
    model = exported(random(GRU(3, 5)), tmp_path)
    x, out = np.ones((1, 3), np.float32), np.full((1, 5), np.nan, np.float32)
    first, second = model.stream(), model.stream()
    assert first.step(x, out) is out
    assert np.array_equal(out, second.step(x))


def test_threads_own_streams_of_one_model(tmp_path: Path) -> None:
    model = exported(random(LSTM(16, 128)), tmp_path)
    x = np.random.default_rng(10).standard_normal((50, 1, 16), np.float32)
    expected = model.run(x)
    found: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        found[k] = steps(model, x, 1)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(one, expected) for one in found.values())


FAULTS: list[tuple[Any, Any, type[Exception], str]] = [
    (np.ones((1, 3)), None, TypeError, "x: wanted float32, got the type d"),
    (np.ones((2, 3), np.float32), None, ValueError, "x: wanted 3 numbers, got 6"),
    (np.ones((3, 2), np.float32)[:, 0], None, TypeError, "x: wanted a contiguous array"),
    ("abc", None, TypeError, "x: wanted a contiguous array"),
    (3, None, TypeError, "x: wanted a contiguous array"),
    (np.ones(3, np.float32), np.ones(4, np.float32), ValueError, "out: wanted 5 numbers, got 4"),
    (np.ones(3, np.float32), np.ones(5), TypeError, "out: wanted float32"),
    (np.ones(3, np.float32), b"abcde", TypeError, "out: wanted a contiguous array that can be"),
]


@pytest.mark.parametrize(("x", "out", "error", "said"), FAULTS)
def test_a_step_refuses(
    x: Any, out: Any, error: type[Exception], said: str, tmp_path: Path
) -> None:
    stream = exported(GRU(3, 5), tmp_path).stream()
    with pytest.raises(error, match=said):
        stream.step(x, out)


def test_tokens_that_are_not_there(tmp_path: Path) -> None:
    model = exported(SequenceModel(4, 2, hidden_size=3, embedding_size=2), tmp_path)
    for stream, token in ((model.stream(), 4), (model.stream(), -1)):
        with pytest.raises(IndexError, match=f"x: wanted tokens from 0 to 3, got {token}"):
            stream.step(token)
    with pytest.raises(IndexError, match="x: wanted tokens from 0 to 3, got 9"):
        model.stream(2).step(np.array([1, 9]))
    with pytest.raises(IndexError, match="x: wanted tokens from 0 to 3, got 9"):
        model.run(np.array([[1, 9]]))
    with pytest.raises(TypeError, match="x: wanted tokens in int32 or int64"):
        model.stream(2).step(np.ones(2))
    with pytest.raises(ValueError, match="x: wanted a token for each sequence, got one"):
        model.stream(2).step(1)
    with pytest.raises(TypeError, match="x: wanted tokens, whole numbers, got float64"):
        model.run(np.ones((3, 1)))


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, given, made: 2 * made)
    return module


def test_a_part_may_stand_in_a_chain_twice(tmp_path: Path) -> None:
    """And before the first layer."""
    relu, same = nn.ReLU(), random(nn.Linear(5, 5))
    layer, first = random(GRU(4, 5)), random(nn.Linear(3, 4))
    model = exported(nn.Sequential(first, relu, layer, same, relu, same, relu), tmp_path)
    x = np.random.default_rng(16).standard_normal((6, 2, 3), np.float32)
    with torch.no_grad():
        hidden = layer(torch.relu(first(torch.from_numpy(x))))[0]
        expected = torch.relu(same(torch.relu(same(hidden))))
    found = model.run(x)
    close(torch.from_numpy(found), expected, "output")
    assert np.array_equal(steps(model, x, 2), found)


def test_states_of_other_shapes_are_refused(tmp_path: Path) -> None:
    model = exported(random(LSTM(3, 5, num_layers=2)), tmp_path)
    x = np.ones((4, 2, 3), np.float32)
    _, (state,) = model.run(x, return_state=True)
    for wrong in ([], [state[:1]], [state, state], [[(s[0].T, s[1]) for s in state]]):
        with pytest.raises(ValueError, match=r"state: wanted arrays of shapes"):
            model.run(x, state=wrong)
    stream = model.stream(2)
    before = stream.state
    with pytest.raises(ValueError, match="state: wanted"):
        stream.state = [state[0], (state[1][0], state[1][1][:1])]
    assert all(np.array_equal(a, b) for a, b in zip(before[0], stream.state[0], strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_keeps_what_is_no_number(value: float, tmp_path: Path) -> None:
    layer = RNN(3, 4)
    with torch.no_grad():
        layer.weight_ih_l0[1, 2] = value
    export(layer, tmp_path / "m")
    found = load(tmp_path / "m", weights="int8").run(np.ones((1, 1, 3), np.float32))[0, 0]
    assert np.isnan(found).tolist() == [False, True, False, False]


def test_two_threads_in_one_stream_do_no_harm(tmp_path: Path) -> None:
    """One of them is told, or each had its turn."""
    stream = exported(random(LSTM(64, 300)), tmp_path).stream()
    x = np.ones((1, 64), np.float32)
    said: list[str] = []

    def work() -> None:
        for _ in range(300):
            try:
                stream.step(x)
            except RuntimeError as error:
                said.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(said) <= {"stream: another thread is in a step of it; each may have its own copy"}
    assert np.isfinite(stream.step(x)).all()


def test_what_has_no_steps_or_no_program(tmp_path: Path) -> None:
    both = exported(GRU(3, 5, bidirectional=True), tmp_path)
    with pytest.raises(ValueError, match="stream: wanted a model of one direction, got two"):
        both.stream()
    with pytest.raises(ValueError, match="batch: wanted at least 1, got 0"):
        exported(GRU(3, 5), tmp_path).stream(0)
    path = tmp_path / "no"
    faults: list[tuple[nn.Module, str]] = [
        (nn.Sequential(GRU(3, 5), nn.Conv1d(1, 1, 1)), "1: wanted layers of unrolled.nn, .*Conv1d"),
        (GRU(3, 5).double(), "GRU: wanted float32, got torch.float64"),
        (GRU(3, 5, batch_first=True), "GRU: wanted batch_first=False"),
        (nn.Linear(3, 5), "Linear: blocks: wanted a layer among them"),
        (nn.Sequential(GRU(3, 5), nn.Linear(6, 2)), "Sequential: blocks: Linear reads 6 numbers"),
        (nn.Sequential(GRU(3, 5), Doubled(5, 5)), "1: wanted layers of unrolled.nn, .*Doubled"),
        (nn.Sequential(GRU(3, 5), hooked(nn.Linear(5, 5))), "1: wanted no hooks"),
        (Recurrent(cells.RNN(nn.GELU()), 3, 4), "Recurrent: has no program"),
        (nn.Sequential(GRU(3, 5), nn.Softmax(0)), "1: wanted softmax over the last dimension"),
    ]
    for module, said in faults:
        with pytest.raises(ExportError, match=said):
            export(module, path)
    assert not path.exists()
    with pytest.raises(ValueError, match="weights: wanted float32, bfloat16 or int8, got 'int4'"):
        export(GRU(3, 5), path, weights="int4")


def test_layers_have_streams_of_their_own() -> None:
    layer = random(Recurrent(cells.MGU, 3, 5, num_layers=2))
    x = np.random.default_rng(11).standard_normal((6, 2, 3), np.float32)
    stream = layer.stream(2)
    before = wanted(layer, x)[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    found = np.stack([stream.step(row) for row in x])
    close(torch.from_numpy(found), before, "output")
    short = layer.stream(1, weights="int8")
    assert not short.step(x[0, 0]).any()
    with pytest.raises(ValueError, match=r"GRU: wanted float32, got torch\.float64"):
        GRU(3, 5).double().stream()
    with pytest.raises(ValueError, match="stream: wanted a model of one direction"):
        GRU(3, 5, bidirectional=True).stream()
    with pytest.raises(ValueError, match="weights: wanted float32, bfloat16 or int8, got int3"):
        GRU(3, 5).stream(weights="int3")


def test_numbers_are_scaled_as_they_were_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    tree = {
        "mean": rng.standard_normal(3) * 100, "deviation": rng.random(3) + 0.1,
    }  # fmt: skip
    layer = random(GRU(3, 5))
    blocks = [{"block": "scale", **tree}, describe_layer(layer, "GRU")]
    model = model_of(blocks)
    x = (rng.standard_normal((6, 2, 3)) * 100).astype(np.float32)
    scaled = ((x.astype(np.float64) - tree["mean"]) / tree["deviation"]).astype(np.float32)
    found = model.run(x)
    assert np.array_equal(found, model_of(blocks[1:]).run(scaled))
    assert np.array_equal(steps(model, x, 2), found)


# Files


def test_nothing_of_torch_is_loaded(tmp_path: Path) -> None:
    export(random(LSTM(3, 5)), tmp_path / "m")
    code = f"""
import sys
import numpy as np
from unrolled.runtime import load
stream = load({str(tmp_path / "m")!r}).stream()
print(stream.step(np.ones(3, np.float32)).shape)
heavy = ["torch", "lightning", "typer", "matplotlib", "unrolled.nn", "unrolled.engines"]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1, 5)", "[]"]


def test_old_files_keep_loading() -> None:
    """Written by version 1 of the description; their numbers stand beside them."""
    for path in sorted(GOLDEN.glob("*.safetensors")):
        told = json.loads(path.with_suffix(".json").read_text())
        found = load(path).run(np.array(told["x"], told["dtype"]))
        assert np.abs(found - np.array(told["y"], np.float32)).max() < 1e-6, path.name
    assert len(list(GOLDEN.glob("*.safetensors"))) >= 3


DAMAGES: list[tuple[str, Any]] = [
    ("version", lambda tree: tree.update(version=VERSION + 1)),
    ("version", lambda tree: tree.update(version="1")),
    ("kind", lambda tree: tree.update(kind="recipe")),
    ("block", lambda tree: tree["blocks"][0].update(block="attention")),
    ("program", lambda tree: cell(tree).update(program="unrolled-program 9\n")),
    ("program", lambda tree: cell(tree).update(program=cell(tree)["program"][:200])),
    ("program", lambda tree: cell(tree).update(program=7)),
    ("sizes", lambda tree: cell(tree).update(sizes=(3, 5, 7))),
    ("sizes", lambda tree: cell(tree).update(sizes=(3, 1 << 40, 1 << 40))),
    ("sizes", lambda tree: cell(tree).update(sizes=(-3, 5, 5))),
    ("arrays", lambda tree: cell(tree)["arrays"].pop()),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, None)),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, np.ones(15))),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, np.ones((2, 2), np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones(5, np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(bias=np.ones(9, np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones((2, 6), np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones((0, 5), np.float32), bias=None)),
    ("layers", lambda tree: tree["blocks"][0].update(layers=[])),
    ("layers", lambda tree: tree["blocks"][0].update(layers=[[]])),
    ("start", lambda tree: tree["blocks"][0].update(start=[(np.ones((1, 4), np.float32),)])),
    ("blocks", lambda tree: tree.update(blocks=[])),
    ("order", lambda tree: tree["blocks"].append({"block": "last"})),
    ("order", lambda tree: tree["blocks"].append(tree["blocks"][0])),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("median"))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention"))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("mean", linear(5)))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention", linear(5)))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention", linear(4), linear(4)))),
    ("scale", lambda tree: tree["blocks"].insert(0, scale(3, 1))),
    ("scale", lambda tree: tree["blocks"].insert(0, scale(2, 2))),
    ("scale", lambda tree: tree["blocks"].append(scale(2, 2))),
    ("blocks", lambda tree: tree.pop("blocks")),
    ("task", lambda tree: tree.pop("task")),
]


def pooling(name: str, keys: Any = None, query: Any = None) -> dict[str, Any]:
    return {"block": "pooling", "name": name, "width": 5, "keys": keys, "query": query}


def linear(inputs: int) -> dict[str, Any]:
    return {"block": "linear", "weight": np.ones((1, inputs), np.float32), "bias": None}


def scale(*sizes: int) -> dict[str, Any]:
    parts = zip(("mean", "deviation"), sizes, strict=True)
    return {"block": "scale"} | {name: np.ones(size) for name, size in parts}


def cell(tree: Any) -> Any:
    return tree["blocks"][0]["layers"][0][0]


@pytest.mark.parametrize(("what", "damage"), DAMAGES)
def test_a_damaged_file_is_told(what: str, damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    export(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), path)
    tree = io.load(path)
    damage(tree)
    io.save(path, tree)
    with pytest.raises(io.FileError, match=r"m\.safetensors: holds no model that this"):
        load(path)


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    for data, said in ((b"", "not a whole"), (b"x" * 100, "not a whole")):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(io.FileError, match=said):
            load(tmp_path / "m")
    with pytest.raises(io.FileError, match="No such file"):
        load(tmp_path / "absent")
    io.save(tmp_path / "m", {"a": np.ones(3)})
    with pytest.raises(io.FileError, match="holds no model"):
        load(tmp_path / "m")


def test_bytes_changed_at_random_do_no_harm(tmp_path: Path) -> None:
    """What loads runs; what does not says so."""
    path = tmp_path / "m"
    export(nn.Sequential(LSTM(3, 4), nn.Linear(4, 2)), path)
    whole = path.read_bytes()
    chance = np.random.default_rng(13)
    x = np.ones((3, 1, 3), np.float32)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in chance.integers(0, len(data), chance.integers(1, 4)):
            data[at] = chance.integers(0, 256)
        path.write_bytes(data[: len(data) - int(chance.integers(0, 2)) * 7])
        try:
            model = load(path)
        except io.FileError:
            refused += 1
            continue
        with contextlib.suppress(ValueError, TypeError):
            model.run(x)
            model.stream().step(x[0])
    assert 100 < refused < 400


# Modules of one's own


class Own(nn.Module):
    """An embedding, layers and a head, as users write them."""

    def __init__(self, kind: Any = GRU, how: str = "outputs", **options: Any) -> None:
        super().__init__()
        self.how = how
        self.table = nn.Embedding(7, 3)
        self.rnn = kind(3, 5, **options)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Any:
        y, h = self.rnn(self.table(x))
        if self.how == "state":
            y = (h[0] if isinstance(self.rnn, LSTM) else h)[-1]
        elif self.how == "pair":
            y = h[-1]
        elif self.how == "step":
            y = y[-1]
        elif self.how == "sum":
            y = y + 1
        elif self.how == "mean":
            y = y.mean(0)
        y = torch.softmax(self.head(torch.tanh(self.drop(y))), dim=-1)
        return (y, h) if self.how == "both" else y


@pytest.mark.parametrize("kind", [GRU, LSTM])
@pytest.mark.parametrize("how", ["outputs", "state", "step", "both"])
def test_a_module_of_ones_own_is_followed(kind: Any, how: str, tmp_path: Path) -> None:
    module = random(Own(kind, how, num_layers=2).eval())
    model = exported(module, tmp_path)
    tokens = np.random.default_rng(14).integers(0, 7, (6, 3))
    expected = wanted(module, tokens)
    expected = expected[0] if how == "both" else expected
    found = model.run(tokens)
    close(torch.from_numpy(found), expected, "output")
    stream = model.stream(3)
    told = np.stack([stream.step(row) for row in tokens])
    assert np.array_equal(told if how in ("outputs", "both") else told[-1], found)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = GRU(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] + x if x.sum() > 0 else x


def test_what_is_no_chain_is_told(tmp_path: Path) -> None:
    faults: list[tuple[nn.Module, str]] = [
        (Own(how="sum"), "add: wanted relu, tanh, sigmoid, or softmax over dim=-1"),
        (Own(how="mean"), "mean: wanted relu, tanh or sigmoid"),
        (Own(LSTM, how="pair"), r"a layer's outputs, or \[-1\] of them"),
        (Own(how="step", bidirectional=True), r"a layer's outputs, or \[-1\] of them in one"),
        (Branching(), "Branching: cannot be followed"),
        (nn.Conv1d(1, 1, 1), "Conv1d: wanted layers of unrolled.nn"),
    ]
    for module, said in faults:
        with pytest.raises(ExportError, match=said):
            export(module, tmp_path / "m")
