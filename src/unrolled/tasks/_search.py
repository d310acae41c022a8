"""Greedy and beam search for a target, with a torch model.

The search itself is in ``unrolled.runtime._search``, which exported models use as well.
"""

from collections.abc import Sequence
from typing import Required, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from unrolled.models import EncoderDecoder, Memory
from unrolled.nn.types import HiddenState
from unrolled.runtime import _search as search
from unrolled.runtime._search import Hypothesis


class GreedyOptions(TypedDict, total=False):
    """Options of ``greedy`` in ``unrolled.runtime._search``."""

    begin: Required[int]
    end: Required[int]
    limit: int


class BeamOptions(GreedyOptions, total=False):
    """Options of ``beam`` in ``unrolled.runtime._search``."""

    width: int
    penalty: float


@torch.no_grad()
def greedy(
    model: EncoderDecoder,
    source: Tensor,
    lengths: Tensor | None = None,
    **options: Unpack[GreedyOptions],
) -> list[Hypothesis]:
    """The most likely token at each step, for a batch of sources `[T, N]`.

    Args:
        model: in evaluation mode if it has dropout.
        options: begin, end and limit, see ``unrolled.runtime._search``.

    Raises:
        ValueError: limit is below 1.
    """
    return search.greedy(_Decoder(model, source, lengths), source.shape[1], **options)


@torch.no_grad()
def beam(model: EncoderDecoder, source: Tensor, **options: Unpack[BeamOptions]) -> list[Hypothesis]:
    """The best hypotheses for one source `[T]`, in descending order.

    Args:
        options: begin, end, width, limit and penalty, see ``unrolled.runtime._search``.

    Raises:
        ValueError: width or limit is below 1.
    """
    return search.beam(_Decoder(model, source[:, None], None), **options)


class _Decoder:
    """A model that has encoded sources `[T, N]` and decodes them step by step."""

    def __init__(self, model: EncoderDecoder, source: Tensor, lengths: Tensor | None) -> None:
        self.model, self.device = model, source.device
        self.memory, self.state = model.encode(source, lengths)

    def most_likely(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        best = self._step(tokens, self.memory).max(-1)
        return best.values.tolist(), best.indices.tolist()

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        self.state = _select_rows(self.state, torch.tensor(rows, device=self.device))
        log_probabilities = self._step(tokens, _expand(self.memory, len(tokens)))
        totals = log_probabilities + log_probabilities.new_tensor(scores)[:, None]
        best, indices = totals.flatten().topk(min(count, totals.numel()))
        return best.tolist(), [divmod(index, totals.shape[1]) for index in indices.tolist()]

    def _step(self, tokens: Sequence[int], memory: Memory) -> Tensor:
        """The log probabilities `[N, V]` of the next tokens."""
        inputs = torch.tensor([tokens], device=self.device)
        logits, self.state = self.model.decode(inputs, self.state, memory)
        return torch.log_softmax(logits[0].double(), -1)


def _expand(memory: Memory, N: int) -> Memory:
    return Memory(*(part.expand(-1, N, *part.shape[2:]) for part in memory))


def _select_rows(state: HiddenState, rows: Tensor) -> HiddenState:
    if isinstance(state, Tensor):
        return state.index_select(1, rows)
    return tuple(part.index_select(1, rows) for part in state)
