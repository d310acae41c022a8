"""Two different cells stacked in a custom loop, 40 → 30 → 20.

    h¹_t = RNNCell(x_t, h¹_{t-1})        h²_t = GRUCell(h¹_t, h²_{t-1})

Cells are for loops that a layer cannot run: different cells, early stopping, inputs that depend on
the previous output. For the usual loop, layers compute the same numbers faster.

    python examples/stacked_cells.py
"""

import torch
from torch import Tensor

from unrolled.nn import GRU, RNN, GRUCell, RNNCell


def loop(lower: RNNCell, upper: GRUCell, x: Tensor) -> Tensor:
    """All states of the upper cell, [T, N, 20], for x [T, N, 40]; both start from zeros."""
    N = x.shape[1]
    h1 = x.new_zeros(N, lower.hidden_size)
    h2 = x.new_zeros(N, upper.hidden_size)
    states = []
    for x_t in x:
        h1 = lower(x_t, h1)
        h2 = upper(h1, h2)
        states.append(h2)
    return torch.stack(states)


def layers(lower: RNNCell, upper: GRUCell, x: Tensor) -> Tensor:
    """The same with two layers that have the cells' weights."""
    rnn, gru = RNN(40, 30, dtype=x.dtype), GRU(30, 20, dtype=x.dtype)
    for layer, cell in ((rnn, lower), (gru, upper)):
        layer.load_state_dict({f"{name}_l0": p for name, p in cell.state_dict().items()})
    output: Tensor = gru(rnn(x)[0])[0]
    return output


def main() -> None:
    torch.manual_seed(0)
    lower, upper = RNNCell(40, 30), GRUCell(30, 20)
    x = torch.randn(6, 3, 40)
    states = loop(lower, upper, x)
    error = (states - layers(lower, upper, x)).abs().max().item()
    print(f"{list(x.shape)} → {list(states.shape)}; cells and layers differ by {error:.1e}")


if __name__ == "__main__":
    main()
