"""Short calls, which are set up once per size, read everything anew and share nothing."""

import copy
import pickle
import resource
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engines.native.test_fast_path import LAYERS, flat, states
from unrolled import _core, engines, nn
from unrolled.engines._native.engine import use_build

SIZES = [(1, 1), (3, 2), (4, 3)]


def general(layer: nn.Recurrent, x: Tensor, hx: Any = None) -> list[Tensor]:
    """The results of the general path."""
    with torch.no_grad(), engines.record():
        return flat(layer(x, hx))


def check(layer: nn.Recurrent, x: Tensor, hx: Any = None) -> None:
    """The third call of a size in a row has the bits of the general path."""
    with torch.no_grad():
        results = [flat(layer(x, hx)) for _ in range(3)]
    expected = general(layer, x, hx)
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        assert all(a.stride() == b.stride() for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("size", SIZES)
def test_bits_with_and_without_states(
    layer_name: str, size: tuple[int, int], poisoned: None
) -> None:
    layer, x = LAYERS[layer_name](), torch.randn(*size, 5)
    N = size[0] if layer.batch_first else size[1]
    for hx in (None, states(layer, N, torch.float32), None):
        check(layer, x, hx)


@pytest.mark.parametrize("layer_name", LAYERS)
def test_parameters_and_states_are_read_at_each_call(layer_name: str) -> None:
    layer, x = LAYERS[layer_name](), torch.randn(2, 2, 5)
    check(layer, x)
    for parameter in layer.parameters():
        parameter.data.numpy()[...] *= -0.5
        check(layer, x)
        parameter.data = torch.randn_like(parameter)
        check(layer, x)
    hx = states(layer, 2, torch.float32)
    check(layer, x, hx)
    for state in hx if isinstance(hx, tuple) else (hx,):
        state.mul_(2)
    check(layer, x, hx)


def test_sizes_alternate() -> None:
    layer = nn.GRU(5, 7)
    inputs = [torch.randn(T, N, 5) for T, N in [(1, 1), (1, 2), (2, 1), (1, 1)]]
    expected = [general(layer, x) for x in inputs]
    with torch.no_grad():
        for count in (1, 2, 3):
            for x, results in zip(inputs, expected, strict=True):
                for _ in range(count):
                    actual = flat(layer(x))
                    assert all(torch.equal(a, b) for a, b in zip(actual, results, strict=True))


def test_forced_builds_alternate() -> None:
    layer, x = nn.LSTM(5, 7), torch.randn(1, 1, 5)
    for name in _core.builds():
        with use_build(name):
            check(layer, x)
        check(layer, x)


def test_results_are_new_tensors() -> None:
    layer, inputs = nn.LSTM(4, 4), torch.randn(6, 1, 1, 4)
    with torch.no_grad():
        results = [flat((y, final)) for y, final in map(layer, inputs)]
    copies = [general(layer, x) for x in inputs]
    tensors = [tensor for result in results for tensor in result]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    for result, expected in zip(results, copies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
    results[-1][0].resize_(100)


def test_inference_mode_leaves_no_trace() -> None:
    layer, x = nn.RNN(4, 4), torch.randn(1, 1, 4)
    with torch.inference_mode():
        for _ in range(3):
            assert layer(x)[0].is_inference()
    with torch.no_grad():
        y = layer(x)[0]
    assert not y.is_inference()
    assert not y.requires_grad
    assert layer(x)[0].requires_grad


def test_wrong_parameters_are_refused() -> None:
    layer, x = nn.GRU(5, 7), torch.randn(1, 1, 5)
    check(layer, x)
    layer.bias_hh_l0.data = torch.zeros(20)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"bias_hh_l0 must have shape \[21\]"):
        layer(x)
    layer.bias_hh_l0.data = torch._neg_view(torch.randn(21))
    check(layer, x)


def test_other_types_and_copies_after_short_calls() -> None:
    layer, x = nn.LSTM(5, 7), torch.randn(1, 1, 5)
    check(layer, x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        check(other, x)
        with torch.no_grad():
            other.weight_hh_l0.mul_(2)
        check(other, x)
    check(layer, x)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        check(layer.to(dtype), x.to(dtype))
    with pytest.raises(ValueError, match="input dtype"):
        layer(x.double())


def test_inputs_of_any_strides() -> None:
    layer, x = nn.GRU(5, 7), torch.randn(3, 4, 10)
    for view in (x[:1, :1, ::2], x.transpose(0, 1)[:1, :1, :5], x[:2, :1, 5:]):
        check(layer, view)


def test_gradients_between_short_calls() -> None:
    layer, x = nn.LSTM(5, 7), torch.randn(1, 1, 5)
    for _ in range(3):
        check(layer, x)
        output, _ = layer(x)
        assert output.requires_grad
        output.sum().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                assert parameter.grad is not None
                parameter -= parameter.grad


def test_memory_is_bounded() -> None:
    layer = nn.GRU(16, 16)
    inputs = [torch.randn(T, N, 16) for T in (1, 2, 4) for N in (1, 2)]

    def run(count: int) -> int:
        with torch.no_grad():
            for _ in range(count):
                for x in inputs:
                    layer(x), layer(x), layer(x)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    initial = run(100)
    assert run(2000) - initial < 4000  # KB; a leak of one sweep a call would take 100 MB


SHARED = {
    "lstm": lambda: nn.LSTM(5, 7),
    "stacked": lambda: nn.GRU(5, 7, num_layers=2, bidirectional=True),
    "cell": lambda: nn.LSTMCell(5, 7),
}


@pytest.mark.parametrize("name", SHARED)
def test_threads_share_a_layer(name: str) -> None:
    """Each thread runs some calls of one size, then some of the other, so that sweeps are set up,
    used, replaced and freed while others run."""
    layer: Any = SHARED[name]()
    inputs = [torch.randn(N, 5) for N in (1, 2)]
    if name != "cell":
        inputs = [x.unsqueeze(0) for x in inputs]

    def run_once(x: Tensor) -> list[Tensor]:
        result = layer(x)
        return list(result) if name == "cell" else flat(result)

    with torch.no_grad(), engines.record():
        expected = [run_once(x) for x in inputs]
    finished: list[int] = []

    def run(k: int) -> None:
        with torch.no_grad():
            for i in range(3000):
                j = (k + i // (k + 2)) % 2
                results = run_once(inputs[j])
                assert all(torch.equal(a, b) for a, b in zip(results, expected[j], strict=True))
        finished.append(k)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(finished) == [0, 1, 2, 3]
