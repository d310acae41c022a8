"""The three cells of torch.nn, in its conventions: gate order, both biases, reset-after GRU."""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._functions import sigmoid, tanh
from unrolled.cells._values import Activation, Gates, State, Value


class RNN(Cell):
    """Simple recurrent network (Elman 1990).

        h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    ``activation`` f is any function of an array that keeps its shape: tanh, relu, one of your own,
    a torch module. Functions written with :mod:`unrolled.cells` run on NumPy arrays as well.
    """

    def __init__(self, activation: Activation = tanh) -> None:
        self.activation = settings.function("activation", activation)

    def step(self, x: Value, h: Value, state: State) -> Value:
        return self.activation(x + h)


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gate (Gers et al. 2000).

    i = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        input gate; f (forget), o (output) likewise
    g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     candidate
    c_t = f ⊙ c_{t-1} + i ⊙ g                           memory
    h_t = o ⊙ tanh(c_t)                                 times W_hr with proj_size (Sak et al. 2014)
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = f * state.c + i * g
        return o * tanh(c), c


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014), reset-after form, as in torch.nn and cuDNN.

    r = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)          reset gate
    z = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)          update gate
    n = tanh(W_in x_t + b_in + r ⊙ (W_hn h_{t-1} + b_hn)) candidate
    h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}

    The paper applies the reset to h_{t-1} before its product; see ``ResetBeforeGRU``.
    """

    gates = ("r", "z", "n")
    forget_gates = ("z",)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + r * h.n)
        return (1 - z) * n + z * state.h
