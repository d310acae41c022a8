"""The native core: builds, threads, forks, and what it refuses.

That it computes what the others do, the contract tests show: they run over every engine.
"""

import copy
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import LAYERS
from tests.support.tolerances import close
from unrolled import _core, cells, engines, nn

DTYPES = [torch.float32, torch.float64]
HALF = [torch.bfloat16, torch.float16]


def _gradients(layer: nn.Recurrent, x: Tensor, lengths: list[int] | None = None) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with engines.record() as ran:
        output, final = layer(x, lengths=lengths)
    assert set(ran) == {"native"}
    states = final if isinstance(final, tuple) else (final,)
    loss = output.sin().sum() + sum(state.cos().sum() for state in states)
    grads = torch.autograd.grad(loss, [x, *layer.parameters()])
    return [output, *states, *grads]


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", [*DTYPES, *HALF])
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("build", _core.builds())
def test_every_build_agrees_with_the_reference(
    build: str, layer_name: str, dtype: torch.dtype
) -> None:
    """Sizes around each width of vector: 1, tails, whole vectors and panels."""
    limits = {torch.float32: 1e-4, torch.float64: 1e-11}
    limit = limits.get(dtype, 8 * torch.finfo(dtype).eps)
    for T, N, I, H in [(3, 1, 1, 5), (4, 7, 3, 16), (2, 13, 17, 33), (5, 3, 5, 71)]:  # noqa: E741
        layer = LAYERS[layer_name](I, H, dtype=dtype)
        x = torch.randn(T, N, I, dtype=dtype)
        with engines.use_build(build):
            grads = _gradients(layer, x)
        with engines.use("reference"):
            y = x.clone().requires_grad_()
            output, final = layer(y)
            states = final if isinstance(final, tuple) else (final,)
            loss = output.sin().sum() + sum(state.cos().sum() for state in states)
            output_grads = torch.autograd.grad(loss, [y, *layer.parameters()])
        for mine, expected in zip(grads, [output, *states, *output_grads], strict=True):
            scale = expected.abs().max().item() + 1e-3
            assert (mine - expected).abs().max().item() <= limit * scale


@pytest.mark.parametrize("size", [(20, 31, 64), (1, 5, 250)])
@pytest.mark.parametrize("layer_name", ["gru", "lstm", "peephole"])
@pytest.mark.parametrize("dtype", [*DTYPES, *HALF])
def test_equal_bits_whatever_the_thread_count(
    layer_name: str, dtype: torch.dtype, size: tuple[int, int, int]
) -> None:
    T, N, H = size
    layer = LAYERS[layer_name](40, H, bidirectional=True, dtype=dtype)
    x = torch.randn(T, N, 40, dtype=dtype)
    lengths = [n % (T + 1) for n in range(N)]
    previous_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(_gradients(layer, x, lengths))
    finally:
        torch.set_num_threads(previous_threads)
    for rerun in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], rerun, strict=True))


@pytest.mark.parametrize("layer_name", ["gru", "lstm", "peephole", "projected"])
@pytest.mark.parametrize(
    "size",
    [
        (300, 5),  # one tile of sequences and a bit: a thread soon projects for the other
        (64, 9),
        (100, 1),  # too little a step to share: the directions run on a thread each
        (40, 2),
    ],
)
def test_equal_bits_without_gradient_whatever_the_thread_count(
    layer_name: str, size: tuple[int, int], poisoned: None
) -> None:
    layer = LAYERS[layer_name](48, 72, num_layers=2, bidirectional=True)
    x = torch.randn(*size, 48)
    lengths = [size[0] - n * size[0] // size[1] for n in range(size[1])]
    previous_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 3, 5):
            torch.set_num_threads(threads)
            with torch.no_grad():
                results.append([layer(x)[0], layer(x, lengths=lengths)[0]])
    finally:
        torch.set_num_threads(previous_threads)
    for rerun in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], rerun, strict=True))
    with torch.no_grad(), engines.use("reference"):
        close(results[0][0], layer(x)[0], "output")


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    """But in calls of a few tokens, whose weights are read where they lie, in another order."""
    layer = nn.LSTM(9, 33)
    x = torch.randn(11, 17, 9)
    with torch.no_grad(), engines.use("native"):
        together = layer(x)[0]
        for n in (0, 5, 16):
            assert torch.equal(layer(x[:, n : n + 1])[0], together[:, n : n + 1])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (cells.sigmoid, torch.sigmoid),
        (cells.tanh, torch.tanh),
        (cells.exp, torch.exp),
    ],
)
@pytest.mark.parametrize("build", _core.builds())
def test_elementary_functions_over_their_range(
    build: str, function: Callable[[Any], Any], expected: Callable[[Tensor], Tensor]
) -> None:
    """Within 4 units in the last place of float32, from tiny to overflow; NaN and infinities."""
    x = torch.cat([torch.linspace(-104, 89, 20001), torch.logspace(-30, 0, 2000), torch.zeros(1)])
    special = torch.tensor([float("nan"), float("inf"), float("-inf")])
    layer = nn.Recurrent(cells.RNN(function), 1, 1, bias=False)
    torch.nn.init.ones_(layer.weight_ih_l0)
    torch.nn.init.zeros_(layer.weight_hh_l0)
    with torch.no_grad(), engines.use_build(build), engines.use("native"):
        actual = layer(x[None, :, None])[0].flatten()
        edges = layer(special[None, :, None])[0].flatten()
    exact = expected(x.double())
    normal = exact.abs() > 1.2e-38
    error = ((actual.double() - exact).abs() / exact.abs())[normal & exact.float().isfinite()]
    assert error.max().item() < 4 * 2**-24
    torch.testing.assert_close(edges, expected(special), equal_nan=True)


