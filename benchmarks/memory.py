"""Memory of one training step over a long sequence: the peak above the baseline.

    python benchmarks/memory.py [--threads 2] [--only REGEX] [--quick]

Each run is a separate process. The baseline is measured with input, output gradient and module in
memory, after a step over two tokens. Peak and baseline are resident set sizes (VmHWM, VmRSS).
"""

import gc
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import harness
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import Case, Problem, make_case
from unrolled import nn as unrolled_nn

SIZES = ((1000, 32, 256, 256), (4000, 32, 256, 256))  # T, N, I, H
QUICK_SIZES = ((100, 4, 32, 32),)
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "torch": (nn, {}),
    "unrolled": (unrolled_nn, {}),
    "unrolled checkpoint": (unrolled_nn, {"checkpoint": True}),
}
RUNS = 3
CHILD = "one-step"


def rows(settings: Settings) -> list[Row]:
    """LSTM and GRU, ours and torch's; the results are checked first, in this process."""
    problems = [
        Problem(cell, *size, training=True)
        for size in (QUICK_SIZES if settings.quick else SIZES)
        for cell in ("LSTM", "GRU")
    ]
    return [row(problem, settings) for problem in problems if settings.wants(_name(problem))]


def _name(problem: Problem) -> str:
    return f"{problem.cell} memory {problem.T}"


def row(problem: Problem, settings: Settings) -> Row:
    """The medians of several runs, in MiB."""
    case = make_case(problem)
    truth = case.truth()
    peers = {}
    for who in LAYERS:
        check = harness.checked(f"{problem.name}, {who}", _peer(who, case), truth)
        runs = [_peak(who, problem, settings.threads) for _ in range(RUNS)]
        peers[who] = {"mib": statistics.median(runs), "runs": runs, **check}
        print(f"{_name(problem)}, {who}: {peers[who]['mib']:.0f} MiB", flush=True)
    return {"name": _name(problem), "peers": peers, **harness.describe_problem(case)}


def _peer(who: str, case: Case) -> Peer:
    layer = _layer(who, case.problem.cell, case.problem.I, case.problem.H)
    layer.load_state_dict(case.layer.state_dict())
    return layer_peer(layer, case.x, case.output_gradient, training=True)


def _layer(who: str, cell: str, I: int, H: int) -> nn.Module:  # noqa: E741
    library, options = LAYERS[who]
    layer: nn.Module = getattr(library, cell)(I, H, **options)
    return layer


def _peak(who: str, problem: Problem, threads: int) -> float:
    """The peak in a new process."""
    sizes = (problem.T, problem.N, problem.I, problem.H)
    command = [sys.executable, __file__, CHILD, who, problem.cell, *map(str, (*sizes, threads))]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise harness.CheckError(
            f"{problem.name}, {who}: its process failed\n{process.stderr[-2000:]}"
        )
    return float(process.stdout)


def one_step(who: str, cell: str, T: int, N: int, I: int, H: int, threads: int) -> float:  # noqa: E741
    """The peak of one training step above the baseline, in MiB."""
    harness.limit(threads)
    torch.manual_seed(0)
    layer = _layer(who, cell, I, H)
    x, output_gradient = torch.randn(T, N, I).requires_grad_(), torch.randn(T, N, H)
    short = torch.randn(2, N, I).requires_grad_()
    layer_peer(layer, short, torch.randn(2, N, H), training=True).call()
    layer.zero_grad()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    baseline = _kib("VmRSS")
    layer_peer(layer, x, output_gradient, training=True).call()
    return (_kib("VmHWM") - baseline) / 1024


def _kib(field: str) -> int:
    """A field of this process's status in Linux."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[0])


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        print(one_step(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))
    else:
        harness.main(__doc__, {"memory": rows})
