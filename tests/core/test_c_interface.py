"""The C interface (docs/c.md) against the runtime: the same files, bits and refusals.

`make capi` builds the programs that run here: tests/core/steps.c, which reads commands from its
standard input, and examples/c. tests/core/files.cpp tests damaged files.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.support.c_steps import WEIGHTS, error_of_steps, run_steps
from tests.support.damaged_models import DAMAGES, QUANTIZED
from tests.support.paths import EFFECT, EXAMPLES, GOLDEN_FILES, STEPS
from tests.support.runtime_models import PUBLISHED, random
from unrolled import cells, io
from unrolled.cells import Cell
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.nn import GRU, LSTM, RNN
from unrolled.nn import Recurrent as Layers
from unrolled.runtime import Model, load
from unrolled.runtime._blocks import Recurrent
from unrolled.runtime._task_blocks import Forecast, Words

LOAD, TOKEN, ARGUMENT = 8, 4, 2  # exit statuses of steps

pytestmark = pytest.mark.skipif(
    not (STEPS.exists() and EFFECT.exists()), reason="`make capi` builds what is tested"
)


def floats(data: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(data, np.float32).reshape(*shape)


def inputs(model: Model, T: int, N: int) -> np.ndarray:
    chance = np.random.default_rng(3)
    if model.inputs is None:
        return chance.integers(0, len(model.blocks[0].table), (T, N))  # type: ignore[union-attr]
    return chance.standard_normal((T, N, model.inputs), np.float32)


def steps_of(x: np.ndarray) -> bytes:
    return b"".join(b"s" + row.tobytes() for row in x)


def same_steps(path: Path, N: int = 3, weights: str | None = None) -> None:
    """Steps, states, resets and copies of an exported file, in C and in Python."""
    model = load(path, weights)
    stream, x = model.stream(N), inputs(model, 9, N)
    row = np.array([1, N - 1], np.int64).tobytes()
    script = (
        steps_of(x[:4])
        + b"r"
        + row
        + steps_of(x[4:6])
        + b"c"
        + steps_of(x[6:7])
        + b"a"
        + steps_of(x[7:])
    )
    expected = [stream.step(row) for row in x[:4]]
    stream.reset([N - 1])
    expected += [stream.step(row) for row in x[4:]]
    states = b"".join(np.array(s).tobytes() for layer in stream.state for s in layer)
    actual = run_steps(path, N, script + b"g", weights)
    assert actual == np.stack(expected).tobytes() + states
    # A stream continues from states that are written, and a reset one starts like a new stream.
    repeated = run_steps(
        path, N, b"w" + states + steps_of(x[:1]) + b"r" + b"\xff" * 8 + steps_of(x[:4]), weights
    )
    assert repeated == stream.step(x[0]).tobytes() + np.stack(expected[:4]).tobytes()


@pytest.mark.parametrize("cell_class", PUBLISHED)
def test_any_cell(cell_class: type[Cell], tmp_path: Path) -> None:
    H = 6 if cell_class is cells.SLSTM else 7
    export(random(Layers(cell_class, 3, H, num_layers=2)), tmp_path / "m")
    same_steps(tmp_path / "m")


CODEC = {"mean": np.array([3.0, -1e3, 0.1]), "deviation": np.array([0.3, 7.0, 1e-3])}
MODELS: dict[str, tuple[nn.Module, Any]] = {
    "projection": (LSTM(3, 9, proj_size=4, num_layers=2), None),
    "head": (nn.Sequential(GRU(3, 20), nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 4)), None),
    "wide head": (nn.Sequential(RNN(3, 20), nn.Linear(20, 2501), nn.LogSoftmax(-1)), None),
    "inside": (nn.Sequential(nn.Linear(3, 6), nn.Tanh(), GRU(6, 5), nn.ReLU(), LSTM(5, 3)), None),
    "scale": (nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), CODEC),
    "heads": (nn.Sequential(Layers(cells.SLSTM(heads=3), 3, 12), nn.Linear(12, 2)), None),
    **{
        f"{pooling}, {reads}": (
            SequenceModel(
                11, 4, hidden_size=9, input=reads, embedding_size=6, num_layers=2,
                cell="LSTM", pooling=pooling, initial="learned",
            ),
            None,
        )
        for pooling in (None, "last", "mean", "max", "attention")
        for reads in ("embedding", "one-hot")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_any_model(name: str, tmp_path: Path) -> None:
    module, codec = MODELS[name]
    export(random(module.eval()), tmp_path / "m", codec=codec)
    same_steps(tmp_path / "m")


@pytest.mark.parametrize("weights", WEIGHTS[1:])
@pytest.mark.parametrize("N", [2, 17])
def test_low_precision_weights_and_batches(weights: str, N: int, tmp_path: Path) -> None:
    module = random(nn.Sequential(LSTM(5, 40), nn.Linear(40, 33)))
    x = steps_of(np.ones((1, 5), np.float32))
    export(module, tmp_path / "short", weights=weights)
    export(module, tmp_path / "m")
    same_steps(tmp_path / "short", N)
    same_steps(tmp_path / "short", N, "int8")
    same_steps(tmp_path / "m", N, weights)
    assert run_steps(tmp_path / "short", 1, x) == run_steps(tmp_path / "m", 1, x, weights)
    assert (run_steps(tmp_path / "m", 1, x) == run_steps(tmp_path / "m", 1, x, weights)) is (
        weights == "float32"
    )


def test_the_description_of_a_model(tmp_path: Path) -> None:
    tokens = SequenceModel(11, 4, hidden_size=9, cell="LSTM", num_layers=2, pooling="max")
    export(tokens, tmp_path / "m", task="classify", codec={"characters": 'aé\n"😀'})
    actual = np.frombuffer(run_steps(tmp_path / "m", 3, b"i"), np.int64)
    assert actual.tolist() == [11, 1, 4, 3, 7, 9, 9, 9, 9, 18, 2, 1]
    described = json.loads(run_steps(tmp_path / "m", 1, b"d"))["tree"]["dict"]
    assert described["task"] == "classify"
    assert described["codec"]["dict"]["characters"] == 'aé\n"😀'
    export(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), tmp_path / "m")
    actual = np.frombuffer(run_steps(tmp_path / "m", 1, b"i"), np.int64)
    assert actual.tolist() == [0, 3, 2, 1, 1, 5]


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_old_files_step(path: Path) -> None:
    """Or report that they cannot; the tests of the runtime check their numbers."""
    blocks = load(path).blocks
    if (
        "encoder" in io.load(path)
        or isinstance(blocks[0], Words)
        or isinstance(blocks[-1], Forecast)
    ):
        assert "not in the C interface" in error_of_steps(path)[1]
    elif any(isinstance(block, Recurrent) and block.num_directions > 1 for block in blocks):
        assert "Model: stream needs one direction, got two" in error_of_steps(path)[1]
    else:
        same_steps(path)


def test_invalid_tokens_and_rows_are_reported(tmp_path: Path) -> None:
    export(SequenceModel(4, 2, hidden_size=3, embedding_size=2), tmp_path / "m")
    for token in (4, -1, 2**62, -(2**63)):
        x = np.array([[0, token]], np.int64)
        assert error_of_steps(tmp_path / "m", steps_of(x), 2) == (
            TOKEN,
            "a token must be from 0 to V - 1\n",
        )
    for row in (2, -1):
        script = b"r" + np.array([1, row], np.int64).tobytes()
        assert error_of_steps(tmp_path / "m", script, 2)[0] == ARGUMENT
    for N in (0, -1, 2**31 - 1):
        assert error_of_steps(tmp_path / "m", N=N)[0] == LOAD


@pytest.mark.parametrize(("message", "damage"), DAMAGES + QUANTIZED)
def test_what_the_runtime_refuses_is_refused(message: str, damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights = "int8" if (message, damage) in QUANTIZED else "float32"
    export(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), path, weights=weights)
    assert run_steps(path, 1, b"") == b""
    tree = io.load(path)
    damage(tree)
    io.save(path, tree)
    status, stderr = error_of_steps(path)
    assert status == LOAD
    assert stderr.startswith(f"{path}: holds no model that this version reads (")


def test_missing_files_and_other_files_are_reported(tmp_path: Path) -> None:
    assert error_of_steps(tmp_path / "absent")[1].endswith("absent: No such file or directory\n")
    assert "not a whole safetensors file" in error_of_steps(tmp_path)[1]
    assert (
        "not a whole safetensors file (it is too short, or no file)"
        in error_of_steps(Path("/dev/null"))[1]
    )
    io.save(tmp_path / "m", {"a": np.ones(3)})
    assert "holds no model" in error_of_steps(tmp_path / "m")[1]


def test_the_example(tmp_path: Path) -> None:
    """More frames than a block has."""
    export(random(nn.Sequential(GRU(2, 6), nn.Linear(6, 3))), tmp_path / "m")
    x = np.random.default_rng(4).standard_normal((150, 1, 2), np.float32)
    process = subprocess.run(
        [EFFECT, tmp_path / "m"], input=x.tobytes(), capture_output=True, check=True
    )
    assert process.stdout == load(tmp_path / "m").run(x).tobytes()
    source = EXAMPLES / "c" / "effect.cpp"
    assert len(source.read_text().splitlines()) <= 60
