"""Problems that recurrent networks are compared on, drawn anew as often as wanted.

Each is a function of sizes and a generator of random numbers; models and training are others'.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "MEAN_ERROR",
    "SyntheticProblem",
    "adding",
    "copy_memory",
    "dyck",
    "memoryless_loss",
    "parity",
]

MEAN_ERROR = 1 / 6
"""Mean squared error in the adding problem of who always says 1: the variance of the sum."""


class SyntheticProblem(NamedTuple):
    """Inputs, and what is wanted: at each step, or at the end."""

    inputs: Tensor
    wanted: Tensor


def adding(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """The adding problem (Hochreiter & Schmidhuber 1997, as Bai et al. 2018 pose it).

    Inputs `[T, N, 2]`: a number from U(0, 1), and a mark that is 1 at two steps; wanted `[N]`: the
    sum of the two marked numbers.

    Raises:
        ValueError: T is below 2, or N below 1.
    """
    _check({"T": (T, 2), "N": (N, 1)})
    numbers = torch.rand(T, N, generator=generator)
    places = torch.rand(T, N, generator=generator).topk(2, 0).indices
    marks = torch.zeros(T, N).scatter_(0, places, 1.0)
    return SyntheticProblem(torch.stack([numbers, marks], -1), (numbers * marks).sum(0))


def copy_memory(
    T: int, N: int, generator: torch.Generator | None = None, symbols: int = 10
) -> SyntheticProblem:
    """The copy memory task (Hochreiter & Schmidhuber 1997, as Arjovsky et al. 2016 pose it).

    Inputs `[T + 2·symbols, N]`: ``symbols`` tokens of 1 to 8, T - 1 blanks (0), then
    ``symbols + 1`` times the sign 9 to begin with; wanted, as many steps: blanks, and at the end
    the tokens of the beginning.

    Raises:
        ValueError: a size is below 1.
    """
    _check({"T": (T, 1), "N": (N, 1), "symbols": (symbols, 1)})
    tokens = torch.randint(1, 9, (symbols, N), generator=generator)
    blanks = torch.zeros(T + symbols, N, dtype=torch.int64)
    inputs = torch.cat([tokens, blanks[: T - 1], torch.full((symbols + 1, N), 9)])
    return SyntheticProblem(inputs, torch.cat([blanks, tokens]))


def memoryless_loss(T: int, symbols: int = 10) -> float:
    """Cross-entropy, in nats a step, in `copy_memory` of who knows when but not what: symbols times
    ln 8, over all steps (0.0204 for T = 1000)."""
    return symbols * math.log(8) / (T + 2 * symbols)


def parity(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """Bits `[T, N]`; wanted at each step: whether the ones so far are odd in number."""
    _check({"T": (T, 1), "N": (N, 1)})
    bits = torch.randint(0, 2, (T, N), generator=generator)
    return SyntheticProblem(bits, bits.cumsum(0) % 2)


def dyck(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """Dyck-1: brackets, 0 opens and 1 closes, `[T, N]`, never more closed than opened; wanted at
    each step: whether all are closed, so that the word could end (1) or not (0).

    While something is open each step opens or closes with equal chance.
    """
    _check({"T": (T, 1), "N": (N, 1)})
    coins = torch.randint(0, 2, (T, N), generator=generator)
    depth = torch.zeros(N, dtype=torch.int64)
    words, closed = [], []
    for coin in coins:
        token = coin.where(depth > 0, 0)
        depth = depth + 1 - 2 * token
        words.append(token)
        closed.append((depth == 0).long())
    return SyntheticProblem(torch.stack(words), torch.stack(closed))


def _check(sizes: dict[str, tuple[int, int]]) -> None:
    for name, (size, least) in sizes.items():
        if size < least:
            raise ValueError(f"{name}: wanted at least {least}, got {size}")
