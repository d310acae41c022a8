"""Weight sharing over time in the simple recurrent network (Elman 1990).

    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

Unrolled over T steps it is a feed-forward network of depth T whose layers share their weights, so
its size does not depend on T; with separate weights for each step it would be T times as large. The
two products of a step can be computed as one: W_hh h + W_ih x = [W_hh W_ih] [h; x].

    python examples/shared_weights.py
"""

import torch
from torch import Tensor, nn

from unrolled.nn import RNN, RNNCell


def count(net: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in net.parameters())


def separate(T: int, input_size: int, hidden_size: int) -> nn.ModuleList:
    """Separate cells for each of T steps."""
    return nn.ModuleList(RNNCell(input_size, hidden_size) for _ in range(T))


def run(steps: nn.ModuleList, x: Tensor) -> Tensor:
    """All states [T, N, H] of a network with a cell for each step."""
    h, states = None, []
    for cell, x_t in zip(steps, x, strict=True):
        h = cell(x_t, h)
        states.append(h)
    return torch.stack(states)


def one_product(cell: RNNCell, x: Tensor, h: Tensor) -> Tensor:
    """The step of `cell` with its two matrices side by side and its two inputs stacked."""
    p = dict(cell.named_parameters())
    W = torch.cat([p["weight_hh"], p["weight_ih"]], dim=1)  # [H, H + I]
    hx = torch.cat([h, x], dim=1)  # [N, H + I]
    return torch.tanh(hx @ W.T + p["bias_hh"] + p["bias_ih"])


def main() -> None:
    torch.manual_seed(0)
    T, N, H = 50, 3, 20
    shared, unshared = RNN(10, H), separate(T, 10, H)
    print(f"{T} steps, shared weights:   {count(shared):6} parameters")
    print(f"{T} steps, separate weights: {count(unshared):6} parameters")

    x = torch.randn(T, N, 10)
    tied = nn.ModuleList([cell := RNNCell(10, H)] * T)
    shared.load_state_dict({f"{name}_l0": p for name, p in cell.state_dict().items()})
    error = (run(tied, x) - shared(x)[0]).abs().max().item()
    print(f"with the same weights at every step they differ by {error:.1e}")

    h = torch.randn(N, H)
    error = (one_product(cell, x[0], h) - cell(x[0], h)).abs().max().item()
    print(f"two products and one product differ by {error:.1e}")


if __name__ == "__main__":
    main()
