"""What a figure was measured on: processor, versions, commit, and torch's own rate of products."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from unrolled import _core
from unrolled.bench.timing import Plan, interleave

ROOT = Path(__file__).resolve().parents[3]
"""Of the project, where the library runs from it."""
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


def environment(threads: int) -> dict[str, Any]:
    """All that has to stand beside a figure."""
    name, flags = _processor()
    commit, dirty = _commit()
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "isa": _best(flags),
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
    """Processor, versions and commit in one line."""
    return describe(environment(torch.get_num_threads()))


def describe(found: dict[str, Any]) -> str:
    """An environment in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    changed = ", with changes" if found["dirty"] else ""
    return (
        f"{found['processor']} ({found['cores']} cores, {found['isa']}), "
        f"Python {found['python']}, {versions}, commit {found['commit'][:7]}{changed}; "
        f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    )


def slug() -> str:
    """The processor as a file's name."""
    name, flags = _processor()
    words = re.sub(r"\((r|tm)\)|@.*|\bcpu\b", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {_best(flags)}").strip("-")


def sgemm_gflops(plan: Plan) -> dict[str, float]:
    """Torch's float32 product of two 1024 x 1024 matrices, in GFLOP/s."""
    a, b, out = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.empty(1024, 1024)
    timing = interleave({"sgemm": lambda: torch.mm(a, b, out=out)}, plan)["sgemm"]
    rate = 2 * 1024**3 / timing.median_ms / 1e6
    return {"median": rate, "spread": rate * timing.spread_ms / timing.median_ms}


def _processor() -> tuple[str, set[str]]:
    """Name and flags, as the system tells them."""
    path = Path("/proc/cpuinfo")
    found: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = found.get("flags", found.get("Features", ""))
    return found.get("model name") or platform.processor() or platform.machine(), set(flags.split())


def _best(flags: set[str]) -> str:
    """The widest vectors that the processor has."""
    for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("sve", "sve"), ("asimd", "neon")):
        if flag in flags:
            return name
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> tuple[str, bool]:
    """The commit, and whether what is measured differs from it."""
    if not (ROOT / "csrc" / "include" / "unrolled.h").is_file():
        return "unknown", False  # installed: a repository around it is not the project's
    commit = _git("rev-parse", "HEAD") or "unknown"
    return commit, bool(_git("status", "--porcelain", "--", *MEASURED))


def _git(*arguments: str) -> str:
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return ran.stdout.strip()
