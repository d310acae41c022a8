"""Gradients by lag, against products of Jacobians and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.subjects import double
from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell
from unrolled.diagnostics import (
    gradient_by_lag,
    input_gradient_by_lag,
)
from unrolled.nn import GRU, LSTM, RNN, Recurrent


def jacobian_norms(layer: Recurrent, x: Tensor, hx: tuple[Tensor, ...]) -> Tensor:
    """The reference: Jacobians of single steps by torch.autograd.functional, multiplied."""
    T, N = x.shape[:2]
    widths = [state.shape[-1] for state in hx]
    S = sum(widths)

    def step(s: Tensor, t: int, n: int) -> Tensor:
        hidden = [part.view(1, 1, -1) for part in s.split(widths)]
        _, state = layer(x[t : t + 1, n : n + 1], hidden[0] if len(hidden) == 1 else tuple(hidden))
        return torch.cat([part.flatten() for part in (state if len(hidden) > 1 else (state,))])

    squares = torch.zeros(T + 1, dtype=torch.float64)
    for n in range(N):
        states = [torch.cat([state[0, n] for state in hx])]
        for t in range(T):
            states.append(step(states[-1], t, n).detach())
        total = torch.eye(S, dtype=torch.float64)
        squares[0] += total.square().sum()
        for k in range(1, T + 1):
            t = T - k
            total = total @ torch.autograd.functional.jacobian(
                lambda s, t=t, n=n: step(s, t, n), states[t]
            )
            squares[k] += total.square().sum()
    return (squares / (N * S)).sqrt()


@pytest.mark.parametrize(
    "cell", [cells.RNN, cells.LSTM, cells.GRU, cells.CoRNN, cells.PeepholeLSTM]
)
def test_gradient_by_lag_is_the_product_of_jacobians(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0 *= 3  # some gradients grow, others vanish
    x = double(7, 2, 3)
    hx = tuple(double(1, 2, width) for width in layer.spec.state_widths)
    expected = jacobian_norms(layer, x, hx)
    (gradient,) = gradient_by_lag(layer, x, hx if len(hx) > 1 else hx[0])
    assert gradient.norms[0] == 1.0
    close(gradient.norms / expected, torch.ones_like(expected), "gradient")
    (shorter,) = gradient_by_lag(layer, x, hx if len(hx) > 1 else hx[0], lags=3)
    assert torch.equal(shorter.norms, gradient.norms[:4])


def test_gradient_by_lag_of_a_linear_recurrence_is_a_power() -> None:
    class Scaled(Cell):
        recurrent = None

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return x + 0.5 * state.h

    (gradient,) = gradient_by_lag(Recurrent(Scaled, 2, 3), torch.randn(500, 2))
    expected = torch.tensor([0.5**k for k in range(501)], dtype=torch.float64)
    close(gradient.norms / expected, torch.ones_like(expected), "output")


def test_each_layer_and_direction_is_measured_on_its_own_input() -> None:
    layer = GRU(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = double(5, 2, 3)
    gradients = gradient_by_lag(layer, x)
    assert [(g.layer, g.reverse) for g in gradients] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    top = GRU(8, 4, dtype=torch.float64)
    names = dict(layer.named_parameters())
    top.load_state_dict(
        {name: names[name.replace("l0", "l1") + "_reverse"] for name in top.state_dict()}
    )
    below = GRU(3, 4, bidirectional=True, dtype=torch.float64)
    below.load_state_dict({name: names[name] for name in below.state_dict()})
    inputs = below(x)[0].detach().flip(0)
    expected = jacobian_norms(top, inputs, (torch.zeros(1, 2, 4, dtype=torch.float64),))
    close(gradients[3].norms / expected, torch.ones_like(expected), "gradient")


def test_random_directions_estimate_the_complete_jacobian() -> None:
    layer, x = LSTM(3, 16, dtype=torch.float64), double(6, 2, 3)
    (complete,) = gradient_by_lag(layer, x)
    squares = [gradient_by_lag(layer, x, directions=4, seed=s)[0].norms ** 2 for s in range(200)]
    estimate = torch.stack(squares).mean(0).sqrt()
    assert estimate[0].item() == pytest.approx(1.0, rel=1e-12)
    # 200 draws of 4 out of 32: the mean of squares varies by a few percent.
    assert ((estimate / complete.norms) - 1).abs().max() < 0.05
    rng_state = torch.get_rng_state()
    assert torch.equal(gradient_by_lag(layer, x, directions=32)[0].norms.round(decimals=12),
                       complete.norms.round(decimals=12))  # fmt: skip
    gradient_by_lag(layer, x, directions=4)
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert layer.weight_hh_l0.requires_grad
    assert layer.weight_hh_l0.grad is None


def test_a_cell_with_a_module_is_measured() -> None:
    layer = Recurrent(cells.RNN(nn.PReLU()), 3, 4)
    x = torch.randn(5, 2, 3)
    (gradient,) = gradient_by_lag(layer, x)
    reference = Recurrent(cells.RNN(nn.PReLU(dtype=torch.double)), 3, 4, dtype=torch.double)
    reference.load_state_dict(layer.state_dict())
    expected = jacobian_norms(reference, x.double(), (torch.zeros(1, 2, 4, dtype=torch.float64),))
    close(gradient.norms / expected, torch.ones_like(expected), "gradient")
    assert layer.weight_hh_l0.dtype == torch.float32


@pytest.mark.parametrize("layer_class", [RNN, LSTM, GRU])
def test_input_gradient_by_lag_agrees_with_finite_differences(layer_class: type[Recurrent]) -> None:
    layer, x, w = layer_class(3, 4, dtype=torch.float64), double(5, 2, 3), double(2, 4)

    def loss(x: Tensor) -> Tensor:
        return (layer(x)[0][-1] * w).sum()

    gradient, step = torch.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        change = torch.zeros_like(x)
        change[index] = step
        gradient[index] = ((loss(x + change) - loss(x - change)) / (2 * step)).detach()
    expected = [gradient[4 - k].square().sum().sqrt().item() for k in range(5)]
    assert input_gradient_by_lag(loss, x).tolist() == pytest.approx(expected, rel=1e-6)


def test_errors_name_the_wrong_argument() -> None:
    layer, x = RNN(3, 4), torch.randn(5, 2, 3)
    with pytest.raises(
        ValueError, match="lags must be at least 1 and at most the number of steps, 5, got 6"
    ):
        gradient_by_lag(layer, x, lags=6)
    with pytest.raises(ValueError, match="directions must be at least 1, got 0"):
        gradient_by_lag(layer, x, directions=0)
    with pytest.raises(ValueError, match=r"loss must return one number .* got shape \[5, 2, 4\]"):
        input_gradient_by_lag(lambda x: layer(x)[0], x)
    with pytest.raises(ValueError, match="without a gradient"):
        input_gradient_by_lag(lambda x: x.detach().sum(), x)
