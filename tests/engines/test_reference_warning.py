"""A cell that runs on the reference engine warns once, with the reason and the remedy."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.subjects import Peephole, tokens
from unrolled import cells, engines, nn
from unrolled.cells import Cell
from unrolled.engines import ReferenceWarning
from unrolled.engines import _reference_warning as reference_warning

X = torch.zeros(4, 2, 3)


def foreign() -> type[Cell]:
    """A cell whose step no tracer can read, a new class at each call."""

    class Foreign(Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            return torch.tanh(x + h)

    return Foreign


@pytest.fixture(autouse=True)
def _unfiltered_warnings() -> Iterator[None]:
    """Python's own memory of warnings, and pytest's filter, aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ReferenceWarning)
        yield


def raised(action: Any) -> list[warnings.WarningMessage]:
    """The warnings of a call that concern engines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [warning for warning in caught if issubclass(warning.category, ReferenceWarning)]


def test_it_warns_once_with_the_reason_and_the_cure() -> None:
    cell = foreign()
    layer = nn.Recurrent(cell, 3, 4, num_layers=2, bidirectional=True)
    (warning,) = raised(lambda: [layer(X) for _ in range(3)])
    reason = engines.explain(layer, X).refusals["native"]
    text = str(warning.message)
    assert reason is not None
    assert text.startswith("the cell Foreign runs on the reference engine")
    assert reason in text
    assert "functions of unrolled.cells" in text
    assert 'engines.use("reference")' in text
    assert warning.filename == __file__
    assert not raised(lambda: nn.Recurrent(cell, 3, 4)(X))
    assert not raised(lambda: nn.RecurrentCell(cell, 3, 4)(X[0]))
    assert len(raised(lambda: nn.Recurrent(foreign(), 3, 4)(X))) == 1
    assert len(raised(lambda: nn.RecurrentCell(foreign(), 3, 4)(X[0]))) == 1


def test_another_reason_is_another_warning() -> None:
    class Turning(Cell):
        def __init__(self, turn: Any) -> None:
            self.turn = turn

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return self.turn(x + h)

    for turn in (torch.tanh, torch.sin):
        layer = nn.Recurrent(Turning(turn), 3, 4)
        assert len(raised(lambda: [layer(X) for _ in range(2)])) == 1  # noqa: B023


def test_a_layer_of_torchs_with_a_function_of_torchs() -> None:
    layer = nn.RNN(3, 4, nonlinearity=torch.nn.Softplus())
    reference_warning._warned_reasons.pop(cells.RNN, None)
    (warning,) = raised(lambda: layer(X))
    assert "the cell RNN runs on the reference engine" in str(warning.message)


def test_no_warning_where_the_reference_is_requested() -> None:
    layer = nn.Recurrent(foreign(), 3, 4)

    def forced() -> None:
        with engines.use("reference"):
            layer(X)
            nn.LSTM(3, 4)(X)

    assert not raised(forced)
    assert len(raised(lambda: layer(X))) == 1


def test_no_warning_where_no_engine_is_faster() -> None:
    """Shapes only, complex numbers, explanations, and second derivatives of the native engine."""
    cell = foreign()
    meta = nn.Recurrent(cell, 3, 4, device="meta")
    wave = nn.Recurrent(cell, 3, 4, dtype=torch.complex64)
    plain = nn.Recurrent(Peephole, 3, 4, dtype=torch.float64)
    x = tokens(3, 2, 3)

    def twice() -> None:
        (first_order,) = torch.autograd.grad(plain(x)[0].square().sum(), x, create_graph=True)
        first_order.square().sum().backward()

    assert not raised(lambda: meta(X.to("meta")))
    assert not raised(lambda: wave(X.cfloat()))
    assert not raised(lambda: engines.explain(nn.Recurrent(cell, 3, 4), X))
    assert not raised(twice)
    assert not raised(lambda: torch.func.jvp(lambda x: plain(x)[0], (x,), (x,)))
    assert len(raised(lambda: nn.Recurrent(cell, 3, 4)(X))) == 1


def test_it_can_be_an_error() -> None:
    layer = nn.Recurrent(foreign(), 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", engines.ReferenceWarning)
        with pytest.raises(ReferenceWarning, match="runs on the reference engine"):
            layer(X)
    assert issubclass(ReferenceWarning, UserWarning)
    assert pickle.loads(pickle.dumps(ReferenceWarning("text"))).args == ("text",)
