"""GRU and LSTM from scratch: named matrices, an explicit state, a list of steps.

GRU (Cho et al. 2014)                            LSTM (Hochreiter & Schmidhuber 1997, Gers 2000)

    z = σ(x W_xz + h W_hz + b_z)                     i = σ(x W_xi + h W_hi + b_i)
    r = σ(x W_xr + h W_hr + b_r)                     f = σ(x W_xf + h W_hf + b_f)
    h̃ = tanh(x W_xh + r ⊙ (h W_hh) + b_h)            o = σ(x W_xo + h W_ho + b_o)
    h = z ⊙ h + (1 - z) ⊙ h̃                          c = f ⊙ c + i ⊙ tanh(x W_xc + h W_hc + b_c)
                                                     h = o ⊙ tanh(c)
    y = h W_hq + b_q

Rows are the batch, so input matrices are [I, H]. Each gate has one bias, and the layers have two:
here the layer's input bias is used, and the recurrent bias is zero. For the GRU's candidate this
matters, because r multiplies the recurrent bias, but not the input bias.

    python examples/from_scratch.py
"""

import torch
from torch import Tensor

from unrolled.nn import GRU, LSTM

GRU_GATES = "zrh"
LSTM_GATES = "ifoc"

Parameters = dict[str, Tensor]


def draw(
    gates: str, inputs: int, hidden: int, outputs: int, dtype: torch.dtype = torch.float32
) -> Parameters:
    """Weights normal with standard deviation 0.01, zero biases: 11 tensors for GRU, 14 for LSTM."""

    def normal(*shape: int) -> Tensor:
        return (0.01 * torch.randn(shape, dtype=dtype)).requires_grad_()

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, requires_grad=True)

    parameters = {}
    for k in gates:
        parameters[f"W_x{k}"] = normal(inputs, hidden)
        parameters[f"W_h{k}"] = normal(hidden, hidden)
        parameters[f"b_{k}"] = zeros(hidden)
    return parameters | {"W_hq": normal(hidden, outputs), "b_q": zeros(outputs)}


def gru(
    inputs: list[Tensor], state: tuple[Tensor, ...], p: Parameters
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Outputs [N, Q] of each step of inputs [N, I]; the state (h,), [N, H], goes in and out."""
    (h,) = state
    outputs = []
    for x in inputs:
        z = torch.sigmoid(x @ p["W_xz"] + h @ p["W_hz"] + p["b_z"])
        r = torch.sigmoid(x @ p["W_xr"] + h @ p["W_hr"] + p["b_r"])
        candidate = torch.tanh(x @ p["W_xh"] + r * (h @ p["W_hh"]) + p["b_h"])
        h = z * h + (1 - z) * candidate
        outputs.append(h @ p["W_hq"] + p["b_q"])
    return outputs, (h,)


def lstm(
    inputs: list[Tensor], state: tuple[Tensor, ...], p: Parameters
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """As `gru`; the state is (h, c)."""
    h, c = state
    outputs = []
    for x in inputs:
        i = torch.sigmoid(x @ p["W_xi"] + h @ p["W_hi"] + p["b_i"])
        f = torch.sigmoid(x @ p["W_xf"] + h @ p["W_hf"] + p["b_f"])
        o = torch.sigmoid(x @ p["W_xo"] + h @ p["W_ho"] + p["b_o"])
        c = f * c + i * torch.tanh(x @ p["W_xc"] + h @ p["W_hc"] + p["b_c"])
        h = o * torch.tanh(c)
        outputs.append(h @ p["W_hq"] + p["b_q"])
    return outputs, (h, c)


def to_layer(layer_class: type[GRU | LSTM], p: Parameters) -> GRU | LSTM:
    """A layer with these weights: gates stacked in the layer's order, transposed to [H, I]."""
    order = "rzh" if layer_class is GRU else "ifco"
    I, H = p[f"W_x{order[0]}"].shape  # noqa: E741
    layer = layer_class(I, H, dtype=p["b_q"].dtype)
    bias = torch.cat([p[f"b_{k}"] for k in order])
    layer.load_state_dict(
        {
            "weight_ih_l0": torch.cat([p[f"W_x{k}"].T for k in order]),
            "weight_hh_l0": torch.cat([p[f"W_h{k}"].T for k in order]),
            "bias_ih_l0": bias,
            "bias_hh_l0": torch.zeros_like(bias),
        }
    )
    return layer


def main() -> None:
    torch.manual_seed(0)
    T, N, H = 6, 3, 8
    x, zero = torch.randn(T, N, 5), torch.zeros(N, H)
    implementations = ((GRU, GRU_GATES, gru, (zero,)), (LSTM, LSTM_GATES, lstm, (zero, zero)))
    for layer_class, gates, forward, state in implementations:
        p = draw(gates, 5, H, 4)
        outputs, _ = forward(list(x), state, p)
        layer = to_layer(layer_class, p)
        expected = layer(x)[0] @ p["W_hq"] + p["b_q"]
        error = (torch.stack(outputs) - expected).abs().max().item()
        print(f"{layer_class.__name__}: {len(p)} tensors, {', '.join(p)}")
        print(f"  this implementation and the layer differ by {error:.1e}")


if __name__ == "__main__":
    main()
