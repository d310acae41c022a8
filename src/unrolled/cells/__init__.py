"""Cells: the equations of recurrent networks, each a dozen lines.

Everything else in this library follows from these lines. Nothing here imports torch or numpy.
"""

from .classic import GRU, LSTM, RNN
from .declaration import (
    BoundCell,
    Cell,
    CellError,
    ParameterSpec,
    Sizes,
    check_step,
    product,
    vector,
)
from .functions import (
    clip,
    exp,
    hard_sigmoid,
    hard_tanh,
    linear,
    log,
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

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BoundCell",
    "Cell",
    "CellError",
    "ParameterSpec",
    "Sizes",
    "check_step",
    "clip",
    "exp",
    "hard_sigmoid",
    "hard_tanh",
    "linear",
    "log",
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
