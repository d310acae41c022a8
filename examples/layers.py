"""Layers, their parameters and shapes: a stack, two directions, a custom cell.

Shapes: T time, N batch, I input, H hidden, L layers, D directions. Input [T, N, I]; output
[T, N, D·H]; states [L·D, N, H], also with batch_first.

    python examples/layers.py
"""

import torch

from unrolled.cells import Cell, Gates, State, Value, sigmoid, tanh
from unrolled.nn import LSTM, RNN, Recurrent


class MinimalGatedUnit(Cell):
    """One gate that both forgets and updates (Zhou et al. 2016, with the gate applied after the
    product)."""

    gates = ("f", "n")

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        f = sigmoid(x.f + h.f)
        n = tanh(x.n + f * h.n)
        return (1 - f) * state.h + f * n


def describe(layer: torch.nn.Module) -> list[str]:
    """The names and shapes of the parameters."""
    return [f"{name:24} {list(p.shape)}" for name, p in layer.named_parameters()]


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 10)

    stacked = RNN(10, 20, 2)
    output, h_n = stacked(x, torch.randn(2, 3, 20))
    print(f"{stacked}: output {list(output.shape)}, h_n {list(h_n.shape)}")
    print(*describe(stacked), sep="\n")

    for merge in ("concat", "sum"):
        layer = LSTM(10, 20, num_layers=2, bidirectional=True, dropout=0.1, merge=merge)
        output, (h_n, c_n) = layer(x)
        print(
            f"\n{layer}: output {list(output.shape)}, h_n {list(h_n.shape)}, c_n {list(c_n.shape)}"
        )

    custom = Recurrent(MinimalGatedUnit, 10, 20, num_layers=2, bidirectional=True)
    output, states = custom(x, lengths=[5, 0, 2])
    assert isinstance(states, torch.Tensor)
    print(f"\n{custom}: output {list(output.shape)}, h_n {list(states.shape)}")
    print(*describe(custom)[:4], "…", sep="\n")


if __name__ == "__main__":
    main()
