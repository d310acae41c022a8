"""Synthetic problems on which recurrent networks are compared.

Each is a function of sizes and a random number generator, and draws a batch.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MEAN_ERROR = 1 / 6
"""Mean squared error in the adding problem of always predicting 1: the variance of the sum."""


class SyntheticProblem(NamedTuple):
    """Inputs, and targets at each step or at the end."""

    inputs: Tensor
    targets: Tensor


def adding(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """The adding problem (Hochreiter & Schmidhuber 1997, as Bai et al. 2018 pose it).

    Inputs `[T, N, 2]`: a number from U(0, 1), and a mark that is 1 at two steps; targets `[N]`: the
    sum of the two marked numbers.

    Raises:
        ValueError: T is below 2, or N below 1.
    """
    _check("adding", {"T": (T, 2), "N": (N, 1)})
    numbers = torch.rand(T, N, generator=generator)
    steps = torch.rand(T, N, generator=generator).topk(2, 0).indices
    marks = torch.zeros(T, N).scatter_(0, steps, 1.0)
    return SyntheticProblem(torch.stack([numbers, marks], -1), (numbers * marks).sum(0))


def copy_memory(
    T: int, N: int, generator: torch.Generator | None = None, symbols: int = 10
) -> SyntheticProblem:
    """The copy memory task (Hochreiter & Schmidhuber 1997, as Arjovsky et al. 2016 pose it).

    Inputs `[T + 2·symbols, N]`: ``symbols`` tokens of 1 to 8, T - 1 blanks (0), then
    ``symbols + 1`` times the token 9, which starts the recall; targets of as many steps: blanks,
    and at the end the first tokens again.

    Raises:
        ValueError: a size is below 1.
    """
    _check("copy_memory", {"T": (T, 1), "N": (N, 1), "symbols": (symbols, 1)})
    tokens = torch.randint(1, 9, (symbols, N), generator=generator)
    blanks = torch.zeros(T + symbols, N, dtype=torch.int64)
    inputs = torch.cat([tokens, blanks[: T - 1], torch.full((symbols + 1, N), 9)])
    return SyntheticProblem(inputs, torch.cat([blanks, tokens]))


def memoryless_loss(T: int, symbols: int = 10) -> float:
    """Cross-entropy in `copy_memory`, in nats per step, of a model that knows when to recall but
    not what: symbols times ln 8, over all steps (0.0204 for T = 1000)."""
    return symbols * math.log(8) / (T + 2 * symbols)


def parity(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """Bits `[T, N]`; target of each step: whether the number of ones so far is odd."""
    _check("parity", {"T": (T, 1), "N": (N, 1)})
    bits = torch.randint(0, 2, (T, N), generator=generator)
    return SyntheticProblem(bits, bits.cumsum(0) % 2)


def dyck(T: int, N: int, generator: torch.Generator | None = None) -> SyntheticProblem:
    """Dyck-1: brackets `[T, N]`, 0 opens and 1 closes, never more closed than opened; target of
    each step: whether all are closed (1) or not (0).

    While a bracket is open, each step opens or closes one with equal probability.
    """
    _check("dyck", {"T": (T, 1), "N": (N, 1)})
    coins = torch.randint(0, 2, (T, N), generator=generator)
    depth = torch.zeros(N, dtype=torch.int64)
    words, closed = [], []
    for coin in coins:
        token = coin.where(depth > 0, 0)
        depth = depth + 1 - 2 * token
        words.append(token)
        closed.append((depth == 0).long())
    return SyntheticProblem(torch.stack(words), torch.stack(closed))


def _check(function: str, sizes: dict[str, tuple[int, int]]) -> None:
    for name, (size, minimum) in sizes.items():
        if size < minimum:
            raise ValueError(f"{function}: {name} must be at least {minimum}, got {size}")
