"""Other processes: forked and spawned children, data loaders, training in two, little memory."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from tests.support.subjects import Peephole, unpack
from tests.support.tolerances import close
from unrolled import nn

pytestmark = [
    pytest.mark.slow,
    # From 3.12 on Python warns of every fork beside threads, and torch has threads.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
TIMEOUT = 120  # seconds, after which a process counts as hanging


@pytest.fixture(autouse=True)
def _two_threads(_seeded: None) -> None:
    torch.set_num_threads(2)


def _send(pipe: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    pipe.send(function(*args))


class Child:
    """A function in a process of its own."""

    def __init__(self, method: str, function: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context(method)
        self.pipe, pipe = context.Pipe(duplex=False)
        self.process: Any = context.Process(target=_send, args=(pipe, function, args))
        self.process.start()
        pipe.close()

    def result(self, seconds: float = TIMEOUT) -> Any:
        """What it returned; a child that hangs is killed, and fails."""
        try:
            assert self.pipe.poll(seconds), "the child hangs"
            actual = self.pipe.recv()
            self.process.join(seconds)
            assert self.process.exitcode == 0
            return actual
        finally:
            self.process.kill()
            self.process.join()


def flat(result: Any) -> list[Any]:
    """Arrays of what a layer or a cell returns, which pass through any pipe."""
    parts = [result] if isinstance(result, Tensor) else [result[0], *unpack(result[1])]
    return [part.detach().numpy() for part in parts]


def assert_same(actual: list[Any], expected: list[Any]) -> None:
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(torch.from_numpy(a), torch.from_numpy(b))


def infer(module: Any, x: Tensor, options: dict[str, Any]) -> list[Any]:
    """Without gradient."""
    with torch.no_grad():
        return flat(module(x, **options))


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...], dict[str, Any]]] = {
    # Enough work for two threads, by sequences, by units, a direction each.
    "sequences": (lambda: nn.GRU(64, 64), (50, 24, 64), {}),
    "units": (lambda: nn.LSTM(64, 256), (20, 2, 64), {}),
    "directions": (lambda: nn.LSTM(24, 48, bidirectional=True), (40, 4, 24), {}),
    # So much padding that torch would fill it on several threads.
    "lengths": (lambda: nn.GRU(8, 128), (60, 20, 8), {"lengths": [*range(0, 60, 3)]}),
    "resets": (
        lambda: nn.RNN(8, 64),
        (50, 9, 8),
        {"resets": torch.arange(450).view(50, 9) % 7 < 1},
    ),
    "cell": (lambda: nn.LSTMCell(256, 256), (9, 256), {}),
}


@forks
@pytest.mark.parametrize("case", CASES)
def test_a_forked_child_gives_the_same_bits(case: str) -> None:
    """OpenMP ran in the parent; in the child it would wait for threads that are not there."""
    make, shape, options = CASES[case]
    module, x = make(), torch.randn(shape)
    expected = infer(module, x, options)
    assert_same(Child("fork", infer, module, x, options).result(), expected)


def _grandchild(module: Any, x: Tensor) -> list[Any]:
    infer(module, x, {})
    return Child("fork", infer, module, x, {}).result(TIMEOUT / 2)


@forks
def test_forks_from_a_thread_beside_sweeps_and_of_children() -> None:
    """The fork may find the pool of memory in another thread's hands."""
    module, x = nn.GRU(64, 64), torch.randn(50, 24, 64)
    expected = infer(module, x, {})
    finished = threading.Event()
    results: list[Any] = []

    def sweep() -> None:
        while not finished.is_set():
            infer(module, x[:, :17], {})

    def fork() -> None:
        for _ in range(5):
            results.append(Child("fork", _grandchild, module, x).result())

    sweeps = [threading.Thread(target=sweep) for _ in range(2)]
    forking = threading.Thread(target=fork)
    for thread in (*sweeps, forking):
        thread.start()
    forking.join()
    finished.set()
    for thread in sweeps:
        thread.join()
    assert len(results) == 5
    for result in results:
        assert_same(result, expected)


def train(module: Any, x: Tensor, lengths: list[int] | None = None) -> list[Any]:
    """Output and all gradients; around the layer nothing that torch would share among threads."""
    x = x.clone().requires_grad_()
    output = module(x, lengths=lengths)[0]
    grads = torch.autograd.grad(output.square().sum(), [x, *module.parameters()])
    return [output.detach().numpy(), *(gradient.numpy() for gradient in grads)]


def _parent(module: Any, x: Tensor) -> tuple[list[Any], list[Any]]:
    """The numbers of a child that trains, and then one's own; forward ran on two threads."""
    torch.set_num_threads(2)
    module(x)
    actual = Child("fork", train, module, x).result(TIMEOUT / 2)
    return actual, train(module, x)


@forks
def test_a_forked_child_trains() -> None:
    """Where no backward ran before the fork: after one torch refuses it in the child."""
    module, x = nn.LSTM(24, 48, bidirectional=True), torch.randn(40, 4, 24)
    actual, expected = Child("spawn", _parent, module, x).result()
    assert_same(actual, expected)


