"""Writing a target for each source with torch: greedily, or by a beam of hypotheses.

The search itself is ``runtime.search``'s, for models that are in torch and for exported ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.models import EncoderDecoder, Memory
from unrolled.nn.types import HiddenState
from unrolled.runtime import search
from unrolled.runtime.search import Hypothesis

__all__ = ["Hypothesis", "beam", "greedy"]


@torch.no_grad()
def greedy(
    model: EncoderDecoder, source: Tensor, lengths: Tensor | None = None, **options: Any
) -> list[Hypothesis]:
    """The likeliest token at each step, for sources `[T, N]` side by side.

    Args:
        model: in evaluation mode if it has dropout.
        options: begin, end and limit of ``runtime.search.greedy``.

    Raises:
        ValueError: limit is below 1.
    """
    return search.greedy(_Writer(model, source, lengths), source.shape[1], **options)


@torch.no_grad()
def beam(model: EncoderDecoder, source: Tensor, **options: Any) -> list[Hypothesis]:
    """The best hypotheses for one source `[T]`, the best first.

    Args:
        options: begin, end, width, limit and penalty of ``runtime.search.beam``.

    Raises:
        ValueError: width or limit is below 1.
    """
    return search.beam(_Writer(model, source[:, None], None), **options)


class _Writer:
    """An encoder and decoder that has read sources `[T, N]`."""

    def __init__(self, model: EncoderDecoder, source: Tensor, lengths: Tensor | None) -> None:
        self.model, self.device = model, source.device
        self.memory, self.state = model.encode(source, lengths)

    def likeliest(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        best = self._read(tokens, self.memory).max(-1)
        return best.values.tolist(), best.indices.tolist()

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        self.state = _chosen(self.state, torch.tensor(rows, device=self.device))
        chances = self._read(tokens, _spread(self.memory, len(tokens)))
        totals = chances + chances.new_tensor(scores)[:, None]
        found, places = totals.flatten().topk(min(count, totals.numel()))
        return found.tolist(), [divmod(place, totals.shape[1]) for place in places.tolist()]

    def _read(self, tokens: Sequence[int], memory: Memory) -> Tensor:
        given = torch.tensor([tokens], device=self.device)
        logits, self.state = self.model.decode(given, self.state, memory)
        return torch.log_softmax(logits[0].double(), -1)


def _spread(memory: Memory, N: int) -> Memory:
    return Memory(*(part.expand(-1, N, *part.shape[2:]) for part in memory))


def _chosen(state: HiddenState, rows: Tensor) -> HiddenState:
    if isinstance(state, Tensor):
        return state.index_select(1, rows)
    return tuple(part.index_select(1, rows) for part in state)
