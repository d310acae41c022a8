"""Writing a target: the likeliest token at each step, or a beam of hypotheses.

How a model reads tokens, and in which arrays, is its ``Writer``'s: torch's is in ``tasks.search``.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Hypothesis", "Writer", "beam", "greedy"]


class Hypothesis(NamedTuple):
    """Tokens without begin and end; the sum of their log probabilities, the end's included."""

    tokens: list[int]
    score: float


class Writer(Protocol):
    """A model that has read its sources and writes, row by row of a batch."""

    def likeliest(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        """Read a token in each row: the log probability of each row's best follower, and which."""

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        """Read a token in each row, which goes on from the row of that number.

        Returns:
            The highest sums of a row's score and a follower's log probability, falling, ``count``
            of them or all; and row and follower of each.
        """


def greedy(
    writer: Writer, rows: int, *, begin: int, end: int, limit: int = 200
) -> list[Hypothesis]:
    """The likeliest token at each step, for so many rows side by side.

    Args:
        begin, end: tokens that a target starts with and ends with.
        limit: tokens of a target, its end among them, at most; one that has not ended by then is
            handed over as it is.

    Raises:
        ValueError: limit is below 1.
    """
    _check(limit=limit)
    tokens = [begin] * rows
    written: list[list[int]] = [[] for _ in range(rows)]
    total = [0.0] * rows
    alive = set(range(rows))
    for _ in range(limit):
        chances, found = writer.likeliest(tokens)
        tokens = [found[n] if n in alive else end for n in range(rows)]
        for n in sorted(alive):
            total[n] += chances[n]
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
    """The best hypotheses for one source, the best first; ``width`` are kept at each step.

    Hypotheses are ranked by score / lengthᵖ with p = ``penalty`` (Wu et al. 2016 take 0.6 to 1
    in a like form), where the length counts the end; 0 ranks by the probability alone, which
    favours short ones. It stops once ``width`` have ended and no other would rank above the last
    of these if it ended at once and for nothing; with p = 0 none could later either. What has not
    ended after ``limit`` tokens is ranked as it is. With a width of 1 it is ``greedy``.

    Raises:
        ValueError: width or limit is below 1.
    """
    _check(width=width, limit=limit)
    live = [Hypothesis([], 0.0)]
    rows = [0]
    finished: list[tuple[float, Hypothesis]] = []
    for length in range(1, limit + 1):
        last = [h.tokens[-1] if h.tokens else begin for h in live]
        best = writer.best(last, rows, [h.score for h in live], 2 * width)
        ahead: list[tuple[int, Hypothesis]] = []
        for score, (row, token) in zip(*best, strict=True):
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
        rows = [row for row, _ in ahead]
        live = [hypothesis for _, hypothesis in ahead]
    else:
        finished += [(h.score / limit**penalty, h) for h in live]
    ranked = sorted(finished, key=lambda ranked: -ranked[0])
    return [hypothesis for _, hypothesis in ranked[:width]]


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}: wanted at least 1, got {value}")
