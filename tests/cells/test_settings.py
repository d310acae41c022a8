"""Settings of cells: which values raise, with which message, and initial parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unrolled import cells
from unrolled.cells import Cell, CellError, vector
from unrolled.nn import Recurrent


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cells.CoRNN(dt=0), ValueError, "dt must be greater than zero, got 0"),
        (lambda: cells.CoRNN(dt="fast"), TypeError, "dt must be a number, got 'fast' of type str"),
        (
            lambda: cells.CoRNN(gamma=-1.0),
            ValueError,
            r"gamma must be greater than zero, got -1\.0",
        ),
        (lambda: cells.CoRNN(epsilon=float("nan")), ValueError, "epsilon must be finite, got nan"),
        (lambda: cells.LEM(dt=True), TypeError, "dt must be a number, got True of type bool"),
        (lambda: cells.LEM(dt=float("inf")), ValueError, "dt must be finite, got inf"),
        (lambda: cells.AntisymmetricRNN(epsilon=0.0), ValueError, "epsilon must be greater than"),
        (lambda: cells.AntisymmetricRNN(gamma=-1), ValueError, "gamma must be zero or greater"),
        (lambda: cells.GatedAntisymmetricRNN(gamma=None), TypeError, "gamma must be a number"),
        (lambda: cells.JANET(beta="1"), TypeError, "beta must be a number, got '1'"),
        (lambda: cells.SLSTM(heads=0), ValueError, "heads must be at least 1, got 0"),
        (
            lambda: cells.SLSTM(heads=2.0),
            TypeError,
            r"heads must be an int, got 2\.0 of type float",
        ),
        (lambda: cells.SLSTM(forget="tanh"), ValueError, "forget must be one of 'sigmoid', 'exp'"),
        (lambda: cells.IndRNN("relu"), TypeError, "activation must be a function, got 'relu'"),
        (lambda: cells.IndRNN(start=1.0), TypeError, r"start must be a pair \(low, high\), got 1"),
        (lambda: cells.IndRNN(start=(0, "x")), TypeError, r"start\[1\] must be a number, got 'x'"),
        (lambda: cells.IndRNN(start=(1, 0)), ValueError, "start must be a pair .* with low ≤ high"),
        (lambda: cells.RAN(None), TypeError, "activation must be a function, got None"),
        (lambda: cells.UGRNN(1), TypeError, "activation must be a function, got 1"),
        (lambda: cells.FastRNN("relu"), TypeError, "activation must be a function, got 'relu'"),
        (lambda: cells.LayerNormLSTM(0), ValueError, "epsilon must be greater than zero, got 0"),
        (lambda: cells.LayerNormGRU(-1e-5), ValueError, "epsilon must be greater than zero"),
        (lambda: vector(init="one"), CellError, "init must be a number, a pair .*, got 'one'"),
        (lambda: vector(init=(0.0, 1.0, 2.0)), CellError, "init must be a number, a pair"),
        (
            lambda: Recurrent(cells.SLSTM(heads=4), 3, 6),
            CellError,
            "'recurrent' must divide its width and its source, got 4 blocks",
        ),
        (
            lambda: Recurrent(cells.AntisymmetricRNN, 3, 4, proj_size=2),
            CellError,
            "cell AntisymmetricRNN: prepare fails",
        ),
        (
            lambda: Recurrent(cells.ExpRNN, 3, 4, proj_size=2),
            CellError,
            r"cell ExpRNN: product 'recurrent' must have a square weight .*, got \[4, 2\]",
        ),
    ],
)
def test_settings_are_refused_by_name(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_settings_may_be_any_real_number() -> None:
    cell = cells.CoRNN(dt=np.float32(0.5), gamma=np.int64(2), epsilon=1)
    assert repr(cell) == "CoRNN(dt=0.5, gamma=2.0, epsilon=1.0)"


def test_starting_values_are_the_papers() -> None:
    def start(cell: Cell) -> dict[str, Any]:
        named = Recurrent(cell, 3, 50).named_parameters()
        return {name.removesuffix("_l0"): p.detach() for name, p in named}

    u = start(cells.IndRNN())["u"]
    assert u.min() >= 0
    assert 0.5 < u.max() <= 1
    u = start(cells.IndRNN(start=(0.98, 1.01)))["u"]
    assert u.min() >= 0.98
    assert u.max() <= 1.01
    fast = start(cells.FastRNN())
    assert (fast["alpha"].item(), fast["beta"].item()) == (-3, 3)
    gated = start(cells.FastGRNN())
    assert (gated["zeta"].item(), gated["nu"].item()) == (1, -4)
    assert gated["b_z"].eq(1).all()
    assert start(cells.BRC())["w_a"].eq(1).all()
    normal = start(cells.LayerNormLSTM())
    assert all(p.eq(1).all() for name, p in normal.items() if name.startswith("gain"))
    assert all(p.eq(0).all() for name, p in normal.items() if name.startswith("b_"))
