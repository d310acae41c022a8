"""Layers that the tests run over: torch's cells and two declared here; random data for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled import engines, nn
from unrolled.cells import Cell, product, sigmoid, tanh, vector


class Peephole(Cell):
    """LSTM whose gates see the memory (Gers & Schmidhuber 2000), and whose output is narrower."""

    gates = ("i", "f", "g", "o")
    states = ("y", "c")
    widths = {"y": 3}  # noqa: RUF012

    out = product(source="H", width=3)
    p_i = vector()
    p_f = vector(init=0.5)
    p_o = vector(1)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        i = sigmoid(x.i + h.i + self.p_i * state.c)
        f = sigmoid(x.f + h.f + self.p_f * state.c)
        c = f * state.c + i * tanh(x.g + h.g)
        o = sigmoid(x.o + h.o + self.p_o * c)
        return self.out(o * tanh(c)), c


class ResetBefore(Cell):
    """GRU as its paper has it: the reset is applied before the candidate's product."""

    gates = ("r", "z", "n")
    recurrent = product("r", "z")
    candidate = product(bias=False)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + self.candidate(r * state.h))
        return (1 - z) * n + z * state.h


def _projected(input_size: int, hidden_size: int, **options: Any) -> nn.Recurrent:
    return nn.LSTM(input_size, hidden_size, proj_size=hidden_size // 2, **options)


def _relu(*args: Any, **options: Any) -> nn.Recurrent:
    return nn.RNN(*args, nonlinearity="relu", **options)


def _peephole(*args: Any, **options: Any) -> nn.Recurrent:
    return nn.Recurrent(Peephole, *args, **options)


def _reset_before(*args: Any, **options: Any) -> nn.Recurrent:
    return nn.Recurrent(ResetBefore, *args, **options)


LAYERS: dict[str, Callable[..., nn.Recurrent]] = {
    "rnn": nn.RNN,
    "relu": _relu,
    "lstm": nn.LSTM,
    "projected": _projected,
    "gru": nn.GRU,
    "peephole": _peephole,
    "reset_before": _reset_before,
}


def _runs() -> list[tuple[str, str]]:
    """Pairs of a cell and an engine that can run it."""
    pairs = []
    for layer_name, make in LAYERS.items():
        refusals = engines.explain(make(2, 3), torch.zeros(1, 1, 2)).refusals
        pairs += [(layer_name, engine) for engine, why in refusals.items() if why is None]
    return pairs


RUNS = _runs()


@dataclass(frozen=True)
class Subject:
    """A cell on an engine."""

    layer_name: str
    engine: str

    def layer(
        self, input_size: int = 3, hidden_size: int = 4, seed: int = 0, **options: Any
    ) -> nn.Recurrent:
        """A layer in float64, with numbers that the seed decides."""
        torch.manual_seed(seed)
        return LAYERS[self.layer_name](input_size, hidden_size, dtype=torch.float64, **options)


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """Random numbers that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def double(*shape: int) -> Tensor:
    """Random numbers in float64, from the global generator."""
    return torch.randn(shape, dtype=torch.float64)


def states(layer: nn.Recurrent, *batch: int, seed: int = 2) -> tuple[Tensor, ...]:
    """Random states of a layer: [L·D, *batch, width] each."""
    LD = layer.spec.num_layers * layer.spec.num_directions
    widths = layer.spec.state_widths
    return tuple(tokens(LD, *batch, width, seed=seed + k) for k, width in enumerate(widths))


def pack(parts: Sequence[Tensor]) -> Any:
    """States as a layer takes them: one alone is not wrapped."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def unpack(hx: Any) -> tuple[Tensor, ...]:
    """States as a tuple, from what a layer returns."""
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def run(layer: nn.Recurrent, input: Any, hx: Any = None, **options: Any) -> tuple[Tensor, ...]:
    """Output and final states, side by side."""
    output, final = layer(input, hx, **options)
    return output, *unpack(final)


def random_like(parts: Sequence[Tensor], seed: int = 3) -> list[Tensor]:
    """Random tensors like these: gradients to start backward from."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parts]


def gradients(
    parts: Sequence[Tensor],
    leaves: Sequence[Tensor],
    output_gradients: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Gradients of leaves, zero where nothing depends on one."""
    return list(
        torch.autograd.grad(
            parts,
            leaves,
            output_gradients or random_like(parts),
            retain_graph=True,
            materialize_grads=True,
        )
    )
