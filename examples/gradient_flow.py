"""Vanishing and exploding gradients: measured by lag, and prevented by gates and by clipping.

The gradient of the last state with respect to the input k steps before it is a product of k
Jacobians,

    ∂h_T/∂x_{T-k} = J_T J_{T-1} … J_{T-k+1} diag(1 - h²_{T-k}) W_ih        J_t = diag(1 - h_t²) W_hh

so it shrinks or grows exponentially with the largest eigenvalue of W_hh, its spectral radius
(Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013). An LSTM carries the gradient
through its memory cell, multiplied by the forget gate at each step, which is near 1 if the gate's
bias is large.

Clipping scales a gradient down to a given norm. The example is a ReLU network with spectral radius
1.8 that learns to output the previous input: without clipping, most of 12 seeds end as NaN (which
ones depends on rounding, because training is chaotic); with clipping, all 12 learn.

    python examples/gradient_flow.py
"""

from itertools import chain

import torch
from torch import Tensor, nn

from unrolled.diagnostics import input_gradient_by_lag
from unrolled.nn import LSTM, RNN

INPUTS, H = 8, 64
SEEDS = 12


def scale_recurrence(net: RNN, radius: float) -> RNN:
    """Scale W_hh to a spectral radius."""
    with torch.no_grad():
        net.weight_hh_l0 *= radius / torch.linalg.eigvals(net.weight_hh_l0).abs().max()
    return net


def simple(radius: float) -> RNN:
    """A tanh network whose recurrent matrix has this spectral radius."""
    return scale_recurrence(RNN(INPUTS, H, dtype=torch.float64), radius)


def gated(forget_bias: float) -> LSTM:
    """An LSTM with this initial bias of the forget gate (the second of the gates i, f, g, o)."""
    net = LSTM(INPUTS, H, dtype=torch.float64)
    with torch.no_grad():
        net.get_parameter("bias_ih_l0")[H : 2 * H] = forget_bias
        net.get_parameter("bias_hh_l0")[H : 2 * H] = 0
    return net


def by_lag(net: RNN | LSTM, x: Tensor, direction: Tensor) -> Tensor:
    """Norms [T] of ∂(direction · h_T)/∂x_{T-k}, k = 0, 1, …, for one sequence x [T, I]."""
    return input_gradient_by_lag(lambda x: net(x)[0][-1] @ direction, x)


def echo(max_norm: float, seed: int = 0, updates: int = 300) -> tuple[list[float], list[float]]:
    """Losses and norms of the clipped gradients while learning y_t = x_{t-1} by SGD."""
    torch.manual_seed(seed)
    T, N = 50, 32
    net = scale_recurrence(RNN(1, 32, nonlinearity="relu"), 1.8)
    head = nn.Linear(32, 1)
    parameters = list(chain(net.parameters(), head.parameters()))
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    losses, norms = [], []
    for _ in range(updates):
        x = torch.randn(T, N, 1)
        y = head(net(x)[0])
        loss = (y[1:] - x[:-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        losses.append(loss.item())
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients).item())
    return losses, norms


def main() -> None:
    torch.set_num_threads(1)  # more threads are slower at these sizes
    torch.manual_seed(0)
    T = 101
    x = torch.randn(T, INPUTS, dtype=torch.float64)
    direction = torch.randn(H, dtype=torch.float64)
    print("norm of the gradient by lag" + "".join(f"{k:9}" for k in range(0, T, 20)))
    nets: dict[str, RNN | LSTM] = {}
    nets |= {f"simple, spectral radius {radius}": simple(radius) for radius in (0.5, 0.9, 3.0)}
    nets |= {f"LSTM, forget bias {bias}": gated(bias) for bias in (0.0, 5.0)}
    for name, net in nets.items():
        norms = by_lag(net, x, direction)[::20]
        print(f"{name:27}" + "".join(f"{norm:9.0e}" for norm in norms.tolist()))

    for max_norm in (float("inf"), 1.0):
        final_losses = [echo(max_norm, seed)[0][-1] for seed in range(SEEDS)]
        finite = [loss for loss in final_losses if loss == loss]
        diverged = SEEDS - len(finite)
        print(
            f"\ngradients clipped to {max_norm}: {diverged} of {SEEDS} seeds end as NaN, the others"
        )
        print(f"at a loss of {max(finite, default=0):.1e} or less")


if __name__ == "__main__":
    main()
