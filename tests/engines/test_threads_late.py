"""Threads that come late, leave a sweep and return: the bits of one thread, whatever happens.

With a patience of zero a thread leaves whenever another one is not there yet, which is nearly
always; without distrust it returns at once, with much of it the others go on alone.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled import _core, nn
from unrolled.export import export
from unrolled.runtime import load

MS = 1_000_000
PATIENCE = [(0, 0), (0, MS // 2), (0, 1000 * MS), (20_000, 0), (-1, -1)]  # (wait, distrust) in ns


@contextmanager
def patience(wait: int, distrust: int) -> Iterator[None]:
    _core.set_max_wait(wait, distrust)
    try:
        yield
    finally:
        _core.set_max_wait(-1, -1)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    previous = torch.get_num_threads()
    yield
    torch.set_num_threads(previous)


@pytest.fixture
def busy_neighbours() -> Iterator[None]:
    """Two spinning processes, which end with this one."""
    spin = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _train(layer: Any, x: Tensor, options: dict[str, Any]) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output = layer(x, **options)[0]
    return [output, *torch.autograd.grad(output.sin().sum(), [x, *layer.parameters()])]


def _infer(layer: Any, x: Tensor, options: dict[str, Any]) -> list[Tensor]:
    with torch.inference_mode():
        output, states = layer(x, **options)
    return [output, *(states if isinstance(states, tuple) else [states])]


def assert_same_bits(call: Callable[[], list[Tensor]], threads: int = 2, repeats: int = 5) -> None:
    torch.set_num_threads(1)
    expected = call()
    torch.set_num_threads(threads)
    for _ in range(repeats):
        assert all(torch.equal(a, b) for a, b in zip(call(), expected, strict=True))


CALLS: dict[str, Callable[[], tuple[Any, Tensor, dict[str, Any]]]] = {
    "lstm": lambda: (nn.LSTM(64, 200), torch.randn(30, 1, 64), {}),
    "gru": lambda: (nn.GRU(64, 200), torch.randn(30, 3, 64), {}),
    "ragged": lambda: (
        nn.LSTM(40, 200, num_layers=2),
        torch.randn(25, 3, 40),
        {"lengths": torch.tensor([25, 11, 4])},
    ),
    "bidirectional": lambda: (nn.GRU(64, 200, bidirectional=True), torch.randn(20, 2, 64), {}),
    "sequences": lambda: (nn.LSTM(32, 64), torch.randn(20, 40, 32), {}),
}


@pytest.mark.parametrize("run", [_infer, _train])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("limits", PATIENCE)
def test_late_threads_change_no_bit(
    limits: tuple[int, int], name: str, run: Callable[..., list[Tensor]]
) -> None:
    torch.manual_seed(0)
    layer, x, options = CALLS[name]()
    with patience(*limits):
        for threads in (2, 5):
            assert_same_bits(lambda: run(layer, x, options), threads)


@pytest.mark.usefixtures("busy_neighbours")
@pytest.mark.parametrize("run", [_infer, _train])
@pytest.mark.parametrize("name", CALLS)
def test_busy_neighbours_change_no_bit(name: str, run: Callable[..., list[Tensor]]) -> None:
    torch.manual_seed(0)
    layer, x, options = CALLS[name]()
    assert_same_bits(lambda: run(layer, x, options), repeats=10)


@pytest.mark.parametrize("limits", PATIENCE)
def test_steps_of_a_stream_and_whole_sequences_stay_equal(
    limits: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    export(nn.LSTM(96, 256), tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors")
    x = np.random.default_rng(0).standard_normal((30, 2, 96)).astype(np.float32)
    model.threads = 1
    expected = model.run(x)
    with patience(*limits):
        for threads in (2, 3):
            model.threads = threads
            assert np.array_equal(model.run(x), expected)
            stream = model.stream(2, threads)
            actual = [stream.step(row).copy() for row in x]
            assert np.array_equal(np.stack(actual).reshape(expected.shape), expected)


class InterruptError(Exception):
    """What the handler raises."""


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("limits", PATIENCE[:3])
def test_signals_are_handled_while_threads_are_away(
    limits: tuple[int, int], training: bool
) -> None:
    """The calling thread may be the one that sleeps."""

    def handle(*_: Any) -> None:
        raise InterruptError

    torch.manual_seed(0)
    torch.set_num_threads(2)
    layer, x = nn.LSTM(8, 300).requires_grad_(training), torch.randn(20000, 1, 8)

    def interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        layer(x)

    expected = _infer(layer, x[:5], {})
    previous = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(3):
            with patience(*limits), pytest.raises(InterruptError):
                interrupted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert all(torch.equal(a, b) for a, b in zip(_infer(layer, x[:5], {}), expected, strict=True))
