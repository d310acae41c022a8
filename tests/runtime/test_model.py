"""Exported models without torch: the layers' numbers; streams and whole sequences to the bit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.runtime_models import PUBLISHED, exported, random, run_reference, steps
from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.nn._snapshot import describe_layer
from unrolled.runtime import Model, load
from unrolled.runtime._schema import ChainModel, ScaleBlock


@pytest.mark.parametrize("cell_class", PUBLISHED)
def test_any_cell_runs_and_steps(cell_class: type[Cell], tmp_path: Path) -> None:
    H = 6 if cell_class is cells.SLSTM else 7
    layer = random(Recurrent(cell_class, 3, H, num_layers=2))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(0).standard_normal((9, 4, 3), np.float32)
    y, (state,) = model.run(x, return_state=True)
    output, final = run_reference(layer, x)
    close(torch.from_numpy(y), output, "output")
    parts = (final,) if isinstance(final, Tensor) else final
    for k, part in enumerate(parts):
        close(torch.from_numpy(np.stack([layer_state[k] for layer_state in state])), part, "output")
    assert np.array_equal(steps(model, x, 4), y)
    single = model.stream()
    for t in range(9):
        assert np.array_equal(single.step(x[t, 2])[0], y[t, 2])


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
    y = model.run(x)
    for batch in (1, 2, 3, 5, 13):
        assert np.array_equal(steps(model, x[:, :batch], batch), y[:, :batch])
        assert np.array_equal(model.run(x[:, :batch]), y[:, :batch])
    model.threads = 1
    assert np.array_equal(model.run(x), y)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("N", [1, 3, 40])
@pytest.mark.parametrize("cell_name", ["LSTM", "ResetBeforeGRU", "LayerNormGRU"])
def test_large_layers_on_threads(cell_name: str, N: int, threads: int, tmp_path: Path) -> None:
    """Threads share the units of a step, in one phase or two, or the sequences; panels are packed
    for each share."""
    torch.manual_seed(5)
    layer = Recurrent(getattr(cells, cell_name), 96, 300)
    model = exported(layer, tmp_path)
    model.threads = threads
    x = np.random.default_rng(2).standard_normal((12, N, 96), np.float32)
    y = model.run(x)
    rounded_reference = run_reference(layer, x)[0]
    exact = run_reference(layer.double(), x.astype(np.float64))[0]
    close(torch.from_numpy(y), exact, "output", rounded_reference=rounded_reference)
    stream = model.stream(N, threads)
    assert np.array_equal(np.stack([stream.step(row) for row in x]), y)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("part", [slice(0, 300), slice(7, 307)])
def test_a_step_may_write_where_it_reads(part: slice, threads: int, tmp_path: Path) -> None:
    """One thread's results are not what another takes for its inputs."""
    stream = exported(random(LSTM(300, 300)), tmp_path).stream(threads=threads)
    separate_stream = stream.copy()
    buffer = np.random.default_rng(4).standard_normal((1, 400), np.float32)
    x = buffer[:, :300]
    for _ in range(50):
        expected = separate_stream.step(x.copy())
        y = stream.step(x, buffer[:, part])
        assert np.array_equal(y, expected)


