"""The types of a user's cell, as mypy sees them."""

from pathlib import Path

import pytest

TYPED = """
from unrolled.cells import Cell, Gates, State, Value, product, sigmoid, tanh, vector, where

class Typed(Cell):
    gates = ("f", "n")
    states = ("h", "c")
    recurrent = product("f", "n", bias=False)
    candidate = product()
    shift = vector(init=0.5)

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        f = sigmoid(x.f + h.f - self.beta)
        n = tanh(x.n + self.candidate(f * state.h) + self.shift)
        c = where(n > 0, n ** 2, -n)
        return (1 - f) * state.h + f * c, c

class OneGate(Cell):
    def step(self, x: Value, h: Value, state: State) -> Value:
        return tanh(x + h) + abs(state.h) / 2

cell: Typed = Typed(2.0).replace(beta=3)
"""
WRONG = """
from unrolled.cells import Cell, State, Value, tanh

class Wrong(Cell):
    def step(self, x: Value, h: Value, state: State) -> Value:
        text = tanh(x) + "a"
        gate = x.f
        return "h"
"""
ERRORS = ("Unsupported operand types", 'has no attribute "f"', "Incompatible return value type")


def check(module: str, text: str, folder: Path) -> str:
    """What mypy prints for a module, in its strict mode."""
    api = pytest.importorskip("mypy.api")
    (folder / f"{module}.py").write_text(text)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    options = ["--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    output, errors, _ = api.run([*options, str(folder / f"{module}.py")])
    return str(output + errors)


@pytest.mark.slow
def test_a_typed_cell_passes_in_strict_mode(tmp_path: Path) -> None:
    assert check("typed_cell", TYPED, tmp_path).startswith("Success")
    report = check("wrong_cell", WRONG, tmp_path)
    assert all(error in report for error in ERRORS), report
