"""A sequence read in both directions, the outputs side by side or added.

    →h_t = f(x_t, →h_{t-1})        ←h_t = f(x_t, ←h_{t+1})        y_t = [→h_t; ←h_t] or →h_t + ←h_t

A reversed direction is a layer of its own on the reversed sequence (Schuster & Paliwal 1997). With
`merge="sum"` the output, and with it the input of a next layer, is as wide as one direction.

    python examples/two_directions.py
"""

import torch
from torch import Tensor

from unrolled.nn import GRU


def one_direction(layer: GRU, suffix: str) -> GRU:
    """A layer of one direction with the weights of `layer` that end in `suffix`."""
    alone = GRU(layer.input_size, layer.hidden_size, dtype=layer.weight_ih_l0.dtype)
    weights = layer.state_dict()
    alone.load_state_dict({name: weights[name + suffix] for name in alone.state_dict()})
    return alone


def by_hand(layer: GRU, x: Tensor) -> Tensor:
    """The output of a one-layer bidirectional GRU, from two separate layers."""
    there = one_direction(layer, "")(x)[0]
    back = one_direction(layer, "_reverse")(x.flip(0))[0].flip(0)
    return there + back if layer.merge == "sum" else torch.cat([there, back], dim=-1)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 5)
    for merge in ("concat", "sum"):
        layer = GRU(5, 6, bidirectional=True, merge=merge)
        y, h_n = layer(x)
        apart = (y - by_hand(layer, x)).abs().max().item()
        print(
            f"{merge:6} output {list(y.shape)}, states {list(h_n.shape)}; "
            f"by hand it differs by {apart:.1e}"
        )


if __name__ == "__main__":
    main()
