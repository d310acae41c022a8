"""LSTM and GRU with layer normalisation: "Layer normalization" (Ba, Kiros & Hinton 2016).

Products are normalised over all gates of a row together, separately for the input and the state, as
in the paper's supplement. Where the paper adds several biases, there is one here.
"""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product, vector
from unrolled.cells._functions import mean, sigmoid, sqrt, tanh
from unrolled.cells._values import Gates, State, Value


class LayerNormLSTM(Cell):
    """LSTM with layer normalisation (Ba, Kiros & Hinton 2016).

    (x_i, x_f, x_g, x_o) = N(W_ih x_t)                    N(v) = (v - mean v) / sqrt(var v + ε)
    (h_i, h_f, h_g, h_o) = N(W_hh h_{t-1})
    i = σ(gain_ii ⊙ x_i + gain_hi ⊙ h_i + b_i)            f, o likewise
    g = tanh(gain_ig ⊙ x_g + gain_hg ⊙ h_g + b_g)
    c_t = f ⊙ c_{t-1} + i ⊙ g
    h_t = o ⊙ tanh(gain_c ⊙ N(c_t) + b_c)

    Gains start at 1, biases at 0. ``epsilon`` ε > 0 is not in the paper: it keeps a row of equal
    numbers, such as a state of zeros, from 0/0.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("b_f",), ("b_i",)
    input = product("i", "f", "g", "o", bias=False)
    recurrent = product("i", "f", "g", "o", bias=False)
    gain_ii, gain_if, gain_ig, gain_io = (vector(init=1.0) for _ in range(4))
    gain_hi, gain_hf, gain_hg, gain_ho = (vector(init=1.0) for _ in range(4))
    b_i, b_f, b_g, b_o = (vector(init=0.0, bias=True) for _ in range(4))
    gain_c, b_c = vector(init=1.0), vector(init=0.0, bias=True)

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = settings.positive("epsilon", epsilon)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        x_i, x_f, x_g, x_o = _normalised(self.epsilon, x.i, x.f, x.g, x.o)
        h_i, h_f, h_g, h_o = _normalised(self.epsilon, h.i, h.f, h.g, h.o)
        i = sigmoid(self.gain_ii * x_i + self.gain_hi * h_i + self.b_i)
        f = sigmoid(self.gain_if * x_f + self.gain_hf * h_f + self.b_f)
        g = tanh(self.gain_ig * x_g + self.gain_hg * h_g + self.b_g)
        o = sigmoid(self.gain_io * x_o + self.gain_ho * h_o + self.b_o)
        c = f * state.c + i * g
        (scaled,) = _normalised(self.epsilon, c)
        return o * tanh(self.gain_c * scaled + self.b_c), c


class LayerNormGRU(Cell):
    """GRU with layer normalisation (Ba, Kiros & Hinton 2016).

    (x_r, x_z) = N(W_ir x_t, W_iz x_t),  x_n = N(W_in x_t)             N as in LayerNormLSTM
    (h_r, h_z) = N(W_hr h_{t-1}, W_hz h_{t-1}),  h_n = N(W_hn h_{t-1})
    r = σ(gain_ir ⊙ x_r + gain_hr ⊙ h_r + b_r)                         z likewise
    n = tanh(gain_in ⊙ x_n + b_in + r ⊙ (gain_hn ⊙ h_n + b_hn))
    h_t = (1 - z) ⊙ h_{t-1} + z ⊙ n

    An open z takes the candidate, as in that paper; in :class:`unrolled.cells.GRU` it keeps the
    state. Gains start at 1, biases
    at 0; ``epsilon`` ε > 0.
    """

    gates = ("r", "z", "n")
    input_gates = ("b_z",)
    input = product("r", "z", "n", bias=False)
    recurrent = product("r", "z", "n", bias=False)
    gain_ir, gain_iz, gain_in = (vector(init=1.0) for _ in range(3))
    gain_hr, gain_hz, gain_hn = (vector(init=1.0) for _ in range(3))
    b_r, b_z, b_in, b_hn = (vector(init=0.0, bias=True) for _ in range(4))

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = settings.positive("epsilon", epsilon)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        x_r, x_z = _normalised(self.epsilon, x.r, x.z)
        h_r, h_z = _normalised(self.epsilon, h.r, h.z)
        (x_n,) = _normalised(self.epsilon, x.n)
        (h_n,) = _normalised(self.epsilon, h.n)
        r = sigmoid(self.gain_ir * x_r + self.gain_hr * h_r + self.b_r)
        z = sigmoid(self.gain_iz * x_z + self.gain_hz * h_z + self.b_z)
        n = tanh(self.gain_in * x_n + self.b_in + r * (self.gain_hn * h_n + self.b_hn))
        return (1 - z) * state.h + z * n


def _normalised(epsilon: float, *parts: Value) -> list[Value]:
    """The concatenation of vectors normalised to mean 0 and variance 1, as separate vectors."""
    shift = _average([mean(part) for part in parts])
    centred = [part - shift for part in parts]
    scale = sqrt(_average([mean(part * part) for part in centred]) + epsilon)
    return [part / scale for part in centred]


def _average(values: list[Value]) -> Value:
    return sum(values[1:], values[0]) / len(values)
