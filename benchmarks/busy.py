"""A busy machine: the same calls beside 0, 1 and 2 spinning processes for each core.

    python benchmarks/busy.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Each row has its own neighbours, which start before its first sample and run until its last one. A
sample repeats a call for SAMPLE_MS, and each call counts by itself: where a machine is busy, most
of a short call's time may be that of a few calls which lost a time slice. Ours are measured on all
threads and on one. Names end with the number of neighbours for each core.
"""

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import harness
from checks import CheckError, Results
from harness import Row, Settings
from peers import Peer, available
from peers.layers import make_torch, make_unrolled
from problems import Case, Problem, make_case
from unrolled import nn as unrolled_nn
from unrolled.bench._timing import median_and_spread, rotated, settle
from unrolled.export import export
from unrolled.runtime import load

SAMPLE_MS = 60.0
BUDGET_S = 4.0  # of a row; but each peer has MIN_ROUNDS samples
MIN_ROUNDS = 3
LOADS = (0, 1, 2)  # neighbours for each core
RUNTIME = [("LSTM", (200, 1, 128, 128)), ("GRU", (200, 1, 128, 128))]
LAYERS = [
    *(("LSTM", shape, False) for shape in ((64, 32, 256, 256), (64, 1, 256, 256))),
    *(("GRU", shape, False) for shape in ((64, 32, 256, 256), (64, 1, 256, 256))),
    *(("LSTM", shape, True) for shape in ((100, 1, 256, 256), (64, 32, 256, 256))),
]
QUICK_SHAPE = (5, 2, 8, 8)

# Spins until its parent is gone, so that it never outlives a benchmark that was killed.
SPIN = """
import os, sys
parent = int(sys.argv[1])
print(flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Processes that spin within the block, and are ended after it, whatever happens.

    Raises:
        CheckError: one of them ended before.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", SPIN, str(os.getpid())]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout
            process.stdout.readline()  # it has started
        yield processes
        if any(process.poll() is not None for process in processes):
            raise CheckError("a neighbour ended while others were timed")
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            assert process.stdout
            process.stdout.close()


@dataclass(frozen=True)
class Candidate:
    """A peer, what its results must be, and the number of torch's threads that it gets."""

    peer: Peer
    expected: Results
    threads: int


def rows(settings: Settings) -> list[Row]:
    """Each call beside each number of neighbours."""
    runtime = [("LSTM", QUICK_SHAPE)] if settings.quick else RUNTIME
    layers = [("LSTM", QUICK_SHAPE, True)] if settings.quick else LAYERS
    cases = [("runtime", Problem(cell, *shape, False)) for cell, shape in runtime]
    cases += [("layer", Problem(cell, *shape, training)) for cell, shape, training in layers]
    table = []
    for kind, problem in cases:
        for load_per_core in LOADS[:2] if settings.quick else LOADS:
            name = f"{kind} {problem.name} busy {load_per_core}"
            if settings.wants(name):
                table.append(row(name, kind, problem, load_per_core, settings))
    return table


def row(name: str, kind: str, problem: Problem, load_per_core: int, settings: Settings) -> Row:
    """Check all peers, then time them beside their neighbours."""
    case = make_case(problem)
    peers = candidates(kind, case, settings.threads)
    with torch.inference_mode(not problem.training):
        errors = {}
        for who, one in peers.items():
            torch.set_num_threads(one.threads)
            errors[who] = harness.checked(f"{name}, {who}", one.peer, one.expected)
        with neighbours(load_per_core * settings.threads):
            samples = sample(peers, settings)
    torch.set_num_threads(settings.threads)
    timings = {who: {**statistics_of(samples[who]), **errors[who]} for who in peers}
    texts = [f"{who} {t['median_ms']:.3g} ({t['p90_ms']:.3g})" for who, t in timings.items()]
    print(f"{name}: {', '.join(texts)} ms (90 % below)", flush=True)
    return {
        "name": name,
        "peers": timings,
        "neighbours": load_per_core,
        **harness.describe_problem(case),
    }


def candidates(kind: str, case: Case, threads: int) -> dict[str, Candidate]:
    """Ours on all threads and on one, and all other libraries that support the problem."""
    expected = case.truth()
    make = make_runtime if kind == "runtime" else make_unrolled
    peers = {
        "unrolled": Candidate(make(case, threads), expected, threads),
        "unrolled 1 thread": Candidate(make(case, 1), expected, 1),
        "torch": Candidate(make_torch(case, threads), expected, threads),
    }
    makers, skipped = available()
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", flush=True)
    for name in ("onnxruntime", "openvino"):
        peer = makers[name](case, threads) if name in makers else None
        if peer is not None:
            peers[name] = Candidate(peer, expected, threads)
    return peers


def make_runtime(case: Case, threads: int) -> Peer:
    """The exported layer in our runtime, without torch."""
    problem = case.problem
    layer = getattr(unrolled_nn, problem.cell)(problem.I, problem.H)
    layer.load_state_dict(case.layer.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        export(layer, path)
        model = load(path)
    model.threads = threads
    call = functools.partial(model.run, case.x.detach().numpy())
    return Peer(call, lambda output: {"output": torch.from_numpy(output)})


def sample(peers: Mapping[str, Candidate], settings: Settings) -> dict[str, list[float]]:
    """The times of all calls in ms. Peers take turns; before each, all threads come to rest."""
    names = list(peers)
    samples: dict[str, list[float]] = {who: [] for who in names}
    duration_ms = 1.0 if settings.quick else SAMPLE_MS
    start = time.perf_counter()
    for k in range(settings.plan.rounds):
        if k >= MIN_ROUNDS and time.perf_counter() - start > BUDGET_S:
            break
        for who in rotated(names, k):
            torch.set_num_threads(peers[who].threads)
            settle()
            samples[who] += calls(peers[who].peer.call, duration_ms)
    return samples


def calls(call: Callable[[], Any], duration_ms: float) -> list[float]:
    """The time of each call in ms, for so long, after an untimed one."""
    call()
    times: list[float] = []
    while sum(times) < duration_ms:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def statistics_of(times: list[float]) -> dict[str, float]:
    """Median, spread, mean, and the time that nine of ten calls do not exceed."""
    median, spread = median_and_spread(times)
    p90 = statistics.quantiles(times, n=10, method="inclusive")[-1] if len(times) > 1 else times[0]
    summary = {"median_ms": median, "spread_ms": spread, "p90_ms": p90}
    return {**summary, "mean_ms": statistics.fmean(times), "rounds": len(times), "repeats": 1}


if __name__ == "__main__":
    harness.main(__doc__, {"busy": rows})
