"""The equations of the textbook, written out in NumPy, against layers and autograd in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support.tolerances import close
from unrolled.nn import RNN, RNNCell

T, H, K, INPUTS = 7, 9, 3, 5


class Problem:
    """A tagger in the textbook's letters: weights, one sequence, a state to start from, labels."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.U, self.W, self.b = (
            rng.normal(size=(H, INPUTS)),
            rng.normal(size=(H, H)) / 3,
            rng.normal(size=H),
        )
        self.V, self.c = rng.normal(size=(K, H)), rng.normal(size=K)
        self.x, self.h_0 = rng.normal(size=(T, INPUTS)), rng.uniform(-1, 1, H)
        self.y = np.eye(K)[rng.integers(K, size=T)]

    def forward(self) -> tuple[NDArray, NDArray, float]:
        """h [T + 1, H] from h_0 on, ŷ [T, K], and the cross-entropy summed over the steps."""
        h, y_hat = [self.h_0], []
        for x_t in self.x:
            h.append(np.tanh(self.U @ x_t + self.W @ h[-1] + self.b))
            e = np.exp(self.V @ h[-1] + self.c)
            y_hat.append(e / e.sum())
        return np.stack(h), np.stack(y_hat), -np.sum(self.y * np.log(y_hat))

    def gradients(self) -> dict[str, NDArray]:
        """Backpropagation through time, as the textbook has it."""
        h, y_hat, _ = self.forward()
        error = y_hat - self.y  # ŷ_t - y_t for t = 1 … T, where h[t] is h_t
        delta = np.zeros((T + 1, H))
        delta[T] = self.V.T @ error[T - 1]
        for t in range(T - 1, 0, -1):
            delta[t] = (
                self.V.T @ error[t - 1] + self.W.T @ np.diag(1 - h[t + 1] ** 2) @ delta[t + 1]
            )
        through = [np.diag(1 - h[t] ** 2) @ delta[t] for t in range(1, T + 1)]
        return {
            "V": sum(np.outer(error[t - 1], h[t]) for t in range(1, T + 1)),
            "c": error.sum(0),
            "W": sum(np.outer(through[t - 1], h[t - 1]) for t in range(1, T + 1)),
            "U": sum(np.outer(through[t - 1], self.x[t - 1]) for t in range(1, T + 1)),
            "b": sum(through),
            "h_0": self.W.T @ through[0],
        }


def autograd(problem: Problem) -> tuple[float, dict[str, Tensor]]:
    """The same loss and gradients through the layer; b once for each of the layer's two biases."""
    net, head = RNN(INPUTS, H, dtype=torch.float64), nn.Linear(H, K, dtype=torch.float64)
    with torch.no_grad():
        net.weight_ih_l0.copy_(torch.from_numpy(problem.U))
        net.weight_hh_l0.copy_(torch.from_numpy(problem.W))
        net.bias_ih_l0.copy_(torch.from_numpy(problem.b))
        net.bias_hh_l0.zero_()
        head.weight.copy_(torch.from_numpy(problem.V))
        head.bias.copy_(torch.from_numpy(problem.c))
    h_0 = torch.from_numpy(problem.h_0).unsqueeze(0).requires_grad_()
    h, _ = net(torch.from_numpy(problem.x), h_0)
    loss = F.cross_entropy(head(h), torch.from_numpy(problem.y), reduction="sum")
    loss.backward()
    of = {
        "V": head.weight,
        "c": head.bias,
        "W": net.weight_hh_l0,
        "U": net.weight_ih_l0,
        "b": net.bias_ih_l0,
        "b again": net.bias_hh_l0,
    }
    return loss.item(), {name: p.grad for name, p in of.items()} | {"h_0": h_0.grad.squeeze(0)}


@pytest.mark.parametrize("seed", range(3))
def test_backpropagation_through_time(seed: int, engine: str) -> None:
    problem = Problem(seed)
    expected = problem.gradients()
    expected["b again"] = expected["b"]
    loss, gradients = autograd(problem)
    assert loss == pytest.approx(problem.forward()[2], rel=1e-13)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        close(gradient, torch.from_numpy(expected[name]), "gradient", name)


