"""What changing weights is tried on: layers and steps of several kinds, run in every way there is.

The judge is the reference engine on copies of the weights that no layer has seen before.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from tests.support.subjects import Peephole, ResetBefore, gradients, tokens
from tests.support.tolerances import close
from unrolled import engines, nn

I, H = 3, 5  # noqa: E741

MAKERS: dict[str, Callable[[], nn.Recurrent | nn.RecurrentCell]] = {
    "rnn": lambda: nn.RNN(I, H),
    "gru": lambda: nn.GRU(I, H, num_layers=2, bidirectional=True),
    "lstm": lambda: nn.LSTM(I, H, bidirectional=True, merge="sum"),
    "projected": lambda: nn.LSTM(I, H, num_layers=2, proj_size=2),
    "peephole": lambda: nn.Recurrent(Peephole, I, H),
    "reset_before": lambda: nn.Recurrent(ResetBefore, I, H),
    "rnn step": lambda: nn.RNNCell(I, H),
    "gru step": lambda: nn.GRUCell(I, H),
    "lstm step": lambda: nn.LSTMCell(I, H),
    "peephole step": lambda: nn.RecurrentCell(Peephole, I, H),
}


def made(kind: str, seed: int = 0) -> nn.Recurrent | nn.RecurrentCell:
    """A module in float64, whose weights no float32 holds."""
    torch.manual_seed(seed)
    module = MAKERS[kind]().double()
    module.reset_parameters()
    return module


def inputs(kind: str) -> list[Tensor]:
    """Few tokens, whose weights the core reads where they lie, and more, for which it packs them:
    [T, N, I] or [N, I]."""
    sizes: list[tuple[int, ...]] = [(2,), (11,)] if kind.endswith("step") else [(1, 2), (7, 3)]
    return [tokens(*size, I) for size in sizes]


def flat(result: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def everything(kind: str, module: Module, leaves: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Results of every way to run: without gradient, with it, and as what is recorded runs.

    Each has values; those with gradient also the gradients of input and leaves.
    """
    found = []
    for x in inputs(kind):
        with torch.no_grad():
            found.append(flat(module(x)))
        for way in (nullcontext(), engines.record()):
            with way:
                parts = flat(module(x))
            found.append([*parts, *gradients(parts, [x, *leaves.values()])])
    return found


DIRECT = [True, True, False] * 2
"""Which of these calls go the shortest way, where all is plain."""


def warm(kind: str, module: Module) -> None:
    """Run in every way, so that whatever would keep something of the weights has it."""
    everything(kind, module, dict(module.named_parameters()))


def wanted(kind: str, weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Values and gradients, by the reference engine, in a layer of its own."""
    twin = made(kind, seed=9)
    own = dict(twin.named_parameters())
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    with engines.use("reference"):
        parts = flat(twin(x))
    return [*parts, *gradients(parts, [x, *(own[name] for name in weights)])]


def check(kind: str, module: Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Every way to run gives the values and gradients of these weights, by default of those that
    the module has now."""
    weights = dict(module.named_parameters()) if weights is None else weights
    found = everything(kind, module, weights)
    for k, x in enumerate(inputs(kind)):
        right = wanted(kind, weights, x)
        count = len(found[3 * k])
        for ours in found[3 * k : 3 * k + 3]:
            for mine, other in zip(ours[:count], right, strict=False):
                close(mine, other, "output")
            for mine, other in zip(ours[count:], right[count:], strict=False):
                close(mine, other, "gradient")
