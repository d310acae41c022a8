"""Greedy search and beam search for a target sequence.

A ``Writer`` runs a model on tokens; ``unrolled.tasks._search`` has one for models in torch.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Hypothesis(NamedTuple):
    """Tokens without begin and end, and the sum of their log probabilities, including the end."""

    tokens: list[int]
    score: float


class Writer(Protocol):
    """A model that has read its sources, and writes a target in each row of a batch."""

    def most_likely(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        """Read a token in each row; returns the log probability of the most likely next token of
        each row, and that token."""

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        """Read a token in each row; row n continues the previous row ``rows[n]``.

        Returns:
            The ``count`` highest sums of a row's score and the log probability of a next token,
            in descending order, with the row and the next token of each.
        """


def greedy(
    writer: Writer, rows: int, *, begin: int, end: int, limit: int = 200
) -> list[Hypothesis]:
    """Greedy search: the most likely token at each step, for a batch of ``rows`` sources.

    Args:
        begin, end: tokens that a target starts with and ends with.
        limit: the maximum number of tokens of a target, including the end; a target that has not
            ended by then is returned without an end.

    Raises:
        ValueError: limit is below 1.
    """
    _check_positive("greedy", limit=limit)
    tokens = [begin] * rows
    written: list[list[int]] = [[] for _ in range(rows)]
    total = [0.0] * rows
    alive = set(range(rows))
    for _ in range(limit):
        log_probabilities, most_likely = writer.most_likely(tokens)
        tokens = [most_likely[n] if n in alive else end for n in range(rows)]
        for n in sorted(alive):
            total[n] += log_probabilities[n]
            if tokens[n] == end:
                alive.remove(n)
            else:
                written[n].append(tokens[n])
        if not alive:
            break
    return [Hypothesis(*pair) for pair in zip(written, total, strict=True)]


def beam(
    writer: Writer,
    *,
    begin: int,
    end: int,
    width: int = 5,
    limit: int = 200,
    penalty: float = 1.0,
) -> list[Hypothesis]:
    """Beam search: the best hypotheses for one source, in descending order; each step continues
    ``width`` of them.

    Hypotheses are ranked by score / lengthᵖ with p = ``penalty`` (Wu et al. 2016 use 0.6 to 1 in a
    similar form), where the length includes the end; p = 0 ranks by probability alone, which favors
    short hypotheses. The search stops once ``width`` hypotheses have ended and no other hypothesis
    would rank above the worst of these if it ended now with probability 1; with p = 0 none could
    later either. Hypotheses that have not ended after ``limit`` tokens are ranked without an end. A
    width of 1 gives the result of ``greedy``.

    Raises:
        ValueError: width or limit is below 1.
    """
    _check_positive("beam", width=width, limit=limit)
    live = [Hypothesis([], 0.0)]
    rows = [0]
    finished: list[tuple[float, Hypothesis]] = []
    for length in range(1, limit + 1):
        newest = [h.tokens[-1] if h.tokens else begin for h in live]
        best = writer.best(newest, rows, [h.score for h in live], 2 * width)
        candidates: list[tuple[int, Hypothesis]] = []
        for score, (row, token) in zip(*best, strict=True):
            if token == end:
                finished.append((score / length**penalty, Hypothesis(live[row].tokens, score)))
            elif len(candidates) < width:
                candidates.append((row, Hypothesis([*live[row].tokens, token], score)))
            if width == 1:
                break
        finished = sorted(finished, key=lambda ranked: -ranked[0])[:width]
        full = len(finished) == width
        if not candidates or (full and finished[-1][0] >= candidates[0][1].score / length**penalty):
            break
        rows = [row for row, _ in candidates]
        live = [hypothesis for _, hypothesis in candidates]
    else:
        finished += [(h.score / limit**penalty, h) for h in live]
    ranked = sorted(finished, key=lambda ranked: -ranked[0])
    return [hypothesis for _, hypothesis in ranked[:width]]


def _check_positive(function: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{function}: {name} must be at least 1, got {value}")