def test_the_formulas_against_differences() -> None:
    problem = Problem(0)
    for name, gradient in problem.gradients().items():
        parameter = getattr(problem, name)
        for index in list(np.ndindex(parameter.shape))[::4]:
            losses = []
            for step in (1e-5, -1e-5):
                parameter[index] += step
                losses.append(problem.forward()[2])
                parameter[index] -= step
            # Central differences err by step²·f''' and by eps·loss/step, both some 1e-10.
            assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient[index], abs=1e-8)


def sigmoid(z: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(
    ("nonlinearity", "f"),
    [
        ("tanh", np.tanh),
        ("relu", lambda z: np.maximum(z, 0)),
        (torch.sigmoid, sigmoid),
        (torch.sin, np.sin),
    ],
    ids=["tanh", "relu", "sigmoid", "sine"],
)
def test_simple_network(
    nonlinearity: str | Callable[[Tensor], Tensor], f: Callable[[NDArray], NDArray]
) -> None:
    p = Problem(0)
    net = RNN(INPUTS, H, nonlinearity=nonlinearity, dtype=torch.float64)
    cell = RNNCell(INPUTS, H, nonlinearity=nonlinearity, dtype=torch.float64)
    weights = {"weight_ih": p.U, "weight_hh": p.W, "bias_ih": p.b, "bias_hh": np.zeros(H)}
    weights = {name: torch.from_numpy(w) for name, w in weights.items()}
    cell.load_state_dict(weights)
    net.load_state_dict({f"{name}_l0": w for name, w in weights.items()})
    h, expected = p.h_0, []
    for x_t in p.x:
        h = f(p.U @ x_t + p.W @ h + p.b)
        expected.append(h)
    x, h_0 = torch.from_numpy(p.x), torch.from_numpy(p.h_0)
    y, h_n = net(x, h_0.unsqueeze(0))
    close(y, torch.from_numpy(np.stack(expected)), "output")
    close(h_n[0], y[-1], "output")
    close(cell(x[0], h_0), torch.from_numpy(expected[0]), "output")


def test_nonlinearity_that_is_a_network() -> None:
    f = nn.Sequential(nn.Linear(H, 4), nn.Tanh(), nn.Linear(4, H)).double()
    net = RNN(INPUTS, H, nonlinearity=f, dtype=torch.float64)
    x = torch.randn(T, 2, INPUTS, dtype=torch.float64)
    y, _ = net(x)
    (W_1, c_1), (W_2, c_2) = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (f[0], f[2])
    ]
    U, W = net.weight_ih_l0.detach().numpy(), net.weight_hh_l0.detach().numpy()
    b = (net.bias_ih_l0 + net.bias_hh_l0).detach().numpy()
    h, expected = np.zeros((2, H)), []
    for x_t in x.numpy():
        z = x_t @ U.T + h @ W.T + b
        h = np.tanh(z @ W_1.T + c_1) @ W_2.T + c_2
        expected.append(h)
    close(y, torch.from_numpy(np.stack(expected)), "output")
    y.sum().backward()
    assert f[0].weight.grad.abs().sum() > 0, "its weights learn with the layer's"


def test_embedding_is_the_one_hot_product() -> None:
    embed = nn.Embedding(K, INPUTS, dtype=torch.float64)
    net = RNN(INPUTS, H, dtype=torch.float64)
    matrix = embed.weight.detach().clone().requires_grad_()
    classes = torch.randint(K, (T, 4))
    looked_up, _ = net(embed(classes))
    multiplied, _ = net(F.one_hot(classes, K).double() @ matrix)
    close(looked_up, multiplied, "output")
    gradient = torch.randn_like(looked_up)
    (looked_up * gradient).sum().backward()
    (multiplied * gradient).sum().backward()
    close(embed.weight.grad, matrix.grad, "gradient")


@pytest.mark.parametrize("leading", [(), (4,), (T, 4), (2, T, 4)])
def test_linear_keeps_leading_dimensions(leading: tuple[int, ...]) -> None:
    linear = nn.Linear(H, K, dtype=torch.float64)
    h = torch.randn(*leading, H, dtype=torch.float64)
    expected = np.empty((*leading, K))
    for place in np.ndindex(leading):
        expected[place] = (
            linear.weight.detach().numpy() @ h[place].numpy() + linear.bias.detach().numpy()
        )
    close(linear(h), torch.from_numpy(expected), "output")
