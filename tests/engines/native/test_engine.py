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
from unrolled.program import make_program
from unrolled.program.encode import encode

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


TEXT = encode(make_program(cells.GRU()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "must be `unrolled-program 1`"),
        (lambda text: text.replace("program 1", "program 2"), "must be `unrolled-program 1`"),
        (lambda text: text.replace("node sig", "node xyz", 1), "unknown operation xyz"),
        (
            lambda text: text.replace("node add H 1 4", "node add H 1"),
            "2 arguments, got 1",
        ),
        (
            lambda text: text.replace("node add H 1 4", "node add H 1 400"),
            "it is read, got 400",
        ),
        (
            lambda text: text.replace("node add H 1 4", "node add 3 1 4"),
            "width must be that",
        ),
        (lambda text: text.replace("node x H 2", "node x H 7"), "an index must be below 3, got 7"),
        (lambda text: text.replace("node x H 2", "node x"), "the line ends too early"),
        (lambda text: text.replace("forward 18", "forward"), "each state must have a new value"),
        (lambda text: text.replace("dx ", "dz "), "unknown section `dz`"),
        (lambda text: text.replace("input 3 H", "input 0 H"), "must be below 0, got 0"),
        (lambda text: text.replace("state H", "state -4"), "from 0 to 16777216, got -4"),
        (lambda text: text[: len(text) // 2], "."),
    ],
)
def test_a_damaged_program_is_refused(change: Callable[[str], str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Program(change(TEXT), 4, 4)


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
    twin = copy.deepcopy(layer).double()
    grads = _gradients(layer, x)
    with engines.use("reference"):
        y = x.double().requires_grad_()
        output, final = twin(y)
        loss = output.sin().sum() + sum(state.cos().sum() for state in final)
        output_grads = torch.autograd.grad(loss, [y, *twin.parameters()])
    for mine, expected in zip(grads, [output, *final, *output_grads], strict=True):
        close(mine, expected, "gradient")


def test_a_run_whose_tensors_do_not_fit_is_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    place = (2, 1, 2, 0, 1, 1)
    work = _core.Work(program, "", place, None, None, 0, [1, 2, 3, 4], [(1, 4)], 1)
    fitting = [torch.randn(shape) for shape in [(2, 5), (12, 5), (12,), (12, 4), (12,)]]
    output, saved, final = work.forward(fitting, True, 1)
    assert output.shape == (2, 4)
    assert final[0].shape == (1, 4)
    output_grads = [torch.ones(2, 4), None]
    assert len(work.backward(fitting, output, saved, output_grads, [True] * 5, 1)) == 5
    for k, wrong in enumerate([torch.randn(2, 5).int(), torch.randn(5, 12), torch.randn(11)]):
        with pytest.raises((RuntimeError, ValueError), match=r"must (have shape|be on the CPU)"):
            work.forward([*fitting[:k], wrong, *fitting[k + 1 :]], False, 1)
    with pytest.raises(ValueError, match="parameters: must be below the 3 tensors, got 3"):
        work.forward(fitting[:3], False, 1)
    with pytest.raises(ValueError, match="tensors: must have 1 or more, tokens and states, got 0"):
        work.forward([], False, 1)
    wide = torch.full((2, 8), torch.nan)[:, ::2].copy_(output)
    retained = torch.full((2, saved.shape[1] + 3), torch.nan)[:, 1:-2].copy_(saved)
    actual = work.backward(fitting, wide, retained, output_grads, [True] * 5, 1)
    expected = work.backward(fitting, output, saved, output_grads, [True] * 5, 1)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    with pytest.raises(ValueError, match="needs: must have one entry a tensor, got more"):
        work.backward(fitting, output, saved, output_grads, [True] * 6, 1)
    with pytest.raises(RuntimeError, match="tensors: must be on the CPU, all in float32"):
        work.backward(fitting, output, saved, [output_grads[0].double(), None], [True] * 5, 1)
    with pytest.raises(RuntimeError, match="meta"):
        work.forward([fitting[0].to("meta"), *fitting[1:]], False, 1)
    with pytest.raises(ValueError, match="state_shapes: must have 1 entries, got 0"):
        _core.Work(program, "", place, None, None, 0, [1, 2, 3, 4], [], 1)
    work = _core.Work(program, "", place, None, None, 0, [1, 2, 3, 4], [(1, 4)], 2)
    with pytest.raises(ValueError, match="groups: must divide the sequences of each step, got 2"):
        work.backward(fitting, output, saved, output_grads, [True] * 5, 1)


def test_runs_side_by_side_whose_tensors_do_not_fit_are_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    work = _core.Work(program, "", (2, 1, 2, 0, 1, 1), None, None, 0, [1, 2, 3, 4], [(1, 4)], 1)
    fitting = [torch.randn(shape) for shape in [(2, 5), (3, 12, 5), (12,), (3, 12, 4), (12,)]]
    stacked = [False, True, False, True, False]
    output, saved, _ = work.forward_each(3, stacked, fitting, True, 1)
    assert output.shape == (3, 2, 4)
    for k, wrong in ((1, torch.randn(12, 5)), (3, torch.randn(2, 12, 4)), (2, torch.randn(3, 12))):
        with pytest.raises(
            (RuntimeError, ValueError), match=r"must have (shape|a first dimension of 3)"
        ):
            work.forward_each(3, stacked, [*fitting[:k], wrong, *fitting[k + 1 :]], True, 1)
    output_grads = [torch.ones(3, 2, 4), None]
    needs = [True] * 5
    actual = work.backward_each(
        3, [*stacked, *[True] * 4], fitting, output, saved, output_grads, needs, 1
    )
    assert [grad.shape[0] for grad in actual] == [3] * 5
    with pytest.raises(ValueError, match=r"must have \d+ elements, got"):
        work.backward_each(3, stacked, fitting, output, saved, output_grads, needs, 1)


def test_a_class_that_is_none_of_tensors_is_refused() -> None:
    with pytest.raises(AttributeError):
        _core.name_tensors(int, torch.empty(0))


def test_sizes_that_do_not_fit_the_program_are_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    a = torch.zeros(1000)
    stacked = torch.tensor([1, 2])
    names = ["sizes", "table", "tokens", "output", "saved", "w_x", "b_x", "w", "b", "start", "end"]
    fitting = [(0, 0), (0, 0), *((a.data_ptr(), n) for n in (10, 8)), (0, 0)]
    fitting += [(a.data_ptr(), n) for n in (12 * 5, 12, 12 * 4, 12, 4, 4)]

    def call(T: int = 2, N: int = 1, rows: int = 2, build: str = "", **changed: Any) -> None:
        parameters = {**dict(zip(names, fitting, strict=True)), **changed}
        numbers = [number for pair in parameters.values() for number in pair]
        _core.forward(program, build, False, [T, N, 5, rows, 0, 1, 1, 1], numbers)

    call()
    with pytest.raises(ValueError, match="shape: T must be at least 1, got 0"):
        call(T=0)
    with pytest.raises(ValueError, match="shape: N, I and rows must not be negative, got -1, 5, 2"):
        call(N=-1)
    with pytest.raises(ValueError, match="shape: strides must stay within the 2 rows, got 1, 1"):
        call(T=3)
    with pytest.raises(ValueError, match="sizes: must be from 0 to N and not rise, got 2 behind 1"):
        call(sizes=(stacked.data_ptr(), 2))
    with pytest.raises(ValueError, match="table: rows must be from 0 to 1, got 2"):
        call(table=(stacked.data_ptr(), 2))
    with pytest.raises(ValueError, match="tokens: must have 10 elements, got 9"):
        call(tokens=(a.data_ptr(), 9))
    with pytest.raises(ValueError, match="output: must have 8 elements, got 0"):
        call(output=(0, 0))
    with pytest.raises(ValueError, match="saved: must have 128 elements, got 33"):
        call(saved=(a.data_ptr(), 32 + 1))
    with pytest.raises(ValueError, match="arrays: must be those of the program, got more"):
        call(more=(0, 0))
    with pytest.raises(ValueError, match="sizes: product must be from 0 to"):
        call(T=1 << 40, N=1 << 40)
    with pytest.raises(ValueError, match="arrays: must have an entry for table, got too few"):
        _core.forward(program, "", False, [2, 1, 5, 2, 0, 1, 1, 1], [0, 0])
    with pytest.raises(ValueError, match="build must be one that can run here, got sse"):
        call(build="sse")


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
    assert "differs" in str(explanation.refusals["native"])


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
