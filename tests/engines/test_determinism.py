"""Equal seeds give equal bits: for any number of threads, when repeated or resumed, and in graphs.

Losses here are sums of squares: torch's own matrix products depend on the number of threads.
"""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from tests.support.paths import ROOT
from tests.support.subjects import LAYERS, tokens
from tests.support.tolerances import assert_equal
from unrolled import engines, nn

I, H = 24, 64  # noqa: E741
SIZES = [(20, 9), (60, 2)]
"""[T, N] with work enough for several threads: shared by sequences, and a direction on each."""
SOME_LAYERS = ["rnn", "gru", "projected", "peephole"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


class Training:
    """A model, its optimizer, and data, dropout and weights that the seed decides."""

    def __init__(self, layer_name: str, size: tuple[int, int], seed: int = 0) -> None:
        torch.manual_seed(seed)
        options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}
        self.size = size
        self.layer = LAYERS[layer_name](I, H, **options)
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=0.01)

    def steps(self, count: int) -> list[Tensor]:
        """Losses of some steps."""
        return [self.step() for _ in range(count)]

    def step(self) -> Tensor:
        """One step, with lengths and resets at times."""
        T, N = self.size
        x = torch.randn(T, N, I)
        lengths = torch.randint(1, T + 1, (N,)) if torch.rand(()) < 0.5 else None
        resets = torch.rand(T, N) < 0.1 if torch.rand(()) < 0.5 else None
        output, final = self.layer(x, lengths=lengths, resets=resets)
        states = final if isinstance(final, tuple) else (final,)
        loss = torch.stack([(part - 0.1).square().mean() for part in (output, *states)]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def saved(self) -> io.BytesIO:
        """Everything that a later process needs to go on."""
        file = io.BytesIO()
        tree = {
            "layer": self.layer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        torch.save(tree, file)
        file.seek(0)
        return file

    def resume(self, file: io.BytesIO) -> None:
        tree = torch.load(file, weights_only=True)
        self.layer.load_state_dict(tree["layer"])
        self.optimizer.load_state_dict(tree["optimizer"])
        torch.set_rng_state(tree["random"])

    def bits(self) -> list[Tensor]:
        """All that was learned."""
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        return [*(p.detach().clone() for p in self.layer.parameters()), *moments]


@pytest.mark.parametrize(
    ("layer_name", "size"), [("gru", SIZES[1]), *((name, SIZES[0]) for name in SOME_LAYERS)]
)
def test_threads_and_repetition_do_not_matter(layer_name: str, size: tuple[int, int]) -> None:
    results = []
    for threads in (2, 1, 3, 2):
        torch.set_num_threads(threads)
        training = Training(layer_name, size)
        results.append([*training.steps(3), *training.bits()])
    for rerun in results[1:]:
        for mine, expected in zip(rerun, results[0], strict=True):
            assert_equal(mine, expected)
    other_seed = Training(layer_name, size, seed=1)
    assert not torch.equal(other_seed.step(), results[0][0])


@pytest.mark.parametrize("layer_name", SOME_LAYERS)
def test_a_resumed_run_reaches_the_same_bits(layer_name: str) -> None:
    unsplit = Training(layer_name, SIZES[0])
    losses = unsplit.steps(6)
    halted = Training(layer_name, SIZES[0])
    halted.steps(3)
    file = halted.saved()
    torch.randn(100)
    resumed = Training(layer_name, SIZES[0], seed=5)
    resumed.step()
    resumed.resume(file)
    torch.set_num_threads(2)
    for mine, expected in zip(resumed.steps(3), losses[3:], strict=True):
        assert_equal(mine, expected)
    for mine, expected in zip(resumed.bits(), unsplit.bits(), strict=True):
        assert_equal(mine, expected)


def test_dropout_draws_in_graphs_what_it_draws_outside() -> None:
    """Equal seeds, equal bits, call by call and run by run."""
    torch._dynamo.reset()
    layer, x = nn.GRU(I, H, num_layers=3, dropout=0.4, batch_first=True), torch.randn(4, 6, I)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    runs = []
    for call in (compiled, compiled, layer):
        torch.manual_seed(3)
        results = []
        for _ in range(2):
            output, h = call(x)
            grads = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
            results += [output, h, *grads]
        runs.append(results)
    half = len(runs[0]) // 2
    assert not torch.equal(runs[0][0], runs[0][half])
    for rerun in runs[1:]:
        for mine, expected in zip(rerun, runs[0], strict=True):
            assert_equal(mine, expected)
    torch._dynamo.reset()


def _moved(tensor: Tensor, offset: int) -> Tensor:
    """The same numbers at another distance from the beginning of a line of memory."""
    memory = torch.full((tensor.numel() + offset,), float("nan"), dtype=tensor.dtype)
    actual = memory[offset:].view(tensor.shape)
    return actual.copy_(tensor.detach())


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (20, 9)])
@pytest.mark.parametrize("layer_name", LAYERS)
def test_where_the_numbers_lie_does_not_matter(layer_name: str, size: tuple[int, int]) -> None:
    layer = LAYERS[layer_name](I, H, bidirectional=True)
    x = tokens(*size, I).detach().float()
    weights = {name: p.detach().clone() for name, p in layer.named_parameters()}
    results = []
    for offset in (0, 1, 3, 8):
        for name, parameter in layer.named_parameters():
            parameter.data = _moved(weights[name], offset)
        leaf = _moved(x, offset).requires_grad_()
        with torch.no_grad():
            inferred = layer(leaf)[0]
        output, _ = layer(leaf)
        grads = torch.autograd.grad(output.square().sum(), [leaf, *layer.parameters()])
        results.append([inferred, output, *grads])
    for rerun in results[1:]:
        for mine, expected in zip(rerun, results[0], strict=True):
            assert_equal(mine, expected)


def digest(module: Module, losses: list[Tensor]) -> str:
    """One line for all bits."""
    numbers = [*losses, *(p.detach() for p in module.parameters())]
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in numbers)).hexdigest()


@pytest.mark.slow
def test_processes_agree() -> None:
    """Also where sets and dictionaries of strings have another order."""
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]));"
        "from tests.engines.test_determinism import SIZES, Training, digest;"
        "runs = [Training(kind, SIZES[0]) for kind in ('gru', 'peephole')];"
        "print(*(digest(run.layer, run.steps(3)) for run in runs))"
    )
    lines = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, threads]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        lines.add(ran.stdout)
    assert len(lines) == 1
    assert len(next(iter(lines)).split()) == 2


def test_a_training_of_these_runs_natively() -> None:
    training = Training("peephole", SIZES[0])
    with engines.record() as ran:
        training.step()
    assert ran == ["native"] * 4
