"""Two versions of the library against each other: the grid, and single small calls.

    python benchmarks/compare_trees.py BEFORE/.venv/bin/python AFTER/.venv/bin/python

Each interpreter imports its version of the library in a process of its own. Both processes live
through the whole run and take turns, sample by sample, so that a change in the machine's speed
meets both; the one that waits does so without computing. A ratio is the time before over the time
after: above 1 the new version is faster. Nothing is written.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL_SHAPES = ((1, 1, 64, 64), (5, 3, 16, 16))
SMALL = ("cell infer", "cell train", "lengths infer", "lengths train", "resets train", "stream")
SAMPLE_MS = 4.0


def names() -> list[str]:
    """All rows: a cell, T,N,I,H, and a mode of the call."""
    from problems import CELLS, SHAPES

    grid = [
        f"{cell} {','.join(map(str, shape))} {mode}"
        for shape in SHAPES
        for cell in CELLS
        for mode in ("infer", "train")
    ]
    small = [
        f"{cell} {','.join(map(str, shape))} {mode}"
        for shape in SMALL_SHAPES
        for cell in ("GRU", "LSTM")
        for mode in SMALL
    ]
    return grid + small


def prepare(name: str) -> Callable[[], Any]:
    """The call of a row, in the process of one version."""
    import numpy as np
    import torch

    from unrolled import nn

    cell, sizes, mode = name.split(" ", 2)
    T, N, I, H = map(int, sizes.split(","))  # noqa: E741
    torch.manual_seed(0)
    single = mode.startswith("cell")
    layer = getattr(nn, cell + "Cell" * single)(I, H)
    x = torch.randn(*([] if single else [T]), N, I)
    if mode == "stream":
        stream, row = layer.stream(N), np.ascontiguousarray(x[0].numpy())
        return lambda: stream.step(row)
    options: dict[str, Any] = {}
    if mode.startswith("lengths"):
        options["lengths"] = torch.tensor([T, *[1] * (N - 1)])
    if mode.startswith("resets"):
        options["resets"] = torch.arange(T * N).reshape(T, N) % 3 == 0
    if mode.endswith("infer"):

        def infer() -> Any:
            with torch.inference_mode():
                return layer(x, **options)

        return infer
    x.requires_grad_()

    def train() -> None:
        result = layer(x, **options)
        output = result if isinstance(result, torch.Tensor) else result[0]
        output.backward(torch.ones_like(output))

    return train


def work(threads: int) -> None:
    """Read rows and numbers of repetitions from standard input; answer with seconds."""
    import gc

    import torch

    torch.set_num_threads(threads)
    gc.disable()
    call: Callable[[], Any] = int
    for line in sys.stdin:
        name, repeats = json.loads(line)
        if name:
            gc.collect()
            call = prepare(name)
            call()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = time.perf_counter() - start
        time.sleep(0.02)  # until the threads of this process no longer spin
        print(seconds, flush=True)


class Version:
    """One version of the library, waiting in its process."""

    def __init__(self, python: Path, threads: int) -> None:
        command = [python, __file__, "--work", "--threads", str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def seconds(self, repeats: int, name: str = "") -> float:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([name, repeats]) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def compare(name: str, versions: tuple[Version, Version], rounds: int) -> float:
    """Print one row; returns its ratio."""
    estimate = min(version.seconds(3, name) / 3 for version in versions)
    repeats = max(1, round(SAMPLE_MS / 1e3 / estimate))
    samples: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds):
        for version in (0, 1) if k % 2 else (1, 0):
            versions[version].seconds(max(1, repeats // 4))
            samples[version].append(versions[version].seconds(repeats) / repeats * 1e3)
    old_ms, new_ms = map(statistics.median, samples)
    quartiles = [statistics.quantiles(values, n=4) for values in samples]
    spreads = [(high - low) / 2 for low, _, high in quartiles]
    print(
        f"{name:34} before {old_ms:9.4f} ± {spreads[0]:.4f} ms, after {new_ms:9.4f} ± "
        f"{spreads[1]:.4f} ms, before / after {old_ms / new_ms:.3f}",
        flush=True,
    )
    return old_ms / new_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("interpreters", nargs="*", type=Path, help="Python before, Python after")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="regular expression for the names of rows")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.threads)
        return
    if len(options.interpreters) != 2:
        parser.error("two interpreters must be given, that of before and that of after")
    old, new = (Version(python, options.threads) for python in options.interpreters)
    selected = [name for name in names() if re.search(options.only, name)]
    ratios = [compare(name, (old, new), options.rounds) for name in selected]
    mean = statistics.geometric_mean(ratios)
    print(f"{len(ratios)} rows: geometric mean {mean:.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
