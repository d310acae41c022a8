"""A sequence read in both directions, with the outputs concatenated or added.

    →h_t = f(x_t, →h_{t-1})        ←h_t = f(x_t, ←h_{t+1})        y_t = [→h_t; ←h_t] or →h_t + ←h_t

The reverse direction is a separate layer on the reversed sequence (Schuster & Paliwal 1997). With
`merge="sum"` the output, and so the input of the next layer, is only as wide as one direction.

    python examples/two_directions.py
"""

import torch
from torch import Tensor

from unrolled.nn import GRU


def one_direction(layer: GRU, suffix: str) -> GRU:
    """A layer of one direction with the weights of `layer` that end in `suffix`."""
    single = GRU(layer.input_size, layer.hidden_size, dtype=layer.weight_ih_l0.dtype)
    weights = layer.state_dict()
    single.load_state_dict({name: weights[name + suffix] for name in single.state_dict()})
    return single


def by_hand(layer: GRU, x: Tensor) -> Tensor:
    """The output of a one-layer bidirectional GRU, from two separate layers."""
    forward = one_direction(layer, "")(x)[0]
    backward = one_direction(layer, "_reverse")(x.flip(0))[0].flip(0)
    return forward + backward if layer.merge == "sum" else torch.cat([forward, backward], dim=-1)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 5)
    for merge in ("concat", "sum"):
        layer = GRU(5, 6, bidirectional=True, merge=merge)
        y, h_n = layer(x)
        error = (y - by_hand(layer, x)).abs().max().item()
        print(
            f"{merge:6} output {list(y.shape)}, states {list(h_n.shape)}; "
            f"computed by hand it differs by {error:.1e}"
        )


if __name__ == "__main__":
    main()