def _child(layer: nn.Recurrent, x: Tensor, queue: Any) -> None:
    queue.put(layer(x)[0].detach().numpy())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_and_does_not_hang() -> None:
    layer, x = nn.GRU(64, 64), torch.randn(50, 24, 64)
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            expected = layer(x)[0]
            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            child = context.Process(target=_child, args=(layer, x, queue))
            child.start()
            actual = queue.get(timeout=60)
            child.join(60)
    finally:
        torch.set_num_threads(previous_threads)
    assert child.exitcode == 0
    assert torch.equal(torch.from_numpy(actual), expected)


@pytest.mark.parametrize("grad", [False, True])
def test_weights_that_were_changed_behind_the_layer_s_back_are_refused(grad: bool) -> None:
    x = torch.randn(3, 2, 4)
    with torch.set_grad_enabled(grad):
        layer = nn.LSTM(4, 5)
        layer.weight_ih_l0.data = torch.randn(4, 20)
        with pytest.raises(
            RuntimeError, match=r"weight_ih_l0 must have shape \[20, 4\], got \[4, 20\]"
        ):
            layer(x)
        layer = nn.LSTM(4, 5)
        layer.weight_hh_l0.data = layer.weight_hh_l0.data.double()
        with pytest.raises(
            RuntimeError,
            match=r"LSTM: weight_hh must have dtype torch\.float32, .* got torch\.float64",
        ):
            layer(x)


@pytest.mark.parametrize(("T", "N"), [(1, 1), (2, 1), (1, 3), (4, 1), (2, 257), (1, 260)])
def test_gradients_of_few_tokens_and_of_chunks_that_end_in_few(T: int, N: int) -> None:
    """Weight gradients sum over chunks of 256 tokens; one to four tokens have code of their own."""
    layer, x = nn.LSTM(5, 7), torch.randn(T, N, 5)
    double_layer = copy.deepcopy(layer).double()
    grads = _gradients(layer, x)
    with engines.use("reference"):
        y = x.double().requires_grad_()
        output, final = double_layer(y)
        loss = output.sin().sum() + sum(state.cos().sum() for state in final)
        output_grads = torch.autograd.grad(loss, [y, *double_layer.parameters()])
    for mine, expected in zip(grads, [output, *final, *output_grads], strict=True):
        close(mine, expected, "gradient")


def test_an_unknown_build_is_refused() -> None:
    with pytest.raises(ValueError, match=r"build must be one of .*'plain'.*, got 'sse'"):
        engines.use_build("sse").__enter__()


@pytest.mark.slow
def test_a_process_ends_in_silence() -> None:
    """Also with programs cached and a graph alive."""
    code = (
        "import torch; from unrolled import engines, nn;"
        "use = engines.use('native'); use.__enter__();"
        "y, h = nn.GRU(3, 4)(torch.zeros(2, 1, 3))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == ran.stderr == ""


class _Scaled(cells.Cell):
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + h) * self.scale


def test_a_changed_setting_is_a_changed_program() -> None:
    layer, x = nn.Recurrent(_Scaled(1.0), 3, 4), torch.randn(2, 1, 3)
    with engines.use("native"):
        output = layer(x[:1])[0]
        layer.cell = layer.cell.replace(scale=0.5)
        torch.testing.assert_close(layer(x[:1])[0], 0.5 * output)


def test_steps_that_change_by_themselves_are_refused() -> None:
    class Rolling(cells.Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            return (x + h) * random.random()

    x = torch.zeros(2, 1, 3)
    explanation = engines.explain(nn.Recurrent(Rolling, 3, 4), x)
    assert explanation.engine == "reference"
    assert "must do the same" in str(explanation.refusals["native"])


@pytest.mark.filterwarnings("ignore")
def test_a_traced_layer_computes_instead_of_remembering() -> None:
    layer = nn.LSTM(3, 4).eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, (torch.ones(5, 2, 3),))
        zeros = torch.zeros(5, 2, 3)
        torch.testing.assert_close(traced(zeros)[0], layer(zeros)[0])
        exported = torch.export.export(layer, (torch.ones(5, 2, 3),)).module()
        torch.testing.assert_close(exported(zeros)[0], layer(zeros)[0])


class WithProperty(_Scaled):
    @property
    def half(self) -> float:
        return self.scale / 2


def test_a_layer_is_pickled_and_copied_after_it_ran() -> None:
    layer, x = nn.Recurrent(WithProperty(2.0), 3, 4), torch.randn(2, 1, 3)
    with engines.use("native"):
        expected = layer(x)[0]
        for duplicate in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
            assert torch.equal(duplicate(x)[0], expected)
            assert duplicate.cell == layer.cell
