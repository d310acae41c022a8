"""Layers and steps whose weights the tests change, and all the ways to run them.

The oracle is the reference engine on copies of the weights that no layer has used.
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


def make_module(layer_name: str, seed: int = 0) -> nn.Recurrent | nn.RecurrentCell:
    """A module in float64, whose weights no float32 holds."""
    torch.manual_seed(seed)
    module = MAKERS[layer_name]().double()
    module.reset_parameters()
    return module


def inputs(layer_name: str) -> list[Tensor]:
    """Few tokens, whose weights the core reads where they lie, and more, for which it packs them:
    [T, N, I] or [N, I]."""
    sizes: list[tuple[int, ...]] = (
        [(2,), (11,)] if layer_name.endswith("step") else [(1, 2), (7, 3)]
    )
    return [tokens(*size, I) for size in sizes]


def flat(result: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def everything(layer_name: str, module: Module, leaves: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Results of all ways to run: without gradient, with it, and while runs are recorded.

    Each has values; those with gradient also the gradients of input and leaves.
    """
    results = []
    for x in inputs(layer_name):
        with torch.no_grad():
            results.append(flat(module(x)))
        for context in (nullcontext(), engines.record()):
            with context:
                parts = flat(module(x))
            results.append([*parts, *gradients(parts, [x, *leaves.values()])])
    return results


DIRECT = [True, True, False] * 2
"""Which of these calls take the fast path, where all is plain."""


def warm(layer_name: str, module: Module) -> None:
    """Run in all ways, so that whatever could keep a copy of the weights has one."""
    everything(layer_name, module, dict(module.named_parameters()))


def expected_results(layer_name: str, weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Values and gradients, by the reference engine, in a layer of its own."""
    reference_layer = make_module(layer_name, seed=9)
    parameters = dict(reference_layer.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    with engines.use("reference"):
        parts = flat(reference_layer(x))
    return [*parts, *gradients(parts, [x, *(parameters[name] for name in weights)])]


def check(layer_name: str, module: Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """All ways to run give the values and gradients of these weights, by default of those that
    the module has now."""
    weights = dict(module.named_parameters()) if weights is None else weights
    actual = everything(layer_name, module, weights)
    for k, x in enumerate(inputs(layer_name)):
        right = expected_results(layer_name, weights, x)
        count = len(actual[3 * k])
        for ours in actual[3 * k : 3 * k + 3]:
            for mine, reference in zip(ours[:count], right, strict=False):
                close(mine, reference, "output")
            for mine, reference in zip(ours[count:], right[count:], strict=False):
                close(mine, reference, "gradient")
