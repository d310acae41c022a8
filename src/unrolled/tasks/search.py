"""Writing a target for each source: the likeliest token at each step, or a beam of hypotheses."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.models import EncoderDecoder, Memory, State

__all__ = ["Hypothesis", "beam", "greedy"]


class Hypothesis(NamedTuple):
    """Tokens without begin and end; the sum of their log probabilities, the end's included."""

    tokens: list[int]
    score: float


@torch.no_grad()
def greedy(
    model: EncoderDecoder,
    source: Tensor,
    lengths: Tensor | None = None,
    *,
    begin: int,
    end: int,
    limit: int = 200,
) -> list[Hypothesis]:
    """The likeliest token at each step, for sources `[T, N]` side by side.

    Args:
        model: in evaluation mode if it has dropout.
        begin, end: tokens that a target starts with and ends with.
        limit: tokens of a target, its end among them, at most; one that has not ended by then is
            handed over as it is.

    Raises:
        ValueError: limit is below 1.
    """
    _check(limit=limit)
    memory, state = model.encode(source, lengths)
    N = source.shape[1]
    tokens = torch.full((1, N), begin, device=source.device)
    alive = torch.ones(N, dtype=torch.bool, device=source.device)
    total = torch.zeros(N, dtype=torch.float64, device=source.device)
    written = []
    for _ in range(limit):
        logits, state = model.decode(tokens, state, memory)
        best = torch.log_softmax(logits[0].double(), -1).max(-1)
        total += best.values.where(alive, 0.0)
        written.append(best.indices.where(alive, end))
        alive = alive & (best.indices != end)
        if not bool(alive.any()):
            break
        tokens = written[-1][None]
    rows = torch.stack(written).t().tolist()
    return [Hypothesis(_cut(row, end), total[n].item()) for n, row in enumerate(rows)]


@torch.no_grad()
def beam(
    model: EncoderDecoder,
    source: Tensor,
    *,
    begin: int,
    end: int,
    width: int = 5,
    limit: int = 200,
    penalty: float = 1.0,
) -> list[Hypothesis]:
    """The best hypotheses for one source `[T]`, the best first; ``width`` are kept at each step.

    Hypotheses are ranked by score / lengthᵖ with p = ``penalty`` (Wu et al. 2016 take 0.6 to 1
    in a like form), where the length counts the end; 0 ranks by the probability alone, which
    favours short ones. It stops once ``width`` have ended and no other would rank above the last
    of these if it ended at once and for nothing; with p = 0 none could later either. What has not
    ended after ``limit`` tokens is ranked as it is. With a width of 1 it is ``greedy``.

    Raises:
        ValueError: width or limit is below 1.
    """
    _check(width=width, limit=limit)
    memory, state = model.encode(source[:, None])
    live = [Hypothesis([], 0.0)]
    finished: list[tuple[float, Hypothesis]] = []
    for length in range(1, limit + 1):
        last = [h.tokens[-1] if h.tokens else begin for h in live]
        tokens = torch.tensor([last], device=source.device)
        logits, state = model.decode(tokens, state, _spread(memory, len(live)))
        chances = torch.log_softmax(logits[0].double(), -1)
        totals = chances + chances.new_tensor([h.score for h in live])[:, None]
        count = min(2 * width, totals.numel())
        scores, places = totals.flatten().topk(count)
        ahead: list[tuple[int, Hypothesis]] = []
        for score, place in zip(scores.tolist(), places.tolist(), strict=True):
            row, token = divmod(place, totals.shape[1])
            if token == end:
                finished.append((score / length**penalty, Hypothesis(live[row].tokens, score)))
            elif len(ahead) < width:
                ahead.append((row, Hypothesis([*live[row].tokens, token], score)))
            if width == 1:
                break
        finished = sorted(finished, key=lambda ranked: -ranked[0])[:width]
        full = len(finished) == width
        if not ahead or (full and finished[-1][0] >= ahead[0][1].score / length**penalty):
            break
        live = [hypothesis for _, hypothesis in ahead]
        state = _chosen(state, torch.tensor([row for row, _ in ahead], device=source.device))
    else:
        finished += [(h.score / limit**penalty, h) for h in live]
    ranked = sorted(finished, key=lambda ranked: -ranked[0])
    return [hypothesis for _, hypothesis in ranked[:width]]


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}: wanted at least 1, got {value}")


def _spread(memory: Memory, N: int) -> Memory:
    return Memory(*(part.expand(-1, N, *part.shape[2:]) for part in memory))


def _chosen(state: State, rows: Tensor) -> State:
    if isinstance(state, Tensor):
        return state.index_select(1, rows)
    return tuple(part.index_select(1, rows) for part in state)


def _cut(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
