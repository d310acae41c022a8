"""The checks that must pass before a result is reported: the results of all peers, and the tests.

Results are compared with torch's layer in float64. A failed check raises `CheckError`; then nothing
is timed or written.
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
OUTPUT = 1e-5  # of the largest expected value, or of 1: about ten times the rounding of float32
GRADIENT = 5e-5  # for sums over up to 12800 tokens in another order
# Outputs in bfloat16 have two roundings of 2^-9 of their size; the gradients of torch's layers
# are rounded at each step.
HALF_OUTPUT, HALF_GRADIENT = 2**-6, 2**-2


class CheckError(Exception):
    """A check failed, so that nothing may be reported."""


def check(who: str, actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest error, relative to the largest expected value of its tensor.

    Raises:
        CheckError: a result is missing, has another shape, or differs too much from the expected
            one.
    """
    if actual.keys() != expected.keys():
        raise CheckError(f"{who}: results must be {sorted(expected)}, got {sorted(actual)}")
    worst = 0.0
    for name, tensor in expected.items():
        result = actual[name]
        limits = (
            (HALF_OUTPUT, HALF_GRADIENT) if result.dtype == torch.bfloat16 else (OUTPUT, GRADIENT)
        )
        allowed = limits[name != "output"]
        if result.shape != tensor.shape:
            raise CheckError(
                f"{who}: {name} must have shape {list(tensor.shape)}, got {list(result.shape)}"
            )
        scale = max(tensor.abs().max().item(), 1.0 if name == "output" else 1e-30)
        error = (result.double() - tensor.double()).abs().max().item() / scale
        if not error <= allowed:
            raise CheckError(
                f"{who}: {name} must be within {allowed:.0e} of its size, got an error of "
                f"{error:.1e}"
            )
        worst = max(worst, error)
    return worst


def run_tests(tests: tuple[str, ...] = TESTS) -> None:
    """Run the quick tests of this project.

    Raises:
        CheckError: one of them failed, or none could run.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    print(f"running {' '.join(command[2:])}", flush=True)
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        raise CheckError(f"tests of this project fail:\n{ran.stdout[-3000:]}{ran.stderr[-1000:]}")
    print(ran.stdout.strip().splitlines()[-1], flush=True)
