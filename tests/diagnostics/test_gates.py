"""Recorded gates of every cell, against the cells' equations."""

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
    gates = gate_values(layer, torch.randn(5, 2, 3))
    assert [gate.gate for gate in gates] == GATES[cell.__name__]
    assert all(gate.values.shape == (5, 2, 4) for gate in gates)


def test_gate_values_of_an_lstm_satisfy_its_equations() -> None:
    layer, x = LSTM(3, 4, dtype=torch.float64), double(6, 2, 3)
    gates = {gate.gate: gate.values for gate in gate_values(layer, x)}
    output, _ = layer(x)
    previous = torch.cat([torch.zeros_like(output[:1]), output[:-1]])
    summed = x @ layer.weight_ih_l0.T + previous @ layer.weight_hh_l0.T
    i, f, g, o = (summed + layer.bias_ih_l0 + layer.bias_hh_l0).detach().chunk(4, -1)
    close(gates["i"], i.sigmoid(), "output")
    close(gates["f"], f.sigmoid(), "output")
    close(gates["g"], g.tanh(), "output")
    close(gates["o"], o.sigmoid(), "output")
    close(gates["o"] * gates["tanh(c)"], output.detach(), "output")


class UserCell(Cell):
    """Calls torch functions in three ways, renames a gate, and changes a result in place."""

    gates = ("keep", "new")
    scale = cells.vector(1)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        forget = torch.sigmoid(input=x.keep + h.keep)
        fresh = (x.new + h.new).tanh() * cells.sigmoid(self.scale)
        retained = forget * state.h
        forget.zero_()
        mixed = nn.functional.hardsigmoid(retained + fresh + x.keep + x.new)
        return retained + (1 - forget) * fresh * mixed


class DerivedCell(UserCell):
    def step(self, x: Any, h: Any, state: Any) -> Any:
        return super().step(x, h, state) + 0 * mean(state.h)


@pytest.mark.parametrize("cell", [UserCell, DerivedCell])
def test_gates_of_a_user_cell(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, dtype=torch.float64)
    x = double(1, 2, 3)
    gates = gate_values(layer, x)
    assert [(g.gate, g.function) for g in gates] == [
        ("keep", "sigmoid"), ("new", "tanh"), ("mixed", "hard_sigmoid"),
    ]  # fmt: skip
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    keep, new = (x @ layer.weight_ih_l0.detach().T + bias).chunk(2, -1)
    close(gates[0].values, keep.sigmoid(), "output")
    close(gates[1].values, new.tanh(), "output")


def test_hard_functions_are_gates_only_with_their_default_bounds() -> None:
    x = torch.randn(5, 2, 3)
    for activation, functions in (
        (nn.Hardtanh(), ["hard_tanh"]),
        (cells.hard_tanh, ["hard_tanh"]),
        (nn.Hardtanh(-2.0, 2.0), []),
        (nn.ReLU6(), []),
        (nn.Softsign(), ["softsign"]),
        (nn.Sigmoid(), ["sigmoid"]),
    ):
        gates = gate_values(Recurrent(cells.RNN(activation), 3, 4), x)
        assert [gate.function for gate in gates] == functions


def test_the_recorder_is_removed_after_an_error() -> None:
    class FailingCell(Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            if x.shape[0] == 1:
                raise RuntimeError("no")
            return tanh(x + h)

    profile = sys.getprofile()
    with pytest.raises(RuntimeError, match="no"):
        gate_values(Recurrent(FailingCell, 2, 2), torch.zeros(3, 1, 2))
    assert sys.getprofile() is profile
    assert torch.overrides._get_current_function_mode() is None


def test_saturation_of_known_gate_values() -> None:
    class Fixed(Cell):
        """Two gates that depend on the input only."""

        gates = ("s", "t")
        recurrent = None

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return sigmoid(x.s) + tanh(x.t)

    layer = Recurrent(Fixed, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(2).repeat(2, 1))
        layer.bias_ih_l0.zero_()
    logit = math.log(0.9 / 0.1)
    # One column per unit; σ(±logit) is 0.9 or 0.1, tanh(±logit / 2) is ±0.8.
    a, b, inside = logit + 0.01, logit / 2 + 0.01, 0.5
    x = torch.tensor([[a, -a], [b, -a], [-a, inside], [-b, inside], [b, b]]).double().unsqueeze(1)
    s, t = gate_saturation(layer, x)
    assert (s.left.tolist(), s.right.tolist()) == ([0.2, 0.4], [0.2, 0.0])
    assert (t.left.tolist(), t.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    assert (s.left_fraction, s.right_fraction) == (pytest.approx(0.3), pytest.approx(0.1))
    (wider, _) = gate_saturation(layer, x, low=0.3, high=0.7)
    assert (wider.left.tolist(), wider.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    with pytest.raises(ValueError, match=r"low < high < 1, got 0\.9 and 0\.1"):
        gate_saturation(layer, x, low=0.9, high=0.1)


def test_saturation_is_reported_by_layer_and_direction() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True)
    with torch.no_grad():
        layer.bias_ih_l1_reverse[4:8] = 100.0
    saturations = gate_saturation(layer, torch.randn(6, 2, 3))
    open_gates = [(s.layer, s.reverse, s.gate) for s in saturations if s.right_fraction == 1.0]
    assert open_gates == [(1, True, "f")]
