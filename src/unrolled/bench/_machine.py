"""The environment of a measurement: processor, versions, commit, and torch's speed of matmul."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TypedDict

import torch

from unrolled import _core
from unrolled.bench._timing import Plan, interleave

ROOT = Path(__file__).resolve().parents[3]
"""The root of the repository, if the library runs from it."""
PACKAGES = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "jax",
    "jaxlib",
    "torchrecurrent",
)
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
MEASURED = ("src", "csrc", "CMakeLists.txt", "benchmarks", ":!benchmarks/results")


class Environment(TypedDict):
    """The facts that are reported with every measurement."""

    processor: str
    cores: int | None
    isa: str
    flags: list[str]
    build: str
    system: str
    python: str
    packages: dict[str, str]
    commit: str
    dirty: bool
    date: str
    threads: int


def environment(threads: int) -> Environment:
    """The current environment, for a measurement with this number of threads."""
    name, flags = _processor()
    commit, dirty = _commit()
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "isa": _vector_isa(flags),
        "flags": [flag for flag in FLAGS if flag in flags],
        "build": _core.builds()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "commit": commit,
        "dirty": dirty,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": threads,
    }


def machine() -> str:
    """The current environment in one line."""
    return describe(environment(torch.get_num_threads()))


def describe(environment: Environment) -> str:
    """An environment in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    changed = ", with changes" if environment["dirty"] else ""
    return (
        f"{environment['processor']} ({environment['cores']} cores, {environment['isa']}), "
        f"Python {environment['python']}, {versions}, commit {environment['commit'][:7]}{changed}; "
        f"{environment['threads']} thread{'s' * (environment['threads'] > 1)}"
    )


def slug() -> str:
    """The processor as a file name."""
    name, flags = _processor()
    words = re.sub(r"\((r|tm)\)|@.*|\bcpu\b", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {_vector_isa(flags)}").strip("-")


def sgemm_gflops(plan: Plan) -> dict[str, float]:
    """Torch's speed of a float32 product of two 1024 x 1024 matrices, in GFLOP/s."""
    a, b, out = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.empty(1024, 1024)
    timing = interleave({"sgemm": lambda: torch.mm(a, b, out=out)}, plan)["sgemm"]
    rate = 2 * 1024**3 / timing.median_ms / 1e6
    return {"median": rate, "spread": rate * timing.spread_ms / timing.median_ms}


def _processor() -> tuple[str, set[str]]:
    """Name and flags, as reported by the system."""
    path = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", ""))
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, set(flags.split())


def _vector_isa(flags: set[str]) -> str:
    """The widest vector instruction set of the processor."""
    for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("sve", "sve"), ("asimd", "neon")):
        if flag in flags:
            return name
    return platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> tuple[str, bool]:
    """The commit, and whether the measured files differ from it."""
    if not (ROOT / "csrc" / "include" / "unrolled.h").is_file():
        return "unknown", False  # an installed package, not a checkout of this repository
    commit = _git("rev-parse", "HEAD") or "unknown"
    return commit, bool(_git("status", "--porcelain", "--", *MEASURED))


def _git(*arguments: str) -> str:
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return ran.stdout.strip()
