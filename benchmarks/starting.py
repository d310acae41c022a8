"""From the start of a process to the first step of a model, without torch.

    python benchmarks/starting.py [--only REGEX] [--quick]

Each run is a process of its own, which says when it got there by a clock that processes share.
Where there is the environment that `make wheel` leaves, without torch, it is one of that.
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
from unrolled.bench.machine import ROOT
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
    """Each stage in turn, all of them in every round; the model's step is checked first."""
    runs: dict[str, list[float]] = {name: [] for name in STAGES if settings.wants(name)}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        error = _make(path)
        for _ in range(3 if settings.quick else RUNS):
            for name, found in runs.items():
                found.append(_run(STAGES[name].format(path=path)))
    made = []
    for name, found in runs.items():
        print(f"{name}: {statistics.median(found):.0f} ms", flush=True)
        made.append({"name": name, "peers": {"unrolled": {"runs": found, "error": error}}})
    return made


def _make(path: str) -> float:
    """A character model of 256 units; how far its first step is from torch's."""
    torch.manual_seed(0)
    model = SequenceModel(256, 256, hidden_size=256, cell="LSTM", input="one-hot").eval()
    export(model, path)
    with torch.no_grad():
        wanted = model(torch.tensor([[3]]))[0][0]
    error = float((torch.from_numpy(load(path).stream().step(3)) - wanted).abs().max())
    if error > 1e-5:
        raise harness.RedError(f"the model's first step is off by {error:.1e}")
    return error


def _run(code: str) -> float:
    """Milliseconds from before a process is made to its word that it is there."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    done = subprocess.run(
        [PYTHON, "-c", f"{code}\n{CLOCK}"], capture_output=True, text=True, check=True
    )
    return (int(done.stdout) - before) / 1e6


if __name__ == "__main__":
    harness.main(__doc__, {"starting": rows})
