"""Startup time: from the start of a process to the first step of a model, without torch.

    python benchmarks/startup.py [--only REGEX] [--quick]

Each run is a separate process, which prints the time by a clock that processes share. It uses the
environment without torch that `make wheel` creates, if that exists.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import harness
from harness import Row, Settings
from unrolled.bench._machine import ROOT
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.runtime import load

RUNS = 40
INSTALLED = ROOT / "build/without-torch/bin/python"
PYTHON = str(INSTALLED) if INSTALLED.exists() else sys.executable
STAGES = {
    "python itself": "",
    "import numpy": "import numpy",
    "import unrolled.runtime": "import unrolled.runtime",
    "a loaded model's first step": (
        "from unrolled.runtime import load; y = load({path!r}).stream().step(3)"
    ),
}
CLOCK = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC))"


def rows(settings: Settings) -> list[Row]:
    """All stages in each round; the model's step is checked first."""
    runs: dict[str, list[float]] = {name: [] for name in STAGES if settings.wants(name)}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        error = _make(path)
        for _ in range(3 if settings.quick else RUNS):
            for name, times in runs.items():
                times.append(_run(STAGES[name].format(path=path)))
    table = []
    for name, times in runs.items():
        print(f"{name}: {statistics.median(times):.0f} ms", flush=True)
        table.append({"name": name, "peers": {"unrolled": {"runs": times, "error": error}}})
    return table


def _make(path: str) -> float:
    """Write a character model of 256 units; returns the error of its first step."""
    torch.manual_seed(0)
    model = SequenceModel(256, 256, hidden_size=256, cell="LSTM", input="one-hot").eval()
    export(model, path)
    with torch.no_grad():
        expected = model(torch.tensor([[3]]))[0][0]
    error = float((torch.from_numpy(load(path).stream().step(3)) - expected).abs().max())
    if error > 1e-5:
        raise harness.CheckError(
            f"the error of the model's first step must be below 1e-5, got {error:.1e}"
        )
    return error


def _run(code: str) -> float:
    """Milliseconds from the start of a process to the end of the code."""
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    process = subprocess.run(
        [PYTHON, "-c", f"{code}\n{CLOCK}"], capture_output=True, text=True, check=True
    )
    return (int(process.stdout) - start) / 1e6


if __name__ == "__main__":
    harness.main(__doc__, {"startup": rows})
