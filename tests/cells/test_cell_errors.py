"""A table of malformed cells: each error names the cell, the argument and the cure."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unrolled import cells, nn
from unrolled.cells import Cell, CellError, product, sigmoid


def _define(**attributes: Any) -> type[Cell]:
    return type("Bad", (Cell,), attributes)


def _echo(self: Any, x: Any, h: Any, state: Any) -> Any:
    return x.r


def _build(step: Callable[..., Any], **attributes: Any) -> Any:
    attributes = {"gates": ("r",), **attributes}
    return nn.Recurrent(_define(step=step, **attributes), 3, 4)


CELLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: _define(gates="rz"), "cell Bad: gates must be a tuple of names, got 'rz'"),
    (lambda: _define(gates=["r"]), r"gates must be a tuple of names, got \['r'\]"),
    (lambda: _define(gates=("r", 1)), "gates must be a tuple of names"),
    (
        lambda: _define(gates=("r", "z", "r")),
        "gates must differ .*'r', 'z', 'r'",
    ),
    (lambda: _define(gates=("r z",)), "gates must be names of attributes, got 'r z'"),
    (lambda: _define(states=("h", "h")), "states must differ from one another"),
    (lambda: _define(states=()), "states must have at least one name"),
    (lambda: _define(widths={"c": 2}), "widths must name states, got 'c'"),
    (lambda: _define(recurrent=3), r"recurrent must be a product\(...\), got 3"),
    (lambda: _define(input=None), r"input must be a product\(...\), got None"),
    (
        lambda: _define(gates=("r",), recurrent=product("z")),
        "recurrent must feed gates, got 'z', which is not among",
    ),
    (
        lambda: _define(gates=("r",), input=product("r", "n")),
        "input must feed gates, got 'n', which is not among",
    ),
    (
        lambda: _define(step=lambda self, x, h: x),
        r"step must take \(self, x, h, state\), got \(self, x, h\)",
    ),
    (lambda: _build(lambda self, x, h, state: x.z), "no gate 'z' among 'r'"),
    (lambda: _build(lambda self, x, h, state: state.c), "no state 'c' among 'h'"),
    (
        lambda: _build(lambda self, x, h, state: (x.r, x.r)),
        r"must return 1 states \(h\), got 2",
    ),
    (lambda: _build(_echo, states=("h", "c")), r"step must return 2 states \(h, c\), got 1"),
    (
        lambda: _build(lambda self, x, h, state: x.r[:, :2]),
        r"step must return state 'h' with shape \(2, 4\) for a batch of 2, got \(2, 2\)",
    ),
    (lambda: _build(_echo, widths={"h": 3}), "step must return state 'h' with shape"),
    (
        lambda: _build(_echo, blocky=product(blocks=3)),
        "product 'blocky' must divide its width and its source, got 3",
    ),
    (lambda: _build(Cell.step), "cell Bad: step must be defined"),
    (
        lambda: _build(
            lambda self, x, h, state: sigmoid(self.out(x.r) + h.r), out=product(width=3)
        ),
        "cell Bad: step fails on states of widths",
    ),
]


@pytest.mark.parametrize(("make", "pattern"), CELLS)
def test_bad_cells(make: Callable[[], Any], pattern: str) -> None:
    with pytest.raises(CellError, match="cell Bad.*" + re.sub("^cell Bad", "", pattern)):
        make()


def test_a_projection_that_a_step_does_not_allow() -> None:
    with pytest.raises(CellError, match=r"cell GRU: step fails on states of widths \(2,\)"):
        nn.Recurrent(cells.GRU, 3, 4, proj_size=2)


@pytest.mark.parametrize("cell", ["LSTM", None, nn.GRU, dict, torch.nn.GRUCell(3, 4)])
def test_what_is_not_a_cell_raises(cell: Any) -> None:
    for make in (nn.Recurrent, nn.RecurrentCell):
        with pytest.raises(TypeError, match="cell must be a Cell or a subclass of it, got"):
            make(cell, 3, 4)


def test_functions_of_equations_name_what_they_take() -> None:
    with pytest.raises(TypeError, match=r"sigmoid: x must be .* NumPy .*, got float"):
        cells.sigmoid(1.0)
    with pytest.raises(TypeError, match="activation must be a function, got 'tanh'"):
        cells.RNN("tanh")
