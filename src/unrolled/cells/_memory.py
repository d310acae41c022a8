"""The LSTM family: cells with a memory c in addition to their output h.

The gates i (input), f (forget), o (output) and the candidate g are those of
:class:`unrolled.cells.LSTM`.
"""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product, vector
from unrolled.cells._functions import exp, maximum, minimum, sigmoid, softplus, tanh, where
from unrolled.cells._values import Activation, Gates, State, Value


class PeepholeLSTM(Cell):
    """LSTM whose gates read the memory: "Recurrent nets that time and count" (Gers & Schmidhuber
    2000).

    i = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i ⊙ c_{t-1})
    f = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f ⊙ c_{t-1})
    g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    c_t = f ⊙ c_{t-1} + i ⊙ g
    o = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o ⊙ c_t)
    h_t = o ⊙ tanh(c_t)

    The paper applies other functions to g and c; tanh in both places became the common form
    (Graves 2013).
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)
    p_i, p_f, p_o = vector(), vector(), vector()

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        i = sigmoid(x.i + h.i + self.p_i * state.c)
        f = sigmoid(x.f + h.f + self.p_f * state.c)
        g = tanh(x.g + h.g)
        c = f * state.c + i * g
        o = sigmoid(x.o + h.o + self.p_o * c)
        return o * tanh(c), c


class CoupledLSTM(Cell):
    """LSTM with coupled input and forget gate, CIFG: "LSTM: a search space odyssey" (Greff et al.
    2017).

    i = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        o likewise
    g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    c_t = (1 - i) ⊙ c_{t-1} + i ⊙ g                     the forget gate is 1 - i
    h_t = o ⊙ tanh(c_t)

    The paper's LSTM has peepholes, this one has none.
    """

    gates = ("i", "g", "o")
    states = ("h", "c")
    input_gates = ("i",)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        i = sigmoid(x.i + h.i)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = (1 - i) * state.c + i * g
        return o * tanh(c), c


class MultiplicativeLSTM(Cell):
    """Multiplicative LSTM: "Multiplicative LSTM for sequence modelling" (Krause, Lu, Murray &
    Renals 2016).

    m = (W_im x_t) ⊙ (W_hh h_{t-1})                       the input chooses the transition
    i = σ(W_ii x_t + W_modulate,i m + b_modulate,i)       f, o likewise
    g = tanh(W_ig x_t + W_modulate,g m + b_modulate,g)
    c_t = f ⊙ c_{t-1} + i ⊙ g
    h_t = o ⊙ tanh(c_t)

    The tanh of g and c are those of the authors' later code. Earlier versions of paper and code
    have no tanh at g, and apply the output gate before the tanh: h_t = tanh(o ⊙ c_t).
    """

    gates = ("m", "i", "f", "g", "o")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)
    input = product("m", "i", "f", "g", "o", bias=False)
    recurrent = product("m", bias=False)
    modulate = product("i", "f", "g", "o")

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        m = self.modulate(x.m * h.m)
        i = sigmoid(x.i + m.i)
        f = sigmoid(x.f + m.f)
        g = tanh(x.g + m.g)
        o = sigmoid(x.o + m.o)
        c = f * state.c + i * g
        return o * tanh(c), c


class RAN(Cell):
    """Recurrent additive network: "Recurrent additive networks" (Lee, Levy & Zettlemoyer 2017).

    g = W_ig x_t                                          no state and no bias in the candidate
    i = σ(W_ii x_t + W_hi h_{t-1} + b_hi)                 f likewise
    c_t = i ⊙ g + f ⊙ c_{t-1}                             a weighted sum of past inputs
    h_t = a(c_t)

    ``activation`` a is tanh, or any function that keeps the shape; the paper also uses the
    identity.
    """

    gates = ("g", "i", "f")
    states = ("h", "c")
    forget_gates, input_gates = ("f",), ("i",)
    input = product("g", "i", "f", bias=False)
    recurrent = product("i", "f")

    def __init__(self, activation: Activation = tanh) -> None:
        self.activation = settings.function("activation", activation)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value]:
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        c = i * x.g + f * state.c
        return self.activation(c), c


class SLSTM(Cell):
    """sLSTM, exponential gates and a normaliser: "xLSTM: extended long short-term memory" (Beck et
    al. 2024).

    log i = W_ii x_t + b_ii + W_hi h_{t-1}
    log f = log σ(W_if x_t + b_if + W_hf h_{t-1})         or, ``forget="exp"``, without the log σ
    z = tanh(W_iz x_t + b_iz + W_hz h_{t-1})
    o = σ(W_io x_t + b_io + W_ho h_{t-1})
    m_t = max(log f + m_{t-1}, log i)                     the scale, so that nothing overflows
    c_t = exp(log f + m_{t-1} - m_t) ⊙ c_{t-1} + exp(log i - m_t) ⊙ z
    n_t = exp(log f + m_{t-1} - m_t) ⊙ n_{t-1} + exp(log i - m_t)
    h_t = o ⊙ c_t / n_t

    ``heads`` (1 or more, a divisor of H): the recurrent matrices are block-diagonal with one
    block per head; the paper's networks have 4. ``forget`` is ``"sigmoid"`` or ``"exp"``.

    Where the memory is empty (n = 0) m_t is log i, as in the authors' code: by the equation alone a
    very small i would underflow, and h would be 0/0. Initial states need n > 0, or c = n = 0.
    The paper's blocks around the cell (convolution, norms, projections) are not part of it.
    """

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")

    def __init__(self, heads: int = 1, forget: str = "sigmoid") -> None:
        self.heads = settings.count("heads", heads)
        self.forget = settings.one_of("forget", forget, ("sigmoid", "exp"))
        self.recurrent = product("i", "f", "z", "o", blocks=heads, bias=False)

    def step(self, x: Gates, h: Gates, state: State) -> tuple[Value, Value, Value, Value]:
        log_i = x.i + h.i
        log_f = x.f + h.f
        if self.forget == "sigmoid":
            log_f = -softplus(-log_f)
        carried = log_f + state.m
        m = where(state.n == 0, log_i, maximum(carried, log_i))
        i = exp(log_i - m)
        f = exp(minimum(carried - m, 0.0))
        z = tanh(x.z + h.z)
        o = sigmoid(x.o + h.o)
        c = f * state.c + i * z
        n = f * state.n + i
        return o * c / n, c, n, m
