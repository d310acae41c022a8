"""Gate values and saturation against equations and numbers by hand."""

import math
import sys
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.runtime_models import PUBLISHED
from tests.support.subjects import double
from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell, mean, sigmoid, tanh
from unrolled.diagnostics import (
    gate_saturation,
    gate_values,
)
from unrolled.nn import LSTM, Recurrent

GATES = {
    "RNN": ["tanh"],
    "LSTM": ["i", "f", "g", "o", "tanh(c)"],
    "GRU": ["r", "z", "n"],
    "ATR": ["i", "f"],
    "BRC": ["a", "c", "n"],
    "JANET": ["g", "f", "f (2)"],
    "LEM": ["a", "b", "z", "y"],
    "MGU": ["f", "n"],
    "NBRC": ["a", "c", "n"],
    "RAN": ["i", "f", "tanh(c)"],
    "SLSTM": ["z", "o"],
    "STAR": ["z", "k", "tanh"],
    "UGRNN": ["c", "g"],
    "ExpRNN": [],
    "AntisymmetricRNN": ["tanh"],
    "CoRNN": ["force"],
    "CoupledLSTM": ["i", "g", "o", "tanh(c)"],
    "FastGRNN": ["z", "n"],
    "FastRNN": ["n"],
    "GatedAntisymmetricRNN": ["z", "n"],
    "IndRNN": [],
    "LayerNormGRU": ["r", "z", "n"],
    "LayerNormLSTM": ["i", "f", "g", "o", "tanh"],
    "LiGRU": ["z"],
    "MinimalRNN": ["z", "u"],
    "MultiplicativeLSTM": ["i", "f", "g", "o", "tanh(c)"],
    "PeepholeLSTM": ["i", "f", "g", "o", "tanh(c)"],
    "ResetBeforeGRU": ["r", "z", "n"],
}


@pytest.mark.parametrize("cell", PUBLISHED)
def test_gates_of_published_cells_have_their_names(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4)
    found = gate_values(layer, torch.randn(5, 2, 3))
    assert [gate.gate for gate in found] == GATES[cell.__name__]
    assert all(gate.values.shape == (5, 2, 4) for gate in found)


def test_gates_of_an_lstm_are_its_equations() -> None:
    layer, x = LSTM(3, 4, dtype=torch.float64), double(6, 2, 3)
    found = {gate.gate: gate.values for gate in gate_values(layer, x)}
    output, _ = layer(x)
    before = torch.cat([torch.zeros_like(output[:1]), output[:-1]])
    summed = x @ layer.weight_ih_l0.T + before @ layer.weight_hh_l0.T
    i, f, g, o = (summed + layer.bias_ih_l0 + layer.bias_hh_l0).detach().chunk(4, -1)
    close(found["i"], i.sigmoid(), "output")
    close(found["f"], f.sigmoid(), "output")
    close(found["g"], g.tanh(), "output")
    close(found["o"], o.sigmoid(), "output")
    close(found["o"] * found["tanh(c)"], output.detach(), "output")


class Own(Cell):
    """Functions of torch, called in three ways; a gate under another name; a step that writes."""

    gates = ("keep", "new")
    scale = cells.vector(1)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        forget = torch.sigmoid(input=x.keep + h.keep)
        fresh = (x.new + h.new).tanh() * cells.sigmoid(self.scale)
        kept = forget * state.h
        forget.zero_()
        both = nn.functional.hardsigmoid(kept + fresh + x.keep + x.new)
        return kept + (1 - forget) * fresh * both


class Inherited(Own):
    def step(self, x: Any, h: Any, state: Any) -> Any:
        return super().step(x, h, state) + 0 * mean(state.h)


@pytest.mark.parametrize("cell", [Own, Inherited])
def test_gates_of_a_cell_of_ones_own(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, dtype=torch.float64)
    x = double(1, 2, 3)
    found = gate_values(layer, x)
    assert [(g.gate, g.function) for g in found] == [
        ("keep", "sigmoid"), ("new", "tanh"), ("both", "hard_sigmoid"),
    ]  # fmt: skip
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    keep, new = (x @ layer.weight_ih_l0.detach().T + bias).chunk(2, -1)
    close(found[0].values, keep.sigmoid(), "output")
    close(found[1].values, new.tanh(), "output")


def test_hard_functions_count_with_their_usual_bounds() -> None:
    x = torch.randn(5, 2, 3)
    for activation, wanted in (
        (nn.Hardtanh(), ["hard_tanh"]),
        (cells.hard_tanh, ["hard_tanh"]),
        (nn.Hardtanh(-2.0, 2.0), []),
        (nn.ReLU6(), []),
        (nn.Softsign(), ["softsign"]),
        (nn.Sigmoid(), ["sigmoid"]),
    ):
        found = gate_values(Recurrent(cells.RNN(activation), 3, 4), x)
        assert [gate.function for gate in found] == wanted


def test_watching_gates_leaves_no_trace() -> None:
    class Wrong(Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            if x.shape[0] == 1:
                raise RuntimeError("no")
            return tanh(x + h)

    before = sys.getprofile()
    with pytest.raises(RuntimeError, match="no"):
        gate_values(Recurrent(Wrong, 2, 2), torch.zeros(3, 1, 2))
    assert sys.getprofile() is before
    assert torch.overrides._get_current_function_mode() is None


def test_saturation_by_hand() -> None:
    class Fixed(Cell):
        """Two gates that are functions of the input alone."""

        gates = ("s", "t")
        recurrent = None

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return sigmoid(x.s) + tanh(x.t)

    layer = Recurrent(Fixed, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(2).repeat(2, 1))
        layer.bias_ih_l0.zero_()
    logit = math.log(0.9 / 0.1)
    # One unit a column; σ(±logit) is 0.9 or 0.1, tanh(±logit / 2) is ±0.8.
    a, b, inside = logit + 0.01, logit / 2 + 0.01, 0.5
    x = torch.tensor([[a, -a], [b, -a], [-a, inside], [-b, inside], [b, b]]).double().unsqueeze(1)
    s, t = gate_saturation(layer, x)
    assert (s.left.tolist(), s.right.tolist()) == ([0.2, 0.4], [0.2, 0.0])
    assert (t.left.tolist(), t.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    assert (s.left_share, s.right_share) == (pytest.approx(0.3), pytest.approx(0.1))
    (wide, _) = gate_saturation(layer, x, low=0.3, high=0.7)
    assert (wide.left.tolist(), wide.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    with pytest.raises(ValueError, match=r"low < high < 1, got 0\.9, 0\.1"):
        gate_saturation(layer, x, low=0.9, high=0.1)


def test_saturation_is_told_by_layer_and_direction() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True)
    with torch.no_grad():
        layer.bias_ih_l1_reverse[4:8] = 100.0
    found = gate_saturation(layer, torch.randn(6, 2, 3))
    open_gates = [(s.layer, s.reverse, s.gate) for s in found if s.right_share == 1.0]
    assert open_gates == [(1, True, "f")]
