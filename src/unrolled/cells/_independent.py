"""Cells in which the state of a unit depends on its own past and the input only.

Other units influence it through its gates (NBRC) or through the next layer.
"""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product, vector
from unrolled.cells._functions import relu, sigmoid, tanh
from unrolled.cells._values import Activation, Gates, State, Value


class IndRNN(Cell):
    """Independently recurrent network: "Independently recurrent neural network (IndRNN): building a
    longer and deeper RNN" (Li, Li, Cook, Zhu & Gao 2018).

    h_t = a(W_ih x_t + b_ih + u ⊙ h_{t-1})

    ``activation`` a is relu, or any function that keeps the shape. ``start`` (low, high): u is
    drawn from U(low, high). In the paper that is U(0, 2^(1/T)) for T steps to be remembered, and
    near 1 in the last layer; the default is its limit for long sequences. The paper also clips
    u to ±2^(1/T) after each update; the training loop has to do that.
    """

    recurrent = None

    def __init__(
        self, activation: Activation = relu, start: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        self.activation = settings.function("activation", activation)
        self.start = settings.interval("start", start)
        self.u = vector(init=self.start)

    def step(self, x: Value, h: None, state: State) -> Value:
        return self.activation(x + self.u * state.h)


class BRC(Cell):
    """Bistable recurrent cell: "A bio-inspired bistable recurrent cell allows for long-lasting
    memory" (Vecoven, Ernst & Drion 2021).

    a = 1 + tanh(W_ia x_t + b_ia + w_a ⊙ h_{t-1})         above 1 the unit has two stable states
    c = σ(W_ic x_t + b_ic + w_c ⊙ h_{t-1})
    h_t = c ⊙ h_{t-1} + (1 - c) ⊙ tanh(W_in x_t + b_in + a ⊙ h_{t-1})

    w_a and w_c start at 1, as in the authors' code. The paper's equations have no biases, their
    code has b_ia and b_ic.
    """

    gates = ("a", "c", "n")
    recurrent = None
    w_a, w_c = vector(init=1.0), vector(init=1.0)

    def step(self, x: Gates, h: None, state: State) -> Value:
        a = 1 + tanh(x.a + self.w_a * state.h)
        c = sigmoid(x.c + self.w_c * state.h)
        return c * state.h + (1 - c) * tanh(x.n + a * state.h)


class NBRC(Cell):
    """Neuromodulated bistable recurrent cell, nBRC, of the paper of :class:`BRC`: the other units
    set a and c.

    a = 1 + tanh(W_ia x_t + b_ia + W_ha h_{t-1} + b_ha)
    c = σ(W_ic x_t + b_ic + W_hc h_{t-1} + b_hc)
    h_t = c ⊙ h_{t-1} + (1 - c) ⊙ tanh(W_in x_t + b_in + a ⊙ h_{t-1})
    """

    gates = ("a", "c", "n")
    recurrent = product("a", "c")

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        a = 1 + tanh(x.a + h.a)
        c = sigmoid(x.c + h.c)
        return c * state.h + (1 - c) * tanh(x.n + a * state.h)
