"""Signals during a sweep: handlers run meanwhile, and an exception of theirs stops it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tests.support.tolerances import assert_equal
from unrolled import nn


class InterruptError(Exception):
    """What the handler raises."""


@contextmanager
def alarms(limit: int) -> Iterator[list[int]]:
    """An alarm every 10 ms, whose handler raises when it runs for the ``limit``-th time.

    Pending alarms are one: a handler that runs late runs once.
    """
    heard: list[int] = []

    def handle(number: int, _: Any) -> None:
        heard.append(number)
        if len(heard) == limit:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise InterruptError

    previous_handler = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield heard
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(previous_threads)


SIZES = [(6000, 1), (300, 40)]  # threads share the units of a step, or the sequences


def _layer(**options: Any) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(8, 400, **options)


def _ends(long: Callable[[], Any], short: Callable[[], Tensor]) -> None:
    """A long call is interrupted; the next call returns what it did before."""
    expected = short()
    with pytest.raises(InterruptError), alarms(3):
        long()
    assert_equal(short(), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_inference_ends(size: tuple[int, int], bidirectional: bool, threads: int) -> None:
    layer = _layer(bidirectional=bidirectional).requires_grad_(False)
    x = torch.randn(*size, 8)
    _ends(lambda: layer(x), lambda: layer(x[:5])[0])
    lengths = torch.full((size[1],), size[0])
    _ends(lambda: layer(x, lengths=lengths), lambda: layer(x[:5])[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_training_ends(size: tuple[int, int], bidirectional: bool, threads: int) -> None:
    layer = _layer(bidirectional=bidirectional)
    x = torch.randn(*size, 8)

    def gradient(x: Tensor) -> Tensor:
        layer.zero_grad()
        layer(x)[0].sum().backward()
        assert layer.weight_hh_l0.grad is not None
        return layer.weight_hh_l0.grad

    _ends(lambda: layer(x), lambda: gradient(x[:5]))
    loss = layer(x)[0].sum()
    _ends(loss.backward, lambda: gradient(x[:5]))


def test_many_networks_end(threads: int) -> None:
    layer = _layer()
    weights = {name: torch.stack([p.detach()] * 4) for name, p in layer.named_parameters()}
    x = torch.randn(2000, 1, 8)

    def run(x: Tensor) -> Tensor:
        def member(weights: dict[str, Tensor]) -> Tensor:
            return functional_call(layer, weights, (x,))[0]

        result: Tensor = vmap(member)(weights)
        return result

    _ends(lambda: run(x), lambda: run(x[:5]))


def test_handlers_that_raise_nothing_change_nothing(threads: int) -> None:
    layer = _layer().requires_grad_(False)
    x = torch.randn(3000, 1, 8)
    expected = layer(x)[0]
    with alarms(10**9) as heard:
        actual = layer(x)[0]
    assert len(heard) > 2
    assert_equal(actual, expected)
