"""Where tests stand."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCES = ROOT / "src" / "unrolled"
SUBJECTS = {
    "": {"packages", "structure"},
    "cells": {"published"},
    "engines": {
        "determinism", "extremes", "fork_and_exit", "gradients", "interrupt", "random_calls",
        "threads", "unused_parameters",
    },
    "nn": {"errors", "inplace", "laws", "parity", "processes", "tracing", "weights"},
    "core": {"c_interface", "includes", "operations", "programs", "schema"},
    "benchmarks": {"benchmarks"},
    "examples": {"examples"},
}  # fmt: skip
"""What is tested of several modules together, by the package."""

TESTS = sorted(path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_the_path_of_a_test_follows_from_that_of_a_module(path: Path) -> None:
    """``nn/test_convert_models.py`` is of ``nn/convert.py``; a package may be tested as a whole."""
    package = "" if path.parent == Path() else str(path.parent)
    folder = SOURCES / package
    modules = {module.stem.lstrip("_") for module in folder.glob("*.py")} - {"init__"}
    modules |= {module.name.lstrip("_") for module in folder.glob("*/") if module.is_dir()}
    modules |= SUBJECTS.get(package, set()) | {folder.name}
    name = path.stem.removeprefix("test_")
    assert any(name == module or name.startswith(f"{module}_") for module in modules), (
        f"{path}: no module or subject of {package or 'unrolled'} is called so"
    )
