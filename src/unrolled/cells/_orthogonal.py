"""Cells whose recurrent matrix is orthogonal: a gradient neither vanishes nor grows over time."""

from typing import Any

from unrolled.cells._cell import Cell
from unrolled.cells._declaration import product, vector
from unrolled.cells._functions import matrix_exp, relu, where
from unrolled.cells._values import State, Value


class ExpRNN(Cell):
    """Orthogonal network by the exponential map: "Cheap orthogonal constraints in neural networks"
    (Lezcano-Casado & Martínez-Rubio 2019), with the modReLU of Arjovsky, Shah & Bengio (2016).

    a = W_ih x_t + b_ih + exp(W_hh - W_hhᵀ) h_{t-1}
    h_t = sign(a) ⊙ relu(|a| + shift)

    The exponential of a skew-symmetric matrix is orthogonal. W_hh starts at rotations of pairs of
    units (Henaff, Szlam & LeCun 2016), one of the paper's two initialisations. The paper uses a
    smaller learning rate for W_hh, and has no b_ih. ``proj_size`` is not supported.
    """

    recurrent = product(bias=False, init="rotations")
    shift = vector(init=0.0)

    def prepare(self, parameters: dict[str, Any]) -> dict[str, Any]:
        W = parameters["weight_hh"]
        return {**parameters, "weight_hh": matrix_exp(W - W.T)}

    def step(self, x: Value, h: Value, state: State) -> Value:
        a = x + h
        return where(a > 0, relu(a + self.shift), where(a < 0, -relu(self.shift - a), a))
