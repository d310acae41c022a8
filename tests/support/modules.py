"""Modules with a recurrent layer as users write them, by their forward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unrolled.nn import LSTM, Recurrent

__all__ = ["Forward", "H", "I", "N", "Net", "T", "attributes", "net_of"]

T, N, I, H = 5, 3, 4, 6  # noqa: E741
Forward = Callable[..., Any]


class Net(nn.Module):
    """A layer and a linear layer, without a forward."""

    def __init__(self, layer_class: Any = LSTM, **options: Any) -> None:
        super().__init__()
        options = {"batch_first": True} | options
        self.embedding = nn.Embedding(7, I)
        self.rnn: Recurrent = layer_class(I, H, **options)
        self.rows = self.rnn.num_layers * self.rnn.spec.num_directions
        self.fc = nn.Linear(self.rnn.spec.output_size, 2)
        self.drop = nn.Dropout(0.5)
        self.h0 = nn.Parameter(torch.zeros(self.rows, 1, H))


def net_of(forward: Forward, **options: Any) -> Any:
    """A module with this forward."""
    return type("Net", (Net,), {"forward": forward})(**options)


def attributes(module: nn.Module) -> list[dict[str, Any]]:
    """The attributes of a module and of all modules in it."""
    return [dict(vars(part)) for part in module.modules()]
