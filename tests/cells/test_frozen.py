"""Cells are values: fixed once built, equal where their settings are equal, copied with changes."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from unrolled import cells, nn
from unrolled.cells import Cell, product
from unrolled.cells._frozen import key_of


class Scaled(Cell):
    def __init__(self, scale: float = 1.0, *, shift: float = 0.0) -> None:
        self.scale = scale
        self.scale = scale  # may be set more than once
        self._shift = shift

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + h) * self.scale + self._shift


class LowRank(Cell):
    """A setting that is no attribute."""

    recurrent = None

    def __init__(self, rank: int) -> None:
        self.down, self.up = product(width=rank, bias=False), product(source=rank)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + self.up(self.down(state.h)))


@dataclass
class Leaky(Cell):
    rate: float = 0.5
    floor: float = field(default=0.0, metadata={"unit": "none"})

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return self.rate * cells.tanh(x + h) + self.floor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda cell: setattr(cell, "scale", 2.0),
            r"scale must .*cell.replace\(scale=2.0\)",
        ),
        (
            lambda cell: setattr(cell, "_shift", 2.0),
            "_shift must not be .* set it in __init__",
        ),
        (lambda cell: setattr(cell, "new", 2), "new must not be changed .* set it in __init__"),
        (lambda cell: delattr(cell, "scale"), "scale must not be changed"),
        (lambda cell: setattr(Scaled, "step", Cell.step), "Scaled: step must not be changed"),
        (lambda cell: delattr(Scaled, "step"), "Scaled: step must not be changed"),
    ],
)
def test_settings_cannot_be_changed(change: Callable[[Cell], None], message: str) -> None:
    for cell in (Scaled(), pickle.loads(pickle.dumps(Scaled())), copy.deepcopy(Scaled())):
        with pytest.raises(AttributeError, match=message):
            change(cell)
        assert cell == Scaled()


def test_a_step_cannot_change_a_setting() -> None:
    class Counting(Scaled):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            self.scale += 1
            return (x + h) * self.scale

    with pytest.raises(cells.CellError, match=r"step changes an attribute: .*: scale must not be"):
        nn.Recurrent(Counting(), 3, 4)


def test_replace_gives_another_cell() -> None:
    cell = Scaled(2.0, shift=1.0)
    assert (cell.replace(scale=3.0).scale, cell.replace(scale=3.0)._shift) == (3.0, 1.0)
    assert cell.replace() == cell
    assert cell.scale == 2.0
    assert cells.SLSTM(2).replace(heads=4) == cells.SLSTM(heads=4)
    assert cells.IndRNN().replace(start=(0.5, 1.0)).u.init == (0.5, 1.0)  # type: ignore[attr-defined]
    assert LowRank(2).replace(rank=3).down.width == 3
    assert Leaky(0.25).replace(floor=0.5) == Leaky(0.25, 0.5)
    assert pickle.loads(pickle.dumps(cell)).replace(scale=3.0) == Scaled(3.0, shift=1.0)


@pytest.mark.parametrize("cell", [cells.LSTM(), cells.JANET(), cells.GRU()])
def test_replace_checks_the_settings(cell: Cell) -> None:
    with pytest.raises(TypeError, match=f"{type(cell).__name__}.replace: gamma must be a setting"):
        cell.replace(gamma=2)
    with pytest.raises(ValueError, match="beta must be finite"):
        cells.JANET().replace(beta=float("inf"))


def test_cells_are_equal_by_their_settings() -> None:
    function = torch.sin
    for make in (
        cells.GRU,
        lambda: cells.JANET(beta=0.5),
        lambda: cells.RNN(function),
        lambda: cells.SLSTM(heads=2),
        lambda: Scaled(float("nan")),
    ):
        cell, equal_cell = make(), make()
        assert cell == equal_cell
        assert hash(cell) == hash(equal_cell)
        assert cell == copy.deepcopy(cell) == pickle.loads(pickle.dumps(cell))
    for cell, different_cell in (
        (cells.GRU(), cells.LSTM()),
        (cells.JANET(beta=0.5), cells.JANET()),
        (cells.RNN(torch.sin), cells.RNN(torch.cos)),
        (Scaled(0.0), Scaled(-0.0)),
        (Scaled(1), Scaled(1.0)),
        (Scaled(shift=1.0), Scaled(shift=2.0)),
        (LowRank(2), LowRank(3)),
        (Scaled([1.0]), Scaled([1.0])),  # type: ignore[arg-type]  # lists may change
    ):
        assert cell != different_cell
        assert key_of(cell) != key_of(different_cell)
    assert Scaled() != "Scaled()"


def test_a_key_does_not_go_by_an_equality_of_the_class() -> None:
    assert Leaky.__hash__ is None
    assert key_of(Leaky(0.5)) == key_of(Leaky())
    assert len({key_of(Leaky(rate)) for rate in (0.5, 0.25, 0.5)}) == 2


def test_layers_of_private_settings_have_their_own_numbers() -> None:
    x = torch.randn(2, 1, 3)
    layer = nn.Recurrent(Scaled(shift=0.0), 3, 4)
    shifted = copy.deepcopy(layer)
    shifted.cell = layer.cell.replace(shift=1.0)
    torch.testing.assert_close(shifted(x[:1])[0], layer(x[:1])[0] + 1)


def test_signatures_are_those_of_init() -> None:
    assert list(inspect.signature(cells.JANET).parameters) == ["beta"]
    assert not inspect.signature(cells.LSTM).parameters
    assert str(inspect.signature(Scaled)) == "(scale: float = 1.0, *, shift: float = 0.0)"


def test_a_class_may_change_until_it_has_an_instance() -> None:
    class Late(Scaled):
        pass

    Late.gates = ()  # type: ignore[misc]
    Late()
    with pytest.raises(AttributeError, match="Late: gates must not be changed"):
        Late.gates = ("r",)  # type: ignore[misc]
