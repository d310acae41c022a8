"""Layers and cells that are instances of both our classes and torch's.

``convert(model, subclass=True)`` creates them, for models that test the class of a layer. Our class
comes first in the method resolution order, so our code runs; ``_ModuleMethods`` keeps torch's class
from changing methods of ``nn.Module``.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from unrolled.nn import _cells as cells
from unrolled.nn import _classic as classic

Options = ParamSpec("Options")
Result = TypeVar("Result")


class _ModuleMethods(nn.Module):
    """Calls methods of nn.Module directly, so that ``super()`` skips those of torch's classes."""

    __init__ = nn.Module.__init__
    __setattr__ = nn.Module.__setattr__
    __setstate__ = nn.Module.__setstate__
    _apply = nn.Module._apply
    _replicate_for_data_parallel = nn.Module._replicate_for_data_parallel


class _WithoutDynamo(nn.Module):
    """Runs the forward of a layer with Dynamo disabled.

    Dynamo breaks its graph at instances of torch's layers, but then traces the functions that they
    call, which lead to the core and cannot be traced.
    """

    def forward(self, input: Tensor, hx: object = None, **options: object) -> object:
        """Run over a batch; see :class:`unrolled.nn.Recurrent`."""
        # Only if Dynamo is imported already: importing it takes seconds.
        if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
            return super().forward(input, hx, **options)
        return _disabled()(super().forward, input, hx, **options)


@cache
def _disabled() -> Callable[..., object]:
    def run(
        forward: Callable[Options, Result], *args: Options.args, **options: Options.kwargs
    ) -> Result:
        return forward(*args, **options)

    disable: Callable[..., Callable[..., object]] = torch.compiler.disable
    return disable(run)


class RNN(_WithoutDynamo, classic.RNN, _ModuleMethods, nn.RNN):  # type: ignore[misc, override]
    """Our RNN, and an instance of ``torch.nn.RNN``."""


class LSTM(_WithoutDynamo, classic.LSTM, _ModuleMethods, nn.LSTM):  # type: ignore[misc, override]
    """Our LSTM, and an instance of ``torch.nn.LSTM``."""


class GRU(_WithoutDynamo, classic.GRU, _ModuleMethods, nn.GRU):  # type: ignore[misc, override]
    """Our GRU, and an instance of ``torch.nn.GRU``."""


class RNNCell(cells.RNNCell, _ModuleMethods, nn.RNNCell):  # type: ignore[misc]
    """Our RNNCell, and an instance of ``torch.nn.RNNCell``."""


class LSTMCell(cells.LSTMCell, _ModuleMethods, nn.LSTMCell):  # type: ignore[misc]
    """Our LSTMCell, and an instance of ``torch.nn.LSTMCell``."""


class GRUCell(cells.GRUCell, _ModuleMethods, nn.GRUCell):  # type: ignore[misc]
    """Our GRUCell, and an instance of ``torch.nn.GRUCell``."""
