"""What a model must beat: predictions without learning, or almost.

Measured by `metrics` and `conll` as the models are.
"""

import lzma
from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from unrolled.tasks.data.conll import Sentence

__all__ = ["FrequentLabels", "majority_class", "persistence", "seasonal_naive", "xz_bits"]


def majority_class(labels: Tensor) -> int:
    """The most frequent of class numbers; of equally frequent ones the smallest.

    Raises:
        ValueError: there are none.
    """
    if not labels.numel():
        raise ValueError("labels: wanted one or more, got none")
    return int(torch.bincount(labels.flatten()).argmax())


class FrequentLabels:
    """Gives each token the label that it had most often, an unknown token the most frequent one.

    Of equally frequent labels the first in the alphabet is taken.

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
            raise ValueError("sentences: wanted one token or more, got none")
        self.labels = {token: _commonest(found) for token, found in counts.items()}
        self.default = _commonest(sum(counts.values(), Counter()))

    def __call__(self, tokens: Iterable[str]) -> list[str]:
        """A label for each token."""
        return [self.labels.get(token, self.default) for token in tokens]


def persistence(window: Tensor, horizon: int) -> Tensor:
    """The last value, over and over: `[T, …]` to `[horizon, …]`."""
    return seasonal_naive(window, horizon, 1)


def seasonal_naive(window: Tensor, horizon: int, season: int) -> Tensor:
    """The last season, over and over: ŷ_{T+k} = y_{T+k-season·m}, m the smallest that is known.

    Args:
        window: `[T, …]`, T at least `season`.

    Returns:
        `[horizon, …]`.

    Raises:
        ValueError: the window is shorter than a season, or an argument is below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon: wanted at least 1, got {horizon}")
    if not 1 <= season <= len(window):
        raise ValueError(f"season: wanted 1 to {len(window)}, the window's length, got {season}")
    return window[len(window) - season + torch.arange(horizon) % season]


def xz_bits(before: bytes, text: bytes) -> tuple[float, float]:
    """Bits a byte of `text` compressed alone, and as what it adds to `before` compressed.

    The sizes are whole .xz files as `xz -9` writes them, headers included.
    """
    alone = len(lzma.compress(text, preset=9))
    added = len(lzma.compress(before + text, preset=9)) - len(lzma.compress(before, preset=9))
    return alone * 8 / len(text), added * 8 / len(text)


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda label: (-counts[label], label))