def test_more_threads_than_there_is_work_for(tmp_path: Path) -> None:
    model = exported(random(LSTM(100, 200)), tmp_path)
    x = np.ones((1, 100), np.float32)
    assert np.array_equal(model.stream(threads=2**61).step(x), model.stream().step(x))
    with pytest.raises(ValueError, match="Stream: threads must be at least 1, got 0"):
        model.stream(threads=0)
    with pytest.raises(TypeError, match=r"Stream: threads must be a whole number, got 1\.5"):
        model.stream(threads=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Stream: batch must be a whole number, got 'a'"):
        model.stream("a")  # type: ignore[arg-type]


def test_a_forked_child_steps_alone(tmp_path: Path) -> None:
    """It has lost the threads for which the weights were packed."""
    model = exported(Recurrent(cells.ResetBeforeGRU, 96, 300), tmp_path)
    x = np.random.default_rng(3).standard_normal((5, 1, 96), np.float32)
    stream, child_stream = model.stream(threads=2), model.stream(threads=2)
    expected = np.stack([stream.step(row) for row in x])
    pid = os.fork()
    if pid == 0:
        y = np.stack([child_stream.step(row) for row in x])
        os._exit(0 if np.array_equal(y, expected) else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_lengths(options: Any, tmp_path: Path) -> None:
    layer = random(GRU(3, 5, **options))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(3).standard_normal((8, 5, 3), np.float32)
    lengths = [3, 8, 0, 1, 5]
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    y, (state,) = model.run(x, lengths=lengths, return_state=True)
    output, final = run_reference(layer, x, lengths=torch.tensor(lengths))
    close(torch.from_numpy(y), output, "output")
    close(torch.from_numpy(np.stack([layer_state[0] for layer_state in state])), final, "output")
    with pytest.raises(ValueError, match=r"Model: lengths must be from 0 to 8, got \[9, "):
        model.run(x, lengths=[9, 1, 1, 1, 1])
    with pytest.raises(
        ValueError, match="Model: lengths must be 5 whole numbers, got int64 of shape"
    ):
        model.run(x, lengths=[1, 2])


def test_projection_and_state(tmp_path: Path) -> None:
    layer = random(LSTM(3, 8, num_layers=2, proj_size=5))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(4).standard_normal((10, 2, 3), np.float32)
    y = model.run(x)
    close(torch.from_numpy(y), run_reference(layer, x)[0], "output")
    head, state = model.run(x[:4], return_state=True)
    tail = model.run(x[4:], state=state)
    assert np.array_equal(np.concatenate([head, tail]), y)
    stream = model.stream(2)
    stream.state = state[0]
    assert np.array_equal(stream.step(np.ascontiguousarray(x[4])), y[4])


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
    y = runtime.run(tokens)
    close(torch.from_numpy(y), run_reference(model, tokens)[0], "output")
    stream = runtime.stream(3)
    stepped = [stream.step(row) for row in tokens]
    assert np.array_equal(np.stack(stepped) if pooling is None else stepped[-1], y)
    single = runtime.stream()
    for token in tokens[:, 1].tolist():
        output = single.step(token)
    assert np.array_equal(output[0], y[-1, 1] if pooling is None else y[1])
    lengths = np.array([7, 0 if pooling == "mean" else 2, 4])
    if pooling is not None:
        ends = run_reference(model, tokens, lengths=torch.from_numpy(lengths))[0]
        close(torch.from_numpy(runtime.run(tokens, lengths=lengths)), ends, "output")


def test_numbers_are_scaled_as_they_were_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    mean, deviation = rng.standard_normal(3) * 100, rng.random(3) + 0.1
    layer = describe_layer(random(GRU(3, 5)), "GRU")
    model = Model(ChainModel((ScaleBlock(mean, deviation), layer)))
    x = (rng.standard_normal((6, 2, 3)) * 100).astype(np.float32)
    scaled = ((x.astype(np.float64) - mean) / deviation).astype(np.float32)
    y = model.run(x)
    assert np.array_equal(y, Model(ChainModel((layer,))).run(scaled))
    assert np.array_equal(steps(model, x, 2), y)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_model_says_how_it_multiplies(weights: str, tmp_path: Path) -> None:
    """Rows are rounded if and only if the model says so: that changes results."""
    layer = LSTM(8, 16)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.bfloat16())  # no error of the weights
    export(layer, tmp_path / "model")
    model = load(tmp_path / "model", weights=weights)
    assert repr(model) == f"Model(Recurrent; {model.arithmetic})"
    assert ("int8" in model.arithmetic) == (weights == "int8")
    if weights == "int8":
        return
    x = np.random.default_rng(0).standard_normal((9, 2, 8), np.float32)
    error = np.abs(model.run(x) - load(tmp_path / "model").run(x)).max()
    assert (error > 1e-4) == (model.arithmetic == "products of bfloat16, sums in float32")
