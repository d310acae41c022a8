"""Recurrent layers for PyTorch: drop-in for ``torch.nn``'s, and for any cell.

``RNN``, ``LSTM``, ``GRU`` and their cells take torch's arguments and give torch's numbers;
``Recurrent`` and ``RecurrentCell`` take a cell of your own.
"""

from .arguments import ArgumentTypeError
from .cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from .classic import GRU, LSTM, RNN
from .recurrent import Recurrent

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "ArgumentTypeError",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "RecurrentCell",
]
