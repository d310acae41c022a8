"""The GRU family: one state, and one or two gates that weigh the old state against the candidate.

In some papers an open gate keeps the old state, in others it takes the candidate; each cell follows
its paper.
"""

from unrolled.cells import _settings as settings
from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product
from unrolled.cells._functions import relu, sigmoid, tanh
from unrolled.cells._values import Activation, Gates, State, Value


class ResetBeforeGRU(Cell):
    """Gated recurrent unit as in its paper: "Learning phrase representations using RNN
    encoder-decoder" (Cho et al. 2014).

    r = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n = tanh(W_in x_t + b_in + W_candidate (r ⊙ h_{t-1}) + b_candidate)
    h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}

    The reset acts before the product, as in Keras with ``reset_after=False`` and ONNX with
    ``linear_before_reset=0``; :class:`unrolled.cells.GRU` has it after. The paper omits biases.
    """

    gates = ("r", "z", "n")
    forget_gates = ("z",)
    recurrent = product("r", "z")
    candidate = product()

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + self.candidate(r * state.h))
        return (1 - z) * n + z * state.h


class MGU(Cell):
    """Minimal gated unit: "Minimal gated unit for recurrent neural networks" (Zhou, Wu, Zhang &
    Zhou 2016).

    f = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    n = tanh(W_in x_t + b_in + W_candidate (f ⊙ h_{t-1}) + b_candidate)
    h_t = (1 - f) ⊙ h_{t-1} + f ⊙ n
    """

    gates = ("f", "n")
    input_gates = ("f",)
    recurrent = product("f")
    candidate = product()

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        f = sigmoid(x.f + h.f)
        n = tanh(x.n + self.candidate(f * state.h))
        return (1 - f) * state.h + f * n


class LiGRU(Cell):
    """Light GRU: "Light gated recurrent units for speech recognition" (Ravanelli, Brakel, Omologo &
    Bengio 2018).

    z = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n = relu(W_in x_t + b_in + W_hn h_{t-1} + b_hn)
    h_t = z ⊙ h_{t-1} + (1 - z) ⊙ n

    The paper normalises W_iz x_t and W_in x_t over the batch, which keeps the relu from growing;
    this cell does not.
    """

    gates = ("z", "n")
    forget_gates = ("z",)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        z = sigmoid(x.z + h.z)
        n = relu(x.n + h.n)
        return z * state.h + (1 - z) * n


class JANET(Cell):
    """Just another network, the forget gate alone: "The unreasonable effectiveness of the forget
    gate" (van der Westhuizen & Lasenby 2018).

    s = W_if x_t + b_if + W_hf h_{t-1} + b_hf
    g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    h_t = σ(s) ⊙ h_{t-1} + (1 - σ(s - β)) ⊙ g

    ``beta`` β, any number: how much more is written than is forgotten; 1 in the paper, with 0 the
    two sides of one gate. The paper starts b_f at log U(1, T - 1), T steps to be remembered
    (chrono initialisation); here it is drawn as all biases are.
    """

    gates = ("f", "g")
    forget_gates = ("f",)

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = settings.number("beta", beta)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        s = x.f + h.f
        g = tanh(x.g + h.g)
        return sigmoid(s) * state.h + (1 - sigmoid(s - self.beta)) * g


class UGRNN(Cell):
    """Update gate RNN: "Capacity and trainability in recurrent neural networks" (Collins,
    Sohl-Dickstein & Sussillo 2017).

    c = a(W_ic x_t + b_ic + W_hc h_{t-1} + b_hc)
    g = σ(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    h_t = g ⊙ h_{t-1} + (1 - g) ⊙ c

    ``activation`` a is tanh, or any function that keeps the shape.
    """

    gates = ("c", "g")
    forget_gates = ("g",)

    def __init__(self, activation: Activation = tanh) -> None:
        self.activation = settings.function("activation", activation)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        c = self.activation(x.c + h.c)
        g = sigmoid(x.g + h.g)
        return g * state.h + (1 - g) * c


class MinimalRNN(Cell):
    """MinimalRNN: "MinimalRNN: toward more interpretable and trainable recurrent neural networks"
    (Chen 2017).

    z = tanh(W_iz x_t + b_iz)                             the input enters a latent space
    u = σ(W_hu h_{t-1} + b_hu + W_latent z)
    h_t = u ⊙ h_{t-1} + (1 - u) ⊙ z                       the state stays in it

    The paper lets the map from x_t to z be any network; here it is its one fully connected layer.
    """

    gates = ("z", "u")
    forget_gates = ("u",)
    input = product("z")
    recurrent = product("u")
    latent = product(bias=False)

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        z = tanh(x.z)
        u = sigmoid(h.u + self.latent(z))
        return u * state.h + (1 - u) * z


class ATR(Cell):
    """Addition-subtraction twin-gated recurrent unit: "Simplifying neural machine translation with
    addition-subtraction twin-gated recurrent networks" (Zhang et al. 2018).

    p = W_ih x_t,  q = W_hh h_{t-1}                       no other parameters, no biases
    i = σ(p + q)
    f = σ(p - q)
    h_t = i ⊙ p + f ⊙ h_{t-1}
    """

    input = product(bias=False)
    recurrent = product(bias=False)

    def step(self, x: Value, h: Value, state: State) -> Value:
        i = sigmoid(x + h)
        f = sigmoid(x - h)
        return i * x + f * state.h


class STAR(Cell):
    """Stackable recurrent cell: "Gating revisited: deep multi-layer RNNs that can be trained"
    (Turkoglu, D'Aronco, Wegner & Schindler 2021).

    z = tanh(W_iz x_t + b_iz)
    k = σ(W_ik x_t + b_ik + W_hk h_{t-1} + b_hk)
    h_t = tanh((1 - k) ⊙ h_{t-1} + k ⊙ z)
    """

    gates = ("z", "k")
    input_gates = ("k",)
    recurrent = product("k")

    def step(self, x: Gates, h: Gates, state: State) -> Value:
        z = tanh(x.z)
        k = sigmoid(x.k + h.k)
        return tanh((1 - k) * state.h + k * z)
