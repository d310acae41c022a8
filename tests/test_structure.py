"""Where tests stand, and how long files may be."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCES = ROOT / "src" / "unrolled"
SUBJECTS = {
    "": {"packages", "public_names", "structure"},
    "cells": {"published", "types"},
    "engines": {
        "block_diagonal", "determinism", "extremes", "fork_and_exit", "gradients", "interrupt",
        "random_calls", "threads", "unused_parameters",
    },
    "nn": {"errors", "inplace", "laws", "parity", "processes", "tracing", "weights"},
    "core": {"c_interface", "includes", "operations", "programs", "schema"},
    "benchmarks": {"benchmarks"},
    "examples": {"examples", "readme"},
}  # fmt: skip
"""What is tested of several modules together, by the package."""

MAX_LINES = 400
SUFFIXES = {".py", ".pyi", ".cpp", ".h", ".c"}
TESTS = sorted(path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_the_path_of_a_test_follows_from_that_of_a_module(path: Path) -> None:
    """``nn/test_convert_models.py`` is of ``nn/_convert.py``; or it is of a whole package."""
    package = "" if path.parent == Path() else str(path.parent)
    folder = SOURCES
    for part in path.parent.parts:  # the tests of onnx/_exporter are in onnx/exporter
        folder /= f"_{part}" if (folder / f"_{part}").is_dir() else part
    modules = {module.stem.strip("_") for module in folder.glob("*.py")}
    modules |= {module.name.strip("_") for module in folder.glob("*/") if module.is_dir()}
    modules |= SUBJECTS.get(package, set()) | {folder.name.strip("_")}
    name = path.stem.removeprefix("test_")
    assert any(name == module or name.startswith(f"{module}_") for module in modules), (
        f"{path}: no module or subject of {package or 'unrolled'} is called so"
    )


def test_no_file_is_long() -> None:
    folders = ("src", "csrc", "tests", "benchmarks", "examples")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*")]
    long = {
        str(file.relative_to(ROOT)): length
        for file in files
        if file.suffix in SUFFIXES
        and (length := len(file.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long
