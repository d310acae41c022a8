"""Recurrent layers for PyTorch: drop-in for ``torch.nn``'s, and for any cell.

``RNN``, ``LSTM``, ``GRU`` and their cells take torch's arguments and compute torch's numbers;
``Recurrent`` and ``RecurrentCell`` take any cell. ``convert`` replaces the layers of a model.
"""

from unrolled.nn import init
from unrolled.nn.arguments import ArgumentTypeError
from unrolled.nn.cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from unrolled.nn.classic import GRU, LSTM, RNN
from unrolled.nn.convert import Conversion, convert
from unrolled.nn.isinstance_scan import TypeCheck
from unrolled.nn.recurrent import Recurrent

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
