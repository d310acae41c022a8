"""What must be green before a figure is reported: the results of every peer, and the tests.

Results are compared with torch's layer in float64. A check that fails raises ``RedError``; then
nothing is timed or written.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

Results = dict[str, Tensor]

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/nn/test_parity.py",)
OUTPUT = 1e-5  # of the largest wanted value, or of 1: some ten times what float32 loses here
GRADIENT = 5e-5  # sums over up to 12800 tokens in another order
# bfloat16's output: two roundings of 2^-9 of its size; gradients: those of torch's layers, which
# round at each step, too.
HALF_OUTPUT, HALF_GRADIENT = 2**-6, 2**-2


class RedError(Exception):
    """A check failed: there is nothing to report."""


def check(who: str, actual: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest error, as part of the largest wanted value of its tensor.

    Raises:
        RedError: a result is missing, has another shape, or is too far from what was wanted.
    """
    if actual.keys() != wanted.keys():
        raise RedError(f"{who}: gave {sorted(actual)}, wanted {sorted(wanted)}")
    worst = 0.0
    for name, tensor in wanted.items():
        got = actual[name]
        limits = (HALF_OUTPUT, HALF_GRADIENT) if got.dtype == torch.bfloat16 else (OUTPUT, GRADIENT)
        allowed = limits[name != "output"]
        if got.shape != tensor.shape:
            raise RedError(
                f"{who}: {name} has shape {list(got.shape)}, wanted {list(tensor.shape)}"
            )
        scale = max(tensor.abs().max().item(), 1.0 if name == "output" else 1e-30)
        error = (got.double() - tensor.double()).abs().max().item() / scale
        if not error <= allowed:
            raise RedError(
                f"{who}: {name} is wrong by {error:.1e} of its size, allowed {allowed:.0e}"
            )
        worst = max(worst, error)
    return worst


def run_tests(tests: tuple[str, ...] = TESTS) -> None:
    """Run the project's own quick tests.

    Raises:
        RedError: one of them failed, or none could run.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    print(f"first {' '.join(command[2:])}", flush=True)
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        raise RedError(
            f"the project's own tests are red:\n{ran.stdout[-3000:]}{ran.stderr[-1000:]}"
        )
    print(ran.stdout.strip().splitlines()[-1], flush=True)
