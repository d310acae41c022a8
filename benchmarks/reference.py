"""The reference engine against torch's own unfused loop, the yardstick that it is held to (2x).

Both run in one process, interleaved, after their results have been compared. Prints a table
in Markdown with machine, versions, commit, medians and spread (half the distance of the quartiles).

    python benchmarks/reference.py [--rounds 21] [--threads 2]
"""

import argparse
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from unrolled import engines
from unrolled import nn as unrolled_nn
from unrolled._core import instruction_sets

T, N, I, H = 100, 32, 128, 128  # noqa: E741


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds of each (21)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (2)")
    options = parser.parse_args()
    # Switching oneDNN off and on makes torch speak of Intel GPUs.
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.threads} threads; T={T}, N={N}, I={I}, H={H}, float32;")
    print(
        f"medians of {options.rounds} interleaved rounds in ms, ± half the quartiles' distance.\n"
    )
    print("| | torch, unfused | reference engine | ratio |")
    print("|---|---|---|---|")
    for name in ("RNN", "GRU", "LSTM"):
        for training in (False, True):
            calls = peers(name, training)
            medians, spreads = interleave(calls, options.rounds)
            kind = "forward and backward" if training else "forward"
            cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(medians, spreads, strict=True)]
            print(f"| {name}, {kind} | {cells[0]} | {cells[1]} | {medians[1] / medians[0]:.2f} |")


def peers(name: str, training: bool) -> list[Callable[[], torch.Tensor]]:
    """Torch's layer with oneDNN off, ours on the reference engine; equal results are checked."""
    torch.manual_seed(0)
    theirs = getattr(nn, name)(I, H)
    ours = getattr(unrolled_nn, name)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, I)

    def step(layer: nn.Module) -> torch.Tensor:
        with torch.set_grad_enabled(training):
            output = layer(x)[0]
            if training:
                layer.zero_grad()
                output.square().mean().backward()
        return output

    def run_theirs() -> torch.Tensor:
        with torch.backends.mkldnn.flags(enabled=False):
            return step(theirs)

    def run_ours() -> torch.Tensor:
        with engines.use("reference"):
            return step(ours)

    torch.testing.assert_close(run_ours(), run_theirs(), rtol=1e-4, atol=1e-5)
    if training:
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-6)
    return [run_theirs, run_ours]


def interleave(
    calls: list[Callable[[], torch.Tensor]], rounds: int
) -> tuple[list[float], list[float]]:
    """Median and half the interquartile distance of each call, in ms."""
    times: list[list[float]] = [[] for _ in calls]
    for k in range(rounds + 3):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if k >= 3:
                taken.append((time.perf_counter() - start) * 1e3)
    quartiles = [statistics.quantiles(taken, n=4) for taken in times]
    return [q[1] for q in quartiles], [(q[2] - q[0]) / 2 for q in quartiles]


def machine() -> str:
    """Processor, versions and commit, as found."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    features = [name for name, offered in instruction_sets().items() if offered]
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    )
    return (
        f"{names[0] if names else platform.processor()} ({len(names)} cores, {features[0]}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"commit {found.stdout.strip() or 'unknown'}"
    )


if __name__ == "__main__":
    main()
