"""Many Python threads at once: the bits of the same calls in sequence; the lock is released."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import LAYERS, unpack
from unrolled import cells, engines, nn
from unrolled.engines._native import programs

THREADS = 8
ENOUGH = 60


@pytest.fixture(autouse=True)
def _frequent_thread_switches() -> Iterator[None]:
    """Python changes threads a thousand times as often as usual."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(previous)


def together(jobs: list[Callable[[], Any]]) -> list[Any]:
    """What functions return that so many threads call at the same time."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(60)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(120) for future in [pool.submit(run, job) for job in jobs]]


def results(module: Any, x: Tensor, train: bool, **options: Any) -> list[Tensor]:
    """Outputs, states and, in training, gradients of the input and of every parameter."""
    x = x.clone().requires_grad_(train)
    with torch.set_grad_enabled(train):
        actual = module(x, **options)
    parts = [actual] if isinstance(actual, Tensor) else [actual[0], *unpack(actual[1])]
    if not train:
        return parts
    loss = sum((part.sin() * (k + 1)).sum() for k, part in enumerate(parts))
    return [*parts, *torch.autograd.grad(loss, [x, *module.parameters()])]


def jobs_of(module: Any, me: int, count: int) -> list[Callable[[], list[Tensor]]]:
    """Calls of one thread: each size differs, every second one trains; plain, ragged, cut."""
    generator = torch.Generator().manual_seed(me)
    runs = []
    for k in range(count):
        T, N = 1 + (3 * me + 5 * k) % 11, 1 + (me + k) % 5
        step = isinstance(module, nn.RecurrentCell)
        x = torch.randn(*(() if step else (T,)), N, module.input_size, generator=generator)
        options: dict[str, Any] = {}
        if k % 3 == 1:
            options["lengths"] = [(n + k) % 2 if step else (2 * n + k) % (T + 1) for n in range(N)]
        elif k % 3 == 2:
            options["resets"] = torch.rand(x.shape[:-1], generator=generator) < 0.3
        train = (k + me) % 2 == 0
        runs.append(lambda x=x, train=train, o=options: results(module, x, train, **o))
    return runs


def assert_same(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


MODULES: dict[str, Callable[[], Any]] = {
    "lstm": lambda: nn.LSTM(5, 17, num_layers=2, bidirectional=True),
    "gru": lambda: nn.GRU(3, 33),
    "peephole": lambda: LAYERS["peephole"](4, 9),
    "heads": lambda: nn.Recurrent(cells.SLSTM(heads=2), 4, 6, bidirectional=True, merge="sum"),
    "lstm cell": lambda: nn.LSTMCell(5, 17),
    "gru cell": lambda: nn.GRUCell(3, 8),
}


@pytest.mark.parametrize("layer_name", MODULES)
def test_calls_at_once_give_the_bits_of_calls_one_after_another(layer_name: str) -> None:
    """On one layer; 18 sizes and more, so that what a layer remembers of sizes is dropped, too."""
    module = MODULES[layer_name]()
    jobs = [jobs_of(module, me, 15) for me in range(THREADS)]
    expected = [[job() for job in mine] for mine in jobs]
    actual = together([lambda mine=mine: [job() for job in mine] for mine in jobs])
    for ours, theirs in zip(actual, expected, strict=True):
        assert_same(ours, theirs)


def test_large_calls_at_once_on_two_threads_each() -> None:
    """Each caller has a team of its own."""
    torch.set_num_threads(2)
    module = nn.GRU(32, 64, bidirectional=True)
    x = torch.randn(20, 24, 32)
    jobs = [lambda k=k: results(module, x + k, k % 2 == 0) for k in range(4)]
    expected = [job() for job in jobs]
    assert_same(together(jobs), expected)


@pytest.mark.parametrize("layer_name", MODULES)
def test_first_calls_of_a_new_layer_at_once(layer_name: str) -> None:
    """Its programs, its fast path and its calls are not made yet."""
    for seed in range(3):
        torch.manual_seed(seed)
        module = MODULES[layer_name]()
        torch.manual_seed(seed)
        reference = MODULES[layer_name]()
        expected = [[job() for job in jobs_of(reference, me, 3)] for me in range(THREADS)]
        programs.load_program.cache_clear()
        programs._traced_program.cache_clear()
        for name in ("_key", "_vectors", "_products"):
            vars(module.cell).pop(name, None)
        assert module._runner.fast_path is None
        jobs = [jobs_of(module, me, 3) for me in range(THREADS)]
        actual = together([lambda mine=mine: [job() for job in mine] for mine in jobs])
        for ours, theirs in zip(actual, expected, strict=True):
            assert_same(ours, theirs)


def test_layers_of_one_cell_made_at_once() -> None:
    x = torch.randn(3, 2, 4)

    def make(cell: cells.Cell, seed: int) -> Tensor:
        layer = nn.Recurrent(cell, 4, 6)
        for k, parameter in enumerate(layer.parameters()):
            torch.nn.init.constant_(parameter, 0.1 * seed + 0.01 * k)
        with torch.no_grad():
            return layer(x)[0]

    for _ in range(10):
        cell, other_cell = cells.SLSTM(heads=2), cells.SLSTM(heads=2)
        actual = together([lambda k=k, cell=cell: make(cell, k) for k in range(THREADS)])
        expected = [make(other_cell, k) for k in range(THREADS)]
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_engines_are_forced_and_recorded_by_thread() -> None:
    layer, x = nn.GRU(3, 4), torch.randn(5, 2, 3)

    def run(name: str) -> list[str]:
        with engines.use(name), engines.record() as ran:
            for _ in range(20):
                layer(x)
        return ran

    names = ["native", "reference", "aten"] * 2
    for name, ran in zip(names, together([lambda n=n: run(n) for n in names]), strict=True):
        assert ran == [name] * 20


def _long(layer: nn.Recurrent) -> Tensor:
    return torch.randn(40000, 2, layer.input_size, requires_grad=True)


def _infer(layer: nn.Recurrent, x: Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return layer(x)

    return run


def _train(layer: nn.Recurrent, x: Tensor) -> Callable[[], Any]:
    return lambda: layer(x)


def _backward(layer: nn.Recurrent, x: Tensor) -> Callable[[], Any]:
    output = layer(x)[0]
    output_grads = torch.ones_like(output)
    return lambda: torch.autograd.grad(output, x, output_grads, retain_graph=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("make_call", [_infer, _train, _backward])
def test_a_sweep_lets_other_threads_run(make_call: Callable[..., Any], bidirectional: bool) -> None:
    """Python changes threads only where one lets it: the other counts while a sweep runs, often.

    A call that kept the lock would let it count once for each of torch's few operations around the
    sweep. How far it gets in one sweep depends on the machine, so that there are a few, and the
    most in a single one matters.
    """
    layer = nn.GRU(64, 96, bidirectional=bidirectional)
    call = make_call(layer, _long(layer))
    call()  # the first one also loads what it needs
    counted, finished = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not finished.is_set():
            counted += 1
            time.sleep(0.0005)

    sys.setswitchinterval(1000)
    second = threading.Thread(target=count)
    second.start()
    try:
        max_count = 0
        for _ in range(20):
            previous = counted
            call()
            max_count = max(max_count, counted - previous)
            if max_count >= ENOUGH:
                break
    finally:
        finished.set()
        second.join()
    assert max_count >= ENOUGH