def test_a_spawned_child_gives_the_same_bits() -> None:
    module, x = nn.GRU(8, 16, num_layers=2, bidirectional=True), torch.randn(9, 4, 8)
    lengths = [9, 0, 4, 7]
    expected = train(module, x, lengths)
    assert_same(Child("spawn", train, module, x, lengths).result(), expected)


class Encoded(Dataset[Tensor]):
    """Sequences as a layer encodes them, in the workers of a loader."""

    def __init__(self, layer: nn.Recurrent) -> None:
        self.layer = layer
        self.data = torch.randn(8, 50, 3, layer.input_size)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> Tensor:
        with torch.no_grad():
            return self.layer(self.data[k])[0]


def _collated(samples: list[Tensor]) -> Tensor:
    batch = torch.stack(samples)
    layer = nn.RNN(batch.shape[-1], 2)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    with torch.no_grad():
        return layer(batch.flatten(0, 1))[0]


@forks
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_of_a_loader() -> None:
    dataset = Encoded(nn.LSTM(32, 64))
    expected = [_collated([dataset[k], dataset[k + 1]]) for k in range(0, 8, 2)]
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=2,
        collate_fn=_collated,
        multiprocessing_context="fork",
        timeout=TIMEOUT,
    )
    for actual, batch in zip(loader, expected, strict=True):
        assert torch.equal(actual, batch)


class Model(torch.nn.Module):
    """A layer, a custom cell in a layer, and a cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.LSTM(5, 6, num_layers=2, bidirectional=True)
        self.custom = nn.Recurrent(Peephole, 12, 7)
        self.cell = nn.GRUCell(3, 4)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        values = self.custom(self.below(x, lengths=lengths)[0])[0]
        h = None
        for value in values:
            h = self.cell(value, h)
        return self.head(h)


def _model() -> Model:
    torch.manual_seed(0)
    return Model().double()


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 8, 5, generator=generator, dtype=torch.float64)
    expected = torch.randn(8, 1, generator=generator, dtype=torch.float64)
    return x, torch.tensor([6, 1, 3, 0, 6, 2, 5, 4]), expected


def _learn(model: torch.nn.Module, batch: slice) -> list[Any]:
    """Gradients of the first of three steps, and parameters after the last."""
    x, lengths, expected = _batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    results: list[Any] = []
    for step in range(3):
        optimizer.zero_grad()
        error = model(x[:, batch], lengths[batch]) - expected[batch]
        error.square().mean().backward()
        if step == 0:
            results += [p.grad.clone().numpy() for p in model.parameters() if p.grad is not None]
        optimizer.step()
    return results + [p.detach().numpy() for p in model.parameters()]


def _rank(rank: int, position: str) -> list[list[Any]]:
    """What one of two processes learns, with a graph that may change and with one that may not."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{position}", rank=rank, world_size=2)
    actual = [
        _learn(
            DistributedDataParallel(_model(), static_graph=static), slice(4 * rank, 4 * rank + 4)
        )
        for static in (False, True)
    ]
    torch.distributed.destroy_process_group()
    return actual


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_learn_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    children = [Child("spawn", _rank, rank, str(tmp_path / "meet")) for rank in (0, 1)]
    actual = [result for child in children for result in child.result()]
    model = _model()
    expected = _learn(model, slice(0, 8))
    assert len(expected) == 2 * len(list(model.parameters()))
    assert len(actual) == 4
    for result in actual:
        assert len(result) == len(expected)
        for mine, theirs in zip(result, expected, strict=True):
            close(torch.from_numpy(mine), torch.from_numpy(theirs), "gradient")


def _starve() -> list[dict[str, int]]:
    """For one direction and for two."""
    torch.set_num_threads(2)
    return [
        _starved(nn.LSTM(1, 16, bidirectional=bidirectional)) for bidirectional in (False, True)
    ]


def _starved(layer: nn.Recurrent) -> dict[str, int]:
    """How often training was refused, and how, as a process gets more memory, step by step; each
    time the layer gives its numbers afterwards."""
    import resource  # not on every system

    # A row of output is short beside what a sweep makes for itself.
    small, large = torch.randn(1, 9, 1), torch.randn(1, 1 << 16, 1)
    previous, expected = train(layer, small), train(layer, large)
    page, unlimited = resource.getpagesize(), resource.getrlimit(resource.RLIMIT_AS)
    ours = {"MemoryError": 0, "RuntimeError": 0, "enough": 0}
    while ours["enough"] < 2:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * page
        resource.setrlimit(resource.RLIMIT_AS, (used + (sum(ours.values()) << 22), unlimited[1]))
        try:
            actual = train(layer, large)
        except (MemoryError, RuntimeError) as error:
            ours[type(error).__name__] += 1
        else:
            ours["enough"] += 1
            assert_same(actual, expected)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)
        assert_same(train(layer, small), previous)
    return ours


@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages of a process")
def test_too_little_memory_is_an_error_and_nothing_worse() -> None:
    """How often depends on what the process has kept; the core's own tests refuse each block."""
    actual = Child("spawn", _starve).result()
    assert sum(counts["MemoryError"] for counts in actual), (
        actual
    )  # the core's; torch has RuntimeErrors
    for counts in actual:
        assert counts["MemoryError"] + counts["RuntimeError"], actual
