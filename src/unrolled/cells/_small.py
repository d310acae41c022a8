"""Cells for small devices: one pair of matrices, and a few vectors and numbers.

Both are from one paper: "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated recurrent
neural network" (Kusupati et al. 2018). Their numbers start as in its authors' code. Its low-rank,
sparse and byte-sized weights are not implemented.
"""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product, vector
from unrolled.cells._functions import sigmoid, tanh
from unrolled.cells._values import Activation, State, Value


class FastRNN(Cell):
    """Simple recurrent network with a weighted residual connection (Kusupati et al. 2018).

    n = a(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
    h_t = σ(alpha) n + σ(beta) h_{t-1}

    alpha and beta are one number each; they start at -3 and 3, so that 5 % of the state is new.
    ``activation`` a is tanh, or any function that keeps the shape.
    """

    alpha, beta = vector(1, init=-3.0), vector(1, init=3.0)

    def __init__(self, activation: Activation = tanh) -> None:
        self.activation = settings.function("activation", activation)

    def step(self, x: Value, h: Value, state: State) -> Value:
        n = self.activation(x + h)
        return sigmoid(self.alpha) * n + sigmoid(self.beta) * state.h


class FastGRNN(Cell):
    """Gate and candidate share both matrices, not the bias (Kusupati et al. 2018).

    z = σ(W_ih x_t + W_hh h_{t-1} + b_z)
    n = tanh(W_ih x_t + W_hh h_{t-1} + b_n)
    h_t = (σ(zeta) (1 - z) + σ(nu)) ⊙ n + z ⊙ h_{t-1}

    zeta and nu are one number each; they start at 1 and -4, the biases at 1.
    """

    input = product(bias=False)
    recurrent = product(bias=False)
    b_z, b_n = vector(init=1.0, bias=True), vector(init=1.0, bias=True)
    zeta, nu = vector(1, init=1.0), vector(1, init=-4.0)

    def step(self, x: Value, h: Value, state: State) -> Value:
        z = sigmoid(x + h + self.b_z)
        n = tanh(x + h + self.b_n)
        return (sigmoid(self.zeta) * (1 - z) + sigmoid(self.nu)) * n + z * state.h
