"""Cells that are one step of a differential equation, solved with a step size that is a setting.

Published settings differ between tasks by orders of magnitude: tune them.
"""

from typing import Any

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product
from unrolled.cells._functions import sigmoid, tanh
from unrolled.cells._values import Gates, State, Value


class _Antisymmetric(Cell):
    """The settings and the recurrent matrix that both antisymmetric networks have."""

    recurrent = product(bias=False)

    def __init__(self, epsilon: float = 0.1, gamma: float = 0.01) -> None:
        self.epsilon = settings.positive("epsilon", epsilon)
        self.gamma = settings.not_negative("gamma", gamma)

    def prepare(self, parameters: dict[str, Any]) -> dict[str, Any]:
        W = parameters["weight_hh"]
        return {**parameters, "weight_hh": W - W.T}


class AntisymmetricRNN(_Antisymmetric):
    """Antisymmetric network: "AntisymmetricRNN: a dynamical system view on recurrent neural
    networks" (Chang, Chen, Haber & Chi 2019).

    h_t = h_{t-1} + ε tanh(W_ih x_t + b_ih + (W_hh - W_hhᵀ - γ I) h_{t-1})

    ``epsilon`` ε > 0 is the step size; ``gamma`` γ ≥ 0 the diffusion that keeps the forward Euler
    method stable. The paper draws W_hh from a normal distribution; here it is drawn as all weights
    are. ``proj_size`` is not supported.
    """

    def step(self, x: Value, h: Value, state: State) -> Value:
        return state.h + self.epsilon * tanh(x + h - self.gamma * state.h)


class GatedAntisymmetricRNN(_Antisymmetric):
    """Antisymmetric network with a gate, of the same paper and with the same
    settings as :class:`AntisymmetricRNN`.

    a = (W_hh - W_hhᵀ - γ I) h_{t-1}                      one matrix for both
    z = σ(W_iz x_t + b_iz + a)
    h_t = h_{t-1} + ε z ⊙ tanh(W_in x_t + b_in + a)
    """

    gates = ("z", "n")
    input = product("z", "n")
    recurrent = product(bias=False)

    def step(self, x: Gates, h: Value, state: State) -> Value:
        a = h - self.gamma * state.h
        z = sigmoid(x.z + a)
        return state.h + self.epsilon * z * tanh(x.n + a)


class CoRNN(Cell):
    """Coupled oscillatory network: "Coupled oscillatory recurrent neural network (coRNN)" (Rusch &
    Mishra 2021).

    z_t = z_{t-1} + Δt (tanh(W_ih x_t + b_ih + W_hh y_{t-1} + b_hh + W_velocity z_{t-1})
                        - γ y_{t-1} - ε z_{t-1})
    y_t = y_{t-1} + Δt z_t

    y, the output, is the position of the oscillators, z their velocity. ``dt`` Δt > 0 is the step
    size, below 1 in the paper; ``gamma`` γ > 0 pulls back to rest, ``epsilon`` ε > 0 damps. The
    damping is the explicit one of the paper's two, as in the authors' code.
    """

    states = ("y", "z")
    velocity = product(bias=False)

    def __init__(self, dt: float = 0.1, gamma: float = 1.0, epsilon: float = 1.0) -> None:
        self.dt = settings.positive("dt", dt)
        self.gamma = settings.positive("gamma", gamma)
        self.epsilon = settings.positive("epsilon", epsilon)

    def step(self, x: Value, h: Value, state: State) -> tuple[Value, Value]:
        force = tanh(x + h + self.velocity(state.z))
        z = state.z + self.dt * (force - self.gamma * state.y - self.epsilon * state.z)
        return state.y + self.dt * z, z


class LEM(Cell):
    """Long expressive memory: "Long expressive memory for sequence modeling" (Rusch, Mishra,
    Erichson & Mahoney 2022).

    a = Δt σ(W_ia x_t + b_ia + W_ha y_{t-1} + b_ha)       a step size for each unit of z
    b = Δt σ(W_ib x_t + b_ib + W_hb y_{t-1} + b_hb)       and of y
    z_t = (1 - a) ⊙ z_{t-1} + a ⊙ tanh(W_iz x_t + b_iz + W_hz y_{t-1} + b_hz)
    y_t = (1 - b) ⊙ y_{t-1} + b ⊙ tanh(W_iy x_t + b_iy + W_memory z_t + b_memory)

    y is the output. ``dt`` Δt > 0 is the largest step size; 1 in the authors' code unless tuned.
    """

    gates = ("a", "b", "z", "y")
    states = ("y", "z")
    recurrent = product("a", "b", "z")
    memory = product()

    def __init__(self, dt: float = 1.0) -> None:
        self.dt = settings.positive("dt", dt)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        a = self.dt * sigmoid(x.a + h.a)
        b = self.dt * sigmoid(x.b + h.b)
        z = (1 - a) * state.z + a * tanh(x.z + h.z)
        y = (1 - b) * state.y + b * tanh(x.y + self.memory(z))
        return y, z
