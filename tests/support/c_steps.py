"""Runs tests/core/steps.c, which reads commands from its standard input."""

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import STEPS

__all__ = ["WEIGHTS", "error_of_steps", "run_steps"]

WEIGHTS = (None, "float32", "bfloat16", "int8")  # by the header's numbers


def run_steps(path: Path, N: int, script: bytes, weights: str | None = None) -> bytes:
    """The output for these commands.

    Raises:
        subprocess.CalledProcessError: with the exit status and the message.
    """
    command = [STEPS, path, str(WEIGHTS.index(weights)), str(N)]
    return subprocess.run(command, input=script, capture_output=True, check=True).stdout


def error_of_steps(path: Path, script: bytes = b"", N: int = 1) -> tuple[int, str]:
    """The exit status and the message of commands that must fail."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_steps(path, N, script)
    return caught.value.returncode, caught.value.stderr.decode()
