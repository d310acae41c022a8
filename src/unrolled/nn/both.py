"""Layers and cells that are ours and, to ``isinstance``, torch's as well.

``convert(model, subclass=True)`` makes them, for models that ask. Our class comes first, so what
runs is ours; a wall before torch's class lets through nothing that it changes of ``nn.Module``.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from unrolled.nn import cells, classic


class _Wall(nn.Module):
    """Ends the way of ``super()`` from our classes to torch's: what comes next is nn.Module's."""

    __init__ = nn.Module.__init__
    __setattr__ = nn.Module.__setattr__
    __setstate__ = nn.Module.__setstate__
    _apply = nn.Module._apply
    _replicate_for_data_parallel = nn.Module._replicate_for_data_parallel


class _Apart(nn.Module):
    """Runs apart from Dynamo, which breaks its graph at instances of torch's layers.

    It then goes on at whatever is called from there, and that is the way to the core, which is not
    made to be traced.
    """

    def forward(self, input: Any, hx: Any = None, **options: Any) -> Any:
        """Run over a batch; see :class:`unrolled.nn.Recurrent`."""
        # Not before Dynamo is there: its import takes seconds.
        if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
            return super().forward(input, hx, **options)
        return _apart()(super().forward, input, hx, **options)


@cache
def _apart() -> Callable[..., Any]:
    def run(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return forward(*args, **options)

    return torch.compiler.disable(run)


class RNN(_Apart, classic.RNN, _Wall, nn.RNN):  # type: ignore[misc, override]
    """Our RNN, and an instance of ``torch.nn.RNN``."""


class LSTM(_Apart, classic.LSTM, _Wall, nn.LSTM):  # type: ignore[misc, override]
    """Our LSTM, and an instance of ``torch.nn.LSTM``."""


class GRU(_Apart, classic.GRU, _Wall, nn.GRU):  # type: ignore[misc, override]
    """Our GRU, and an instance of ``torch.nn.GRU``."""


class RNNCell(cells.RNNCell, _Wall, nn.RNNCell):  # type: ignore[misc]
    """Our RNNCell, and an instance of ``torch.nn.RNNCell``."""


class LSTMCell(cells.LSTMCell, _Wall, nn.LSTMCell):
    """Our LSTMCell, and an instance of ``torch.nn.LSTMCell``."""


class GRUCell(cells.GRUCell, _Wall, nn.GRUCell):
    """Our GRUCell, and an instance of ``torch.nn.GRUCell``."""
