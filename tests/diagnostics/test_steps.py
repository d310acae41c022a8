"""Running layers step by step, against the layers themselves."""

import pytest
import torch
from torch import nn

from tests.support.runtime_models import PUBLISHED
from tests.support.subjects import double
from tests.support.tolerances import close
from unrolled.cells import Cell
from unrolled.diagnostics._steps import record_calls, unroll
from unrolled.nn import GRU, LSTM, Recurrent


@pytest.mark.parametrize("cell", PUBLISHED)
def test_unrolled_steps_equal_the_layer(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = double(6, 2, 3)
    output, _ = layer(x)
    steps = unroll(layer, x)
    assert [(s.sweep.layer, s.sweep.reverse) for s in steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    close(torch.cat([s.history() for s in steps[2:]], -1), output.detach(), "output")


def test_unroll_accepts_every_input_layout() -> None:
    layer = LSTM(3, 4, num_layers=2, proj_size=2, batch_first=True, dropout=0.5, dtype=torch.double)
    x, hx = double(2, 6, 3), (double(2, 2, 2), double(2, 2, 4))
    output, (h_n, c_n) = layer.eval()(x, hx)
    steps = unroll(layer.train(), x, hx)
    close(steps[1].history().transpose(0, 1), output.detach(), "output")
    close(steps[1].states[-1][0], h_n[1].detach(), "output")
    close(steps[0].history("c")[-1], c_n[0].detach(), "output")
    unbatched = unroll(layer, x[1], tuple(state[:, 1] for state in hx))
    close(unbatched[1].history()[:, 0], output[1].detach(), "output")
    summed = GRU(3, 4, num_layers=2, bidirectional=True, merge="sum", dtype=torch.double)
    y = unroll(summed, x.transpose(0, 1))
    expected, _ = summed(x.transpose(0, 1))
    close(y[2].history() + y[3].history(), expected.detach(), "output")


def test_errors_name_the_wrong_shape() -> None:
    layer = LSTM(3, 4)
    with pytest.raises(
        ValueError, match=r"x must have shape \[T, N, I\] or .* I=3, got \[5, 2, 2\]"
    ):
        unroll(layer, torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match=r"hx must have the shapes .* got \[\[1, 2, 4\]\]"):
        unroll(layer, torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="state must be one of h, c, got 'm'"):
        unroll(layer, torch.zeros(5, 2, 3))[0].history("m")


def test_calls_are_recorded_for_the_longest_sequences() -> None:
    layer = LSTM(3, 4, batch_first=True)
    x, hx = torch.randn(4, 6, 3), (torch.randn(1, 4, 4), torch.randn(1, 4, 4))
    lengths = [2, 5, 3, 5]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    for sequences, options in ((x, {"lengths": lengths}), (packed, {})):
        with record_calls({"": layer}, rows=4) as calls:
            layer(sequences, hx, **options)
            layer(torch.zeros(1, 1, 3))
        assert torch.equal(calls[""].x, x[[1, 3], :5])
        assert torch.equal(calls[""].hx[1], hx[1][:, [1, 3]])
