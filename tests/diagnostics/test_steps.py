"""Layers run step by step: the numbers of the layer, in all forms of input."""

import pytest
import torch

from tests.support.runtime_models import PUBLISHED
from tests.support.subjects import double
from tests.support.tolerances import close
from unrolled.cells import Cell
from unrolled.diagnostics.steps import unroll
from unrolled.nn import GRU, LSTM, Recurrent


@pytest.mark.parametrize("cell", PUBLISHED)
def test_steps_are_the_layer(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = double(6, 2, 3)
    output, _ = layer(x)
    steps = unroll(layer, x)
    assert [(s.place.layer, s.place.reverse) for s in steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    close(torch.cat([s.history() for s in steps[2:]], -1), output.detach(), "output")


def test_steps_take_every_form() -> None:
    layer = LSTM(3, 4, num_layers=2, proj_size=2, batch_first=True, dropout=0.5, dtype=torch.double)
    x, hx = double(2, 6, 3), (double(2, 2, 2), double(2, 2, 4))
    output, (h_n, c_n) = layer.eval()(x, hx)
    steps = unroll(layer.train(), x, hx)
    close(steps[1].history().transpose(0, 1), output.detach(), "output")
    close(steps[1].states[-1][0], h_n[1].detach(), "output")
    close(steps[0].history("c")[-1], c_n[0].detach(), "output")
    alone = unroll(layer, x[1], tuple(state[:, 1] for state in hx))
    close(alone[1].history()[:, 0], output[1].detach(), "output")
    summed = GRU(3, 4, num_layers=2, bidirectional=True, merge="sum", dtype=torch.double)
    y = unroll(summed, x.transpose(0, 1))
    wanted, _ = summed(x.transpose(0, 1))
    close(y[2].history() + y[3].history(), wanted.detach(), "output")


def test_steps_name_a_wrong_shape() -> None:
    layer = LSTM(3, 4)
    with pytest.raises(ValueError, match=r"x: wanted \[T, N, I\] or .* I=3, got shape \[5, 2, 2\]"):
        unroll(layer, torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match=r"hx: wanted 2 of shapes .* got \[\[1, 2, 4\]\]"):
        unroll(layer, torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="state: wanted one of h, c, got 'm'"):
        unroll(layer, torch.zeros(5, 2, 3))[0].history("m")
