"""Streams: state, reset, copies, threads, pools, what a step refuses."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.runtime_models import exported, random, run_reference, steps
from tests.support.tolerances import close
from unrolled import cells
from unrolled.models import SequenceModel
from unrolled.nn import GRU, LSTM, Recurrent


def test_streams_reset_and_copy(tmp_path: Path) -> None:
    model = exported(random(LSTM(3, 5, num_layers=2)), tmp_path)
    x = np.random.default_rng(9).standard_normal((6, 4, 3), np.float32)
    stream, fresh = model.stream(4), model.stream(4)
    for row in x[:3]:
        stream.step(row)
    copied = stream.copy()
    output = stream.step(x[3])
    assert np.array_equal(copied.step(x[3]), output)
    stream.reset(rows=[0, 2])
    outputs, started = stream.step(x[4]), fresh.step(x[4])
    continued = copied.step(x[4])
    assert np.array_equal(outputs[[0, 2]], started[[0, 2]])
    assert np.array_equal(outputs[[1, 3]], continued[[1, 3]])
    assert not np.array_equal(outputs[1], started[1])
    stream.reset()
    fresh.reset()
    assert np.array_equal(stream.step(x[5]), fresh.step(x[5]))


def test_out_receives_the_output(tmp_path: Path) -> None:
    model = exported(random(GRU(3, 5)), tmp_path)
    x, out = np.ones((1, 3), np.float32), np.full((1, 5), np.nan, np.float32)
    stream, second_stream = model.stream(), model.stream()
    assert stream.step(x, out) is out
    assert np.array_equal(out, second_stream.step(x))


def test_threads_own_streams_of_one_model(tmp_path: Path) -> None:
    model = exported(random(LSTM(16, 128)), tmp_path)
    x = np.random.default_rng(10).standard_normal((50, 1, 16), np.float32)
    expected = model.run(x)
    outputs: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        outputs[k] = steps(model, x, 1)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 6
    assert all(np.array_equal(arrays, expected) for arrays in outputs.values())


def test_two_threads_in_one_stream_step_or_raise(tmp_path: Path) -> None:
    """Each step succeeds, or raises an error."""
    stream = exported(random(LSTM(64, 300)), tmp_path).stream()
    x = np.ones((1, 64), np.float32)
    messages: list[str] = []

    def work() -> None:
        for _ in range(300):
            try:
                stream.step(x)
            except RuntimeError as error:
                messages.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(messages) <= {
        "Stream: another thread is in a step of it; give each thread its own copy"
    }
    assert np.isfinite(stream.step(x)).all()


FAULTS: list[tuple[Any, Any, type[Exception], str]] = [
    (np.ones((1, 3)), None, TypeError, "Stream: x must have type float32, got format d"),
    (np.ones((2, 3), np.float32), None, ValueError, r"x must have shape \[1, 3\], got \[2, 3\]"),
    (np.ones((3, 1), np.float32), None, ValueError, r"x must have shape \[1, 3\], got \[3, 1\]"),
    (np.ones((3, 2), np.float32)[:, 0], None, TypeError, "Stream: x must be a contiguous array"),
    ("abc", None, TypeError, "Stream: x must be a contiguous array"),
    (3, None, TypeError, "Stream: x must be a contiguous array"),
    (np.ones(3, np.float32), np.ones(4, np.float32), ValueError, r"out must have shape \[1, 5\]"),
    (np.ones(3, np.float32), np.ones(5), TypeError, "Stream: out must have type float32"),
    (np.ones(3, np.float32), b"abcde", TypeError, "out must be a contiguous array that can be"),
]


@pytest.mark.parametrize(("x", "out", "error", "message"), FAULTS)
def test_a_step_refuses(
    x: Any, out: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    stream = exported(GRU(3, 5), tmp_path).stream()
    with pytest.raises(error, match=message):
        stream.step(x, out)


def test_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    model = exported(SequenceModel(4, 2, hidden_size=3, embedding_size=2), tmp_path)
    for stream, token in ((model.stream(), 4), (model.stream(), -1)):
        with pytest.raises(IndexError, match=f"Stream: x must be tokens from 0 to 3, got {token}"):
            stream.step(token)
    with pytest.raises(IndexError, match=r"x.* tokens from 0 to 3, got 9"):
        model.stream(2).step(np.array([1, 9]))
    with pytest.raises(IndexError, match=r"x.* tokens from 0 to 3, got 9"):
        model.run(np.array([[1, 9]]))
    with pytest.raises(TypeError, match="Stream: x must be tokens of type int32 or int64"):
        model.stream(2).step(np.ones(2))
    with pytest.raises(ValueError, match="Stream: x must have 2 tokens, got one"):
        model.stream(2).step(1)
    with pytest.raises(TypeError, match="Embedding: x must be tokens, whole numbers, got float64"):
        model.run(np.ones((3, 1)))


def test_states_of_other_shapes_are_refused(tmp_path: Path) -> None:
    model = exported(random(LSTM(3, 5, num_layers=2)), tmp_path)
    x = np.ones((4, 2, 3), np.float32)
    _, (state,) = model.run(x, return_state=True)
    for wrong in ([], [state[:1]], [state, state], [[(s[0].T, s[1]) for s in state]]):
        with pytest.raises(ValueError, match=r"Model: state must have arrays of shapes"):
            model.run(x, state=wrong)
    stream = model.stream(2)
    initial = stream.state
    with pytest.raises(ValueError, match="Stream: state of a layer must have shapes"):
        stream.state = [state[0], (state[1][0], state[1][1][:1])]
    for wrong in (None, 3, [None, None], [tuple(s * 1j for s in arrays) for arrays in state]):
        with pytest.raises(
            TypeError, match=r"Stream: state must be (a list of a tuple|real numbers)"
        ):
            stream.state = wrong
    assert all(np.array_equal(a, b) for a, b in zip(initial[0], stream.state[0], strict=True))


def test_rows_out_of_range_are_not_reset(tmp_path: Path) -> None:
    stream = exported(random(GRU(3, 5)), tmp_path).stream(3)
    stream.step(np.ones((3, 3), np.float32))
    ((initial,),) = stream.state
    for rows in (2, [0.5], "02", [[0]], [None], [True]):
        with pytest.raises(TypeError, match="Stream: rows must be a list of whole numbers, got"):
            stream.reset(rows=rows)
    for rows in ([-1], [0, 3], np.array([7])):
        with pytest.raises(IndexError, match=r"Stream: rows must be from 0 to 2, got (-1|3|7)"):
            stream.reset(rows=rows)
    stream.reset(rows=[])
    assert np.array_equal(stream.state[0][0], initial)
    stream.reset(rows=np.array([True, False, True]))
    assert np.array_equal(stream.state[0][0], initial * [[0], [1], [0]])


def test_layers_have_separate_streams() -> None:
    layer = random(Recurrent(cells.MGU, 3, 5, num_layers=2))
    x = np.random.default_rng(11).standard_normal((6, 2, 3), np.float32)
    stream = layer.stream(2)
    initial = run_reference(layer, x)[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    outputs = np.stack([stream.step(row) for row in x])
    close(torch.from_numpy(outputs), initial, "output")
    short = layer.stream(1, weights="int8")
    assert not short.step(x[0, 0]).any()
    with pytest.raises(
        ValueError, match=r"GRU: parameters must be torch\.float32, got torch\.float64"
    ):
        GRU(3, 5).double().stream()
    with pytest.raises(ValueError, match="Model: stream needs one direction"):
        GRU(3, 5, bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"weights must be one of .* int8, got 'int3'"):
        GRU(3, 5).stream(weights="int3")


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_pools_are_read_after_each_step(pooling: str, tmp_path: Path) -> None:
    """As the model's own ``forward_prefixes``; reset and copied with the rest."""
    model = random(SequenceModel(5, 3, hidden_size=6, pooling=pooling, embedding_size=2).eval())
    runtime = exported(model, tmp_path)
    tokens = np.random.default_rng(15).integers(0, 5, (8, 2))
    with torch.no_grad():
        expected = model.forward_prefixes(torch.from_numpy(tokens))  # type: ignore[operator]
    stream = runtime.stream(2)
    outputs = []
    for row in tokens:
        copied = stream.copy()
        outputs.append(stream.step(row))
        assert np.array_equal(copied.step(row), outputs[-1])
    close(torch.from_numpy(np.stack(outputs)), expected, "output")
    assert np.array_equal(outputs[-1], runtime.run(tokens))
    bidirectional = random(
        SequenceModel(5, 3, hidden_size=6, pooling=pooling, bidirectional=True).eval()
    )
    lengths = [8, 3]
    restarted = exported(bidirectional, tmp_path).run(tokens, lengths=lengths)
    expected = run_reference(bidirectional, tokens, lengths=torch.tensor(lengths))[0]
    close(torch.from_numpy(restarted), expected, "output")
    stream.reset(rows=[1])
    fresh = runtime.stream(2)
    assert np.array_equal(stream.step(tokens[0])[1], fresh.step(tokens[0])[1])
