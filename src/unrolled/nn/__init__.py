"""Recurrent layers for PyTorch: drop-in replacements for those of ``torch.nn``, and for any cell.

``RNN``, ``LSTM``, ``GRU`` and their cells take torch's arguments and compute the same results;
``Recurrent`` and ``RecurrentCell`` take any cell. ``convert`` replaces the layers of a model.
"""

from unrolled.nn import init
from unrolled.nn._arguments import ArgumentTypeError
from unrolled.nn._cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from unrolled.nn._classic import GRU, LSTM, RNN
from unrolled.nn._convert import Conversion, convert
from unrolled.nn._isinstance_scan import TypeCheck
from unrolled.nn._recurrent import Recurrent

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "ArgumentTypeError",
    "Conversion",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "RecurrentCell",
    "TypeCheck",
    "convert",
    "init",
]
