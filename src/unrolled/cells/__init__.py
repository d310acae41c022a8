"""Cells: the equations of recurrent networks, a dozen lines each.

Layers, gradients, native code and exported files are derived from these lines. Nothing here imports
torch or numpy.

In the docstrings of cells W_ik is the block of gate k in ``weight_ih``, b_ik that in ``bias_ih``;
W_hk and b_hk are those of ``weight_hh`` and ``bias_hh``, W_name and b_name those of a further
product of the cell; σ is the logistic sigmoid and ⊙ multiplies unit by unit. A gate that both
products feed has two biases, as in torch.nn; papers write their sum.
"""

from unrolled.cells._cell import Cell
from unrolled.cells._classic import GRU, LSTM, RNN
from unrolled.cells._declaration import CellError, ParameterSpec, Sizes, product, vector
from unrolled.cells._dynamical import LEM, AntisymmetricRNN, CoRNN, GatedAntisymmetricRNN
from unrolled.cells._functions import (
    clip,
    exp,
    hard_sigmoid,
    hard_tanh,
    linear,
    log,
    matrix_exp,
    maximum,
    mean,
    minimum,
    relu,
    sigmoid,
    softplus,
    softsign,
    sqrt,
    tanh,
    where,
)
from unrolled.cells._gated import ATR, JANET, MGU, STAR, UGRNN, LiGRU, MinimalRNN, ResetBeforeGRU
from unrolled.cells._independent import BRC, NBRC, IndRNN
from unrolled.cells._memory import RAN, SLSTM, CoupledLSTM, MultiplicativeLSTM, PeepholeLSTM
from unrolled.cells._normalised import LayerNormGRU, LayerNormLSTM
from unrolled.cells._orthogonal import ExpRNN
from unrolled.cells._small import FastGRNN, FastRNN
from unrolled.cells._values import Gates, State, Value

__all__ = [
    "ATR",
    "BRC",
    "GRU",
    "JANET",
    "LEM",
    "LSTM",
    "MGU",
    "NBRC",
    "RAN",
    "RNN",
    "SLSTM",
    "STAR",
    "UGRNN",
    "AntisymmetricRNN",
    "Cell",
    "CellError",
    "CoRNN",
    "CoupledLSTM",
    "ExpRNN",
    "FastGRNN",
    "FastRNN",
    "GatedAntisymmetricRNN",
    "Gates",
    "IndRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LiGRU",
    "MinimalRNN",
    "MultiplicativeLSTM",
    "ParameterSpec",
    "PeepholeLSTM",
    "ResetBeforeGRU",
    "Sizes",
    "State",
    "Value",
    "clip",
    "exp",
    "hard_sigmoid",
    "hard_tanh",
    "linear",
    "log",
    "matrix_exp",
    "maximum",
    "mean",
    "minimum",
    "product",
    "relu",
    "sigmoid",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "vector",
    "where",
]
