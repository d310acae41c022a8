"""Starts from learned numbers and from features: the formula, unit by unit."""

import math

import pytest
import torch

from tests.support import wiring
from tests.support.subjects import gradients, random_like, unpack
from tests.support.tolerances import close
from unrolled.models import InitialStateFromFeatures, LearnedInitialState, make_stack
from unrolled.nn import Recurrent

F, N, H, T = 3, 5, 4, 6
CELLS = ["GRU", "LSTM", wiring.PEEPHOLE, "CoRNN"]


@pytest.fixture(
    params=[(cell, L, D) for cell in CELLS for L, D in ((1, 1), (2, 1), (1, 2), (3, 2))]
)
def stack(request: pytest.FixtureRequest) -> Recurrent:
    cell, L, D = request.param
    return wiring.drawn(make_stack(cell, 2, H, num_layers=L, bidirectional=D == 2))


def rows(stack: Recurrent) -> int:
    return stack.num_layers * (1 + stack.bidirectional)


def test_features_make_the_states_by_the_formula(stack: Recurrent) -> None:
    start = wiring.drawn(InitialStateFromFeatures(F, stack), seed=1)
    features = torch.randn(N, F, dtype=torch.float64)
    result = unpack(start(features))
    assert len(result) == len(stack.spec.state_widths)
    for state, width, linear in zip(result, stack.spec.state_widths, start.states, strict=True):
        assert state.shape == (rows(stack), N, width)
        for k in range(rows(stack)):
            for n in range(N):
                for u in range(width):
                    product = linear.weight[k * width + u] @ features[n]
                    expected = math.tanh((product + linear.bias[k * width + u]).item())
                    assert state[k, n, u].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_stack_goes_on_from_the_features_of_each_row(stack: Recurrent) -> None:
    start = wiring.drawn(InitialStateFromFeatures(F, stack), seed=1)
    features = torch.randn(N, F, dtype=torch.float64, requires_grad=True)
    x = torch.randn(T, N, 2, dtype=torch.float64)
    actual, _ = stack(x, start(features))
    single = [stack(x[:, n : n + 1], start(features[n : n + 1]))[0] for n in range(N)]
    close(actual, torch.cat(single, 1), "output")
    leaves, gradient = [features, *start.parameters()], random_like([actual])
    sides = (gradients([side], leaves, gradient) for side in (actual, torch.cat(single, 1)))
    for a, b in zip(*sides, strict=True):
        close(a, b, "gradient")
        assert a.abs().max() > 0


def test_a_learned_start_is_the_same_for_all(stack: Recurrent) -> None:
    start = LearnedInitialState(stack).double()
    assert all(not part.any() for part in unpack(start(N)))
    wiring.drawn(start, seed=2)
    result = unpack(start(N))
    for state, part, width in zip(result, start.states, stack.spec.state_widths, strict=True):
        assert state.shape == (rows(stack), N, width)
        for n in range(N):
            assert torch.equal(state[:, n], part[:, 0])
    for part, width in zip(start.states, stack.spec.state_widths, strict=True):
        assert part.shape == (rows(stack), 1, width)
