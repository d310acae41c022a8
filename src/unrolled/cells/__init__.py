"""Cells: the equations of recurrent networks, each a dozen lines.

Everything else in this library follows from these lines. Nothing here imports torch or numpy.
"""

from unrolled.cells.classic import GRU, LSTM, RNN
from unrolled.cells.declaration import (
    BoundCell,
    Cell,
    CellError,
    ParameterSpec,
    Sizes,
    check_cell,
    check_step,
    product,
    vector,
)
from unrolled.cells.functions import (
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
    "check_cell",
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
