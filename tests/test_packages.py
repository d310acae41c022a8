"""What an import loads, and what the native module reports, in processes of their own."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import unrolled
from unrolled import _core

HEAVY = {"torch", "lightning", "pytorch_lightning", "matplotlib", "typer"}


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ran.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import unrolled", HEAVY | {"numpy", "safetensors"}),
        ("import unrolled.cells, unrolled._spec", HEAVY | {"numpy", "safetensors"}),
        ("import unrolled.io", HEAVY),
        ("import unrolled._core", HEAVY | {"numpy"}),
        ("import unrolled.runtime", HEAVY),
        ("import unrolled.nn, unrolled.engines", HEAVY - {"torch"}),
        ("import unrolled.models, unrolled.tasks", HEAVY - {"torch"}),
        ("import unrolled.diagnostics", HEAVY - {"torch"}),
        ("import unrolled.cli", HEAVY - {"typer"}),
    ],
)
def test_a_package_loads_no_more_than_it_needs(statement: str, absent: set[str]) -> None:
    loaded = _modules_after(statement)
    assert not loaded & absent
    assert "unrolled" in loaded


def test_packages_load_at_their_first_use() -> None:
    assert "matplotlib" in _modules_after("import unrolled.diagnostics as d; d.inspect_model")
    assert "torch" in _modules_after("import unrolled; unrolled.nn.LSTM")


def test_an_unknown_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'attic'"):
        unrolled.attic  # noqa: B018


def test_cells_run_on_numpy_without_torch() -> None:
    code = (
        "import numpy as np, sys; from unrolled.cells import GRU, Sizes;"
        "from unrolled.cells._bound import BoundCell;"
        "cell, sizes = GRU(), Sizes(2, 3, 3);"
        "own = {k: np.ones(s.shape) for k, s in cell.parameters(sizes).items()};"
        "b = BoundCell(cell, sizes, own);"
        "h, = b.advance(b.split_input(b.project_input(np.ones((1, 2)))), (np.zeros((1, 3)),));"
        "z = 1 / (1 + np.exp(-4)); n = np.tanh(3 + z); assert np.allclose(h, (1 - z) * n);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_instruction_sets_are_this_processors() -> None:
    actual = _core.instruction_sets()
    assert list(actual) == ["avx512bf16", "avx512", "avx2", "neon", "plain"]
    assert actual["plain"] is True
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return
    flags = set(info.read_text().replace(":", " ").split())
    assert actual["avx2"] == ({"avx2", "fma"} <= flags)
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    assert actual["avx512"] == (avx512 <= flags)
    assert actual["avx512bf16"] == (avx512 | {"avx512_bf16"} <= flags)


@pytest.mark.parametrize("pattern", ["cells/*.py", "program/*.py", "_spec.py"])
def test_equations_import_the_standard_library_only(pattern: str) -> None:
    files = sorted(Path(unrolled.__file__).parent.glob(pattern))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names | {"unrolled"}, file


def test_no_modules_import_each_other() -> None:
    graph = grimp.build_graph("unrolled")
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which lists the cycle
