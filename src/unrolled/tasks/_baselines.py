"""Baselines that a model must beat: predictions with little or no learning.

They are scored by the same metrics as models.
"""

import lzma
from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from unrolled.tasks.data._conll import Sentence


def majority_class(labels: Tensor) -> int:
    """The most frequent class number; of equally frequent ones the smallest.

    Raises:
        ValueError: there are no labels.
    """
    if not labels.numel():
        raise ValueError("majority_class: labels must not be empty, got none")
    return int(torch.bincount(labels.flatten()).argmax())


class FrequentLabels:
    """Gives each token its most frequent label, and unknown tokens the most frequent of all.

    Of equally frequent labels the alphabetically smallest is taken.

    Args:
        sentences: tokens with their labels.

    Raises:
        ValueError: there are no tokens.
    """

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            for token, label in zip(sentence.tokens, sentence.labels, strict=True):
                counts[token][label] += 1
        if not counts:
            raise ValueError("FrequentLabels: sentences must have at least one token, got none")
        self.labels = {token: _most_frequent(labels) for token, labels in counts.items()}
        self.default = _most_frequent(sum(counts.values(), Counter()))

    def __call__(self, tokens: Iterable[str]) -> list[str]:
        """A label for each token."""
        return [self.labels.get(token, self.default) for token in tokens]


def persistence(window: Tensor, horizon: int) -> Tensor:
    """Repeat the last value: `[T, …]` to `[horizon, …]`."""
    return seasonal_naive(window, horizon, 1)


def seasonal_naive(window: Tensor, horizon: int, season: int) -> Tensor:
    """Repeat the last season: ŷ_{T+k} = y_{T+k-season·m} with the smallest m that lies in the past.

    Args:
        window: `[T, …]`, T at least `season`.

    Returns:
        `[horizon, …]`.

    Raises:
        ValueError: the window is shorter than a season, or an argument is below 1.
    """
    if horizon < 1:
        raise ValueError(f"seasonal_naive: horizon must be at least 1, got {horizon}")
    if not 1 <= season <= len(window):
        raise ValueError(
            f"seasonal_naive: season must be from 1 to {len(window)}, the window's length, "
            f"got {season}"
        )
    return window[len(window) - season + torch.arange(horizon) % season]


def xz_bits(history: bytes, text: bytes) -> tuple[float, float]:
    """Bits per byte of `text`: compressed alone, and by the size that it adds to `history`.

    Sizes are those of whole .xz files as `xz -9` writes them, headers included.
    """
    alone = len(lzma.compress(text, preset=9))
    added = len(lzma.compress(history + text, preset=9)) - len(lzma.compress(history, preset=9))
    return alone * 8 / len(text), added * 8 / len(text)


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda label: (-counts[label], label))
