"""Examples that compute: they run, and their numbers are NumPy's, torch.nn's or the layers'."""

import math
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.scripts import example
from tests.support.tolerances import close
from unrolled.nn import GRU, LSTM, RNN, GRUCell, RNNCell

PRINTED = {
    "shared_weights": "separate weights:  32000 parameters",
    "output_and_loss": "ŷ has shape [7, 4, 3]",
    "stacked_cells": "[6, 3, 40] → [6, 3, 20]",
    "two_directions": "sum    output [8, 3, 6], states [2, 3, 6]",
    "different_lengths": "lengths [3, 9, 1, 6] in one batch",
    "from_scratch": "LSTM: 14 tensors, W_xi, W_hi, b_i,",
    "convert_model": "the same parameters: True",
    "layers": "output [5, 3, 20], h_n [2, 3, 20]",
}


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def numbers(layer: torch.nn.Module) -> dict[str, NDArray]:
    return {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}


def sigmoid(z: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("name", PRINTED)
def test_scripts_run_and_agree(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example(name).main()
    printed = capsys.readouterr().out
    assert PRINTED[name] in printed
    differences = [float(d) for d in re.findall(r"by (\d\S*)", printed)]
    assert ("differ" in printed) == bool(differences)
    assert max(differences, default=0.0) < 1e-6


def test_shared_weights() -> None:
    module = example("shared_weights")
    assert module.count(RNN(10, 20)) == 20 * (10 + 20 + 1 + 1)
    assert module.count(module.separate(50, 10, 20)) == 50 * 20 * (10 + 20 + 1 + 1)
    cell = RNNCell(4, 7, dtype=torch.float64)
    x, h = double(3, 4), double(3, 7)
    close(module.one_product(cell, x, h), cell(x, h), "output")
    steps = module.separate(3, 4, 7).double()
    states = module.run(steps, double(3, 2, 4))
    assert not torch.equal(states[0], states[1])
    assert len({id(p) for p in steps.parameters()}) == 3 * 4


def test_output_and_loss() -> None:
    module = example("output_and_loss")
    net, head = RNN(5, 6, dtype=torch.float64), torch.nn.Linear(6, 3, dtype=torch.float64)
    x, labels = double(7, 4, 5), torch.randint(3, (7, 4))
    w, V, c = numbers(net), head.weight.detach().numpy(), head.bias.detach().numpy()
    h, states = np.zeros((4, 6)), []
    for x_t in x.numpy():
        h = np.tanh(x_t @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"])
        states.append(h)

    def entropies(h: NDArray, labels: Tensor) -> list[float]:
        e = np.exp(h @ V.T + c)
        y_hat = e / e.sum(-1, keepdims=True)
        return [-math.log(row[label]) for row, label in zip(y_hat, labels.tolist(), strict=True)]

    step_loss = np.mean([entropies(h, y) for h, y in zip(states, labels, strict=True)])
    last_losses, pooled_losses = (
        entropies(states[-1], labels[-1]),
        entropies(np.mean(states, 0), labels[-1]),
    )
    tolerance = {"rel": 1e-12}
    assert module.every_step(net, head, x, labels).item() == pytest.approx(step_loss, **tolerance)
    assert module.last_step(net, head, x, labels[-1]).item() == pytest.approx(
        np.mean(last_losses), **tolerance
    )
    assert module.pooled(net, head, x, labels[-1]).item() == pytest.approx(
        np.mean(pooled_losses), **tolerance
    )


def test_stacked_cells() -> None:
    module = example("stacked_cells")
    lower, upper = RNNCell(40, 30, dtype=torch.float64), GRUCell(30, 20, dtype=torch.float64)
    x = double(6, 3, 40)
    a, b = numbers(lower), numbers(upper)
    h1, h2, expected = np.zeros((3, 30)), np.zeros((3, 20)), []
    for x_t in x.numpy():
        h1 = np.tanh(x_t @ a["weight_ih"].T + a["bias_ih"] + h1 @ a["weight_hh"].T + a["bias_hh"])
        x_r, x_z, x_n = np.split(h1 @ b["weight_ih"].T + b["bias_ih"], 3, axis=1)
        h_r, h_z, h_n = np.split(h2 @ b["weight_hh"].T + b["bias_hh"], 3, axis=1)
        z = sigmoid(x_z + h_z)
        h2 = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h2
        expected.append(h2)
    expected = torch.from_numpy(np.stack(expected))
    close(module.loop(lower, upper, x), expected, "output")
    close(module.layers(lower, upper, x), expected, "output")


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_two_directions(merge: str) -> None:
    layer = GRU(5, 6, bidirectional=True, merge=merge, dtype=torch.float64)
    theirs = torch.nn.GRU(5, 6, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict(layer.state_dict())
    x = double(8, 3, 5)
    y = theirs(x)[0].detach()
    expected = y if merge == "concat" else y[..., :6] + y[..., 6:]
    close(example("two_directions").by_hand(layer, x), expected, "output")
    close(layer(x)[0], expected, "output")


@pytest.mark.parametrize("layer_class", [RNN, LSTM, GRU])
def test_sum_feeds_the_next_layer(layer_class: type[RNN | LSTM | GRU]) -> None:
    options = {"bidirectional": True, "merge": "sum", "dtype": torch.float64}
    deep = layer_class(5, 6, num_layers=2, **options)
    assert deep.weight_ih_l1.shape[1] == 6
    x, weights = double(8, 3, 5), deep.state_dict()
    y = x
    for layer in "01":
        single = layer_class(y.shape[-1], 6, **options)
        single.load_state_dict(
            {
                name.replace(f"_l{layer}", "_l0"): w
                for name, w in weights.items()
                if f"_l{layer}" in name
            }
        )
        y, _ = single(y)
    close(deep(x)[0], y.detach(), "output")


def test_different_lengths() -> None:
    module = example("different_lengths")
    net = LSTM(5, 6, bidirectional=True, dtype=torch.float64)
    sequences = [double(T, 5).requires_grad_() for T in (3, 9, 1, 6)]
    output_gradients = [double(len(sequence), 12) for sequence in sequences]
    values, gradients = [], []
    for outputs, states in (module.in_one_batch(net, sequences), module.one_by_one(net, sequences)):
        loss = sum((y * g).sum() for y, g in zip(outputs, output_gradients, strict=True))
        leaves = [*sequences, *net.parameters()]
        gradients.append(torch.autograd.grad(loss + states.square().sum(), leaves))
        values.append([*outputs, states])
    for batched, single in zip(*values, strict=True):
        close(batched, single, "output")
    for batched, single in zip(*gradients, strict=True):
        close(batched, single, "gradient")


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_from_scratch(cell: str, engine: str) -> None:
    module = example("from_scratch")
    gates = {"GRU": module.GRU_GATES, "LSTM": module.LSTM_GATES}[cell]
    order = {"GRU": "rzh", "LSTM": "ifco"}[cell]
    p = module.draw(gates, 5, 8, 4, dtype=torch.float64)
    with torch.no_grad():
        for name, tensor in p.items():
            # With the small initial weights all gates are near 1/2, which would hide an error.
            tensor.copy_(double(*tensor.shape) / (2 if name.startswith("W_h") else 1))
    layer = module.to_layer({"GRU": GRU, "LSTM": LSTM}[cell], p)
    x = double(6, 3, 5)
    state = tuple(double(3, 8).requires_grad_() for _ in ("h", "c")[: 1 + (cell == "LSTM")])
    outputs, final = getattr(module, cell.lower())(list(x), state, p)
    hx = tuple(s.detach().unsqueeze(0).requires_grad_() for s in state)
    y, h_n = layer(x, hx if cell == "LSTM" else hx[0])
    h_n = h_n if cell == "LSTM" else (h_n,)
    expected = y @ p["W_hq"].detach() + p["b_q"].detach()
    close(torch.stack(outputs), expected, "output")
    for mine, theirs in zip(final, h_n, strict=True):
        close(mine, theirs[0], "output")

    output_gradient, state_gradient = double(*expected.shape), double(3, 8)
    loss = (torch.stack(outputs) * output_gradient).sum() + (final[-1] * state_gradient).sum()
    loss.backward()
    ((expected * output_gradient).sum() + (h_n[-1][0] * state_gradient).sum()).backward()
    for mine, theirs in zip(state, hx, strict=True):
        close(mine.grad, theirs.grad[0], "gradient", "the initial state")
    grad = {name: w.grad.chunk(len(order)) for name, w in layer.named_parameters()}
    for index, k in enumerate(order):
        close(p[f"W_x{k}"].grad.T, grad["weight_ih_l0"][index], "gradient", f"W_x{k}")
        close(p[f"W_h{k}"].grad.T, grad["weight_hh_l0"][index], "gradient", f"W_h{k}")
        close(p[f"b_{k}"].grad, grad["bias_ih_l0"][index], "gradient", f"b_{k}")


@pytest.mark.parametrize(("gates", "tensors"), [("zrh", 11), ("ifoc", 14)])
def test_draw(gates: str, tensors: int) -> None:
    p = example("from_scratch").draw(gates, 50, 80, 40)
    assert len(p) == tensors
    for name, tensor in p.items():
        assert tensor.requires_grad
        if name.startswith("b_"):
            assert not tensor.any()
        else:
            assert tensor.std().item() == pytest.approx(0.01, rel=0.1)
            assert abs(tensor.mean().item()) < 0.001
