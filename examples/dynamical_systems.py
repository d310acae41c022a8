"""A recurrent network learns a dynamical system from observations, then simulates it.

    h_t = g(h_{t-1}, y_{t-1}, u_{t-1})        y_t = y_{t-1} + o(h_t)

Recurrent networks can approximate any such system (Schäfer & Zimmermann 2006). Two systems are
learned from positions only; the network's state must represent the velocity:

  van der Pol  ẍ = (1 - x²) ẋ - x                  autonomous: no input
  pendulum     φ̈ = -sin φ - 0.2 φ̇ + u(t)           driven by a torque u that changes every second

The network is trained to predict the next position from slightly noisy positions, so that it learns
to correct its own errors. Then it observes 20 steps of new trajectories, and runs freely for 150
steps on its own outputs. The error is the root mean square over the free run, compared with those
of persistence (the last observed position) and of the trajectories' mean.

    python examples/dynamical_systems.py [--plot FILE]
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unrolled.nn import GRU

STEP, SUBSTEPS = 0.1, 5
OBSERVED, FREE = 20, 150

Array = NDArray[np.float64]
Field = Callable[[Array, Array], Array]


def van_der_pol(s: Array, u: Array) -> Array:
    """Velocity and acceleration [2, N] at position and velocity s [2, N]."""
    x, v = s
    return np.stack([v, (1 - x**2) * v - x])


def pendulum(s: Array, u: Array) -> Array:
    """The same for a damped pendulum under the torque u [N]."""
    angle, v = s
    return np.stack([v, -np.sin(angle) - 0.2 * v + u])


def runge_kutta(field: Field, s: Array, u: Array, dt: float) -> Array:
    """One step of the classical fourth-order method, u constant."""
    k1 = field(s, u)
    k2 = field(s + dt / 2 * k1, u)
    k3 = field(s + dt / 2 * k2, u)
    k4 = field(s + dt * k3, u)
    change: Array = dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return s + change


class System(NamedTuple):
    """A vector field, the range of the initial state, and the largest torque (0: autonomous)."""

    field: Field
    start: float
    torque: float


SYSTEMS = {
    "van der Pol": System(van_der_pol, start=2.0, torque=0.0),
    "pendulum": System(pendulum, start=1.0, torque=0.5),
}


def simulate(system: System, T: int, N: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Positions and torques [T, N, 1] of N trajectories from random starts."""
    s: Array = rng.uniform(-system.start, system.start, (2, N))
    u = rng.uniform(-system.torque, system.torque, (T // 10 + 1, N)).repeat(10, axis=0)[:T]
    positions = []
    for u_t in u:
        positions.append(s[0])
        for _ in range(SUBSTEPS):
            s = runge_kutta(system.field, s, u_t, STEP / SUBSTEPS)
    y = torch.tensor(np.stack(positions), dtype=torch.float32)
    return y.unsqueeze(-1), torch.tensor(u, dtype=torch.float32).unsqueeze(-1)


class Model(nn.Module):
    """g is a GRU, o a linear map to the change of position."""

    def __init__(self, H: int = 48) -> None:
        super().__init__()
        self.g = GRU(2, H)
        self.o = nn.Linear(H, 1)

    def forward(self, y: Tensor, u: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The positions after each of y and u [T, N, 1], and the state."""
        states, h = self.g(torch.cat([y, u], dim=-1), h)
        return y + self.o(states), h

    @torch.no_grad()
    def run_free(self, y: Tensor, u: Tensor) -> Tensor:
        """Observe the positions y, then run freely for the remaining torques u."""
        predicted, h = self(y, u[: len(y)])
        free = [predicted[-1:]]
        for u_t in u[len(y) :].split(1):
            predicted, h = self(free[-1], u_t, h)
            free.append(predicted)
        return torch.cat(free[:-1])


def train(system: System, rng: np.random.Generator, updates: int) -> Model:
    """Fit one-step predictions from the eleventh step on; the velocity is unknown before."""
    y, u = simulate(system, T=61, N=512, rng=rng)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=updates)
    for _ in range(updates):
        rows = torch.randint(y.shape[1], (32,))
        observed = y[:-1, rows]
        predicted, _ = model(observed + 0.01 * torch.randn_like(observed), u[:-1, rows])
        loss = (predicted - y[1:, rows])[10:].square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model


class Result(NamedTuple):
    """Free runs and true positions [FREE, N, 1], and the last observed positions [N, 1]."""

    free_run: Tensor
    truth: Tensor
    last_observed: Tensor

    def errors(self) -> dict[str, float]:
        """Root mean square errors of the network and of the two baselines."""
        guesses = {
            "network": self.free_run,
            "persistence": self.last_observed,
            "mean": self.truth.mean(),
        }
        return {name: (g - self.truth).square().mean().sqrt().item() for name, g in guesses.items()}


def learn(name: str, seed: int = 0, updates: int = 600) -> Result:
    """Train on one system, then run freely on 100 new trajectories of it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = train(SYSTEMS[name], rng, updates)
    y, u = simulate(SYSTEMS[name], OBSERVED + FREE, 100, rng)
    return Result(model.run_free(y[:OBSERVED], u), y[OBSERVED:], y[OBSERVED - 1])


def plot(results: dict[str, Result], path: str) -> None:
    """Draw the first trajectory of each system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    t = STEP * np.arange(1, FREE + 1)
    for axes, (name, result) in zip(figure.subplots(len(results)), results.items(), strict=True):
        axes.plot(t, result.truth[:, 0, 0].numpy(), "k", label="truth")
        axes.plot(t, result.free_run[:, 0, 0].numpy(), "C1--", label="network, free run")
        axes.set(title=name, ylabel="position")
    axes.set_xlabel("seconds since the last observed position")
    axes.legend()
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Learn dynamical systems, then simulate them.")
    parser.add_argument("--plot", metavar="FILE", help="picture of a free run of each system")
    parser.add_argument("--updates", type=int, default=600, help="training steps (600)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # more threads are slower at these sizes
    results = {name: learn(name, updates=options.updates) for name in SYSTEMS}
    for name, result in results.items():
        errors = ", ".join(f"{who} {error:.3f}" for who, error in result.errors().items())
        print(f"{name:11} error over {FREE} free steps: {errors}")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
