"""Malformed cells: each error is raised when the class or the layer is made, and names the cell."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unrolled import cells, nn
from unrolled.cells import Cell, CellError, product, vector


def _step(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return cells.tanh(x + h)


def _make(**attributes: Any) -> type[Cell]:
    return type("Bad", (Cell,), {"step": _step, **attributes})


def _with(**settings: Any) -> Cell:
    cell = _make()()
    vars(cell).update(settings)
    return cell


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _make(weight_ih=vector()), "two parameters are called 'weight_ih'"),
        (lambda: _make(ih=product()), "two parameters are called 'weight_ih'"),
        (lambda: _make(parameters=vector()), "'parameters' cannot be declared"),
        (lambda: _make(prepare=product()), "'prepare' cannot be declared"),
        (lambda: _make(w=product(width="Q")), "width must be I, H, P or a positive int, got 'Q'"),
        (lambda: _make(w=product(width=-1)), "got -1"),
        (lambda: _make(w=product(blocks=0)), "blocks must be a positive int, got 0"),
        (
            lambda: _make(w=product(blocks=3)),
            "the blocks of product 'w' must divide its width",
        ),
        (lambda: _make(w=product("a", "a")), "targets must differ, got \\('a', 'a'\\)"),
        (lambda: _make(w=product("a b")), "a target must be an attribute name, got 'a b'"),
        (lambda: _make(v=vector(0)), "size must be I, H, P or a positive int, got 0"),
        (lambda: _with(input=5), "input must be a product"),
        (lambda: _with(recurrent=5), "recurrent must be a product"),
        (lambda: _with(input=product("q")), "input must feed gates, got 'q', which is not among"),
        (lambda: _with(parameters=3), "a setting cannot be called 'parameters'"),
        (lambda: _with(hr=3), "a setting cannot be called 'hr'"),
        (lambda: _with(scale=torch.nn.Parameter(torch.ones(1))), "scale must be a single "),
        (lambda: _with(parts=[torch.nn.Linear(4, 4)]), "parts must be a single torch"),
        (lambda: _with(spec=torch.nn.Linear(4, 4)), "a module must not be called 'spec'"),
        (
            lambda: _make(act=torch.nn.Tanh()),
            "act must be set in __init__, got a Tanh on the class",
        ),
        (lambda: Cell, "cell Cell: step must be defined"),
        (lambda: _make(widths={"h": "X"}), "widths: h must be I, H, P or a positive int, got 'X'"),
        (
            lambda: _make(prepare=lambda self, parameters: None),
            "cell Bad: prepare must return parameters by name, got None",
        ),
        (
            lambda: _make(prepare=lambda self, parameters: parameters["none"]),
            "cell Bad: prepare fails: KeyError: 'none'",
        ),
        (
            lambda: _make(step=lambda self, x, h, state: x / (0 // 0)),
            "cell Bad: step fails on states of widths \\(4,\\): ZeroDivisionError",
        ),
    ],
)
def test_a_malformed_cell_is_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(CellError, match=message):
        nn.Recurrent(make(), 3, 4)


def test_a_one_step_module_refuses_names_of_its_own() -> None:
    with pytest.raises(CellError, match="a parameter cannot be called 'forward'"):
        nn.RecurrentCell(_make(forward=vector()), 3, 4)


def test_a_bias_vector_without_biases_is_zeros() -> None:
    def step(self: Any, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + h) + cells.sigmoid(self.b)

    layer = nn.Recurrent(_make(step=step, b=vector(bias=True)), 3, 4, bias=False)
    assert "b_l0" not in layer.state_dict()
    x = torch.zeros(1, 2, 3)
    torch.testing.assert_close(layer(x)[0], torch.full((1, 2, 4), 0.5))


def test_cells_may_compare_equal() -> None:
    """A cell with its own equality (a dataclass, say) is still a cell of its own."""

    class Equal(Cell):
        recurrent = None

        def __init__(self, rank: int) -> None:
            self.down, self.up = product(width=rank), product(source=rank)

        def __eq__(self, value: object) -> bool:
            return isinstance(value, Equal)

        __hash__ = None  # type: ignore[assignment]

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return cells.tanh(x + self.up(self.down(state.h)))

    for rank in (2, 3):
        layer = nn.Recurrent(Equal(rank), 3, 4)
        assert layer.weight_down_l0.shape == (rank, 4)
        layer(torch.zeros(2, 1, 3))


def test_a_module_as_nonlinearity_is_registered_once() -> None:
    layer = nn.RNN(3, 4, nonlinearity=torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()))
    names = [name for name in layer.state_dict() if not name.endswith("_l0")]
    assert names == ["activation.0.weight", "activation.0.bias"]
    assert layer.nonlinearity is layer.activation


def test_a_layer_works_under_another_default_device() -> None:
    layer = nn.GRU(3, 4)
    x = torch.randn(5, 3, 3)
    cuts = torch.zeros(5, 3, dtype=torch.bool)
    cuts[2, 1] = True
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [5, 3, 2])
    expected = layer(x, lengths=[5, 2, 4], resets=cuts)[0], layer(packed)[0].data
    torch.set_default_device("meta")
    try:
        actual = layer(x, lengths=[5, 2, 4], resets=cuts)[0], layer(packed)[0].data
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
