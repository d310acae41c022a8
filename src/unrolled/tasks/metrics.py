"""Measures of predictions: classes, forecasts, texts. Entities are measured in `conll`.

What a prediction needs to be better than is in `baselines`.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = [
    "accuracy",
    "bits_per_character",
    "class_counts",
    "edit_distance",
    "error_rate",
    "exact_match",
    "f1_scores",
    "macro_f1",
    "mean_absolute_error",
    "mean_absolute_scaled_error",
    "root_mean_squared_error",
]

IGNORED = -100


# Classes


def class_counts(wanted: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How often each class was wanted, predicted, and both: `[3, classes]`, int64.

    The counts of two batches add to those of both; the other measures of classes take them. They
    need memory for the classes, where a confusion matrix needs it for their square.

    Args:
        wanted: class numbers of any shape; -100 marks what is not measured, such as padding.
        predicted: class numbers of the same shape.

    Raises:
        ValueError: the shapes differ, or a number is not below `classes`.
    """
    if wanted.shape != predicted.shape:
        raise ValueError(
            f"predicted: wanted the shape of wanted {list(wanted.shape)}, "
            f"got {list(predicted.shape)}"
        )
    measured = wanted != IGNORED
    pairs = {"wanted": wanted[measured].long(), "predicted": predicted[measured].long()}
    for name, numbers in pairs.items():
        outside = numbers[(numbers < 0) | (numbers >= classes)]
        if len(outside):
            raise ValueError(f"{name}: wanted classes below {classes}, got {int(outside[0])}")
    right = pairs["wanted"][pairs["wanted"] == pairs["predicted"]]
    return torch.stack([torch.bincount(of, minlength=classes) for of in (*pairs.values(), right)])


def accuracy(counts: Tensor) -> float:
    """The part that was predicted right, in [0, 1]; NaN of nothing."""
    total = int(counts[0].sum())
    return int(counts[2].sum()) / total if total else math.nan


def f1_scores(counts: Tensor) -> Tensor:
    """2 right / (wanted + predicted) of each class, `[classes]`, float64, in [0, 1].

    NaN for a class that was neither wanted nor predicted.
    """
    wanted, predicted, right = counts.double()
    return 2 * right / (wanted + predicted)


def macro_f1(counts: Tensor) -> float:
    """The mean F1 of the classes that were wanted or predicted, in [0, 1]; NaN of nothing."""
    return f1_scores(counts).nanmean().item()


# Forecasts: [K, N] or [K, N, I], K the horizon; a figure for each of its steps


def mean_absolute_error(wanted: Tensor, predicted: Tensor) -> Tensor:
    """mean |y - ŷ| at each step of the horizon, in the data's unit: `[K, N, …]` to `[K]`."""
    return _errors(wanted, predicted).abs().flatten(1).mean(1)


def root_mean_squared_error(wanted: Tensor, predicted: Tensor) -> Tensor:
    """√ mean (y - ŷ)² at each step of the horizon, in the data's unit: `[K, N, …]` to `[K]`."""
    return _errors(wanted, predicted).square().flatten(1).mean(1).sqrt()


def mean_absolute_scaled_error(
    wanted: Tensor, predicted: Tensor, history: Tensor, season: int = 1
) -> Tensor:
    """Absolute errors over those of the seasonal naive forecast, one step, within the history.

    MASE_k = mean |y - ŷ| / mean_t |h_t - h_{t-season}| (Hyndman and Koehler 2006), each variable
    by its own scale. Below 1 is better than repeating the last season was on the history.

    Args:
        wanted: `[K, N]` or `[K, N, I]`.
        predicted: as wanted.
        history: the series trained on, `[T]` or `[T, I]`.
        season: how many steps back the naive forecast looks; 1 repeats the last value.

    Returns:
        `[K]`, 0 or more.

    Raises:
        ValueError: the shapes do not fit, or the history is too short or never changes.
    """
    errors = _errors(wanted, predicted).abs()
    if history.shape[1:] != wanted.shape[2:]:
        raise ValueError(
            f"history: wanted the variables of wanted {list(wanted.shape[2:])}, "
            f"got {list(history.shape[1:])}"
        )
    if not 1 <= season < len(history):
        raise ValueError(f"season: wanted 1 to {len(history) - 1} for the history, got {season}")
    scale = (history[season:] - history[:-season]).double().abs().mean(0)
    if not (scale > 0).all():
        raise ValueError("history: wanted a series that changes from season to season")
    return (errors / scale).flatten(1).mean(1)


def _errors(wanted: Tensor, predicted: Tensor) -> Tensor:
    if wanted.shape != predicted.shape or wanted.dim() < 2:
        raise ValueError(
            f"predicted: wanted [K, N, …] as wanted {list(wanted.shape)}, "
            f"got {list(predicted.shape)}"
        )
    return wanted.double() - predicted.double()


# Texts


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that turn a into b (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
            diagonal, row[j] = row[j], best
    return row[-1]


def error_rate(wanted: Iterable[Sequence[object]], predicted: Iterable[Sequence[object]]) -> float:
    """Edits per wanted symbol, 0 or more, over all pairs: of characters where the pairs are texts,
    of words where they are lists of words. NaN of nothing."""
    edits = symbols = 0
    for true, guess in zip(wanted, predicted, strict=True):
        edits += edit_distance(true, guess)
        symbols += len(true)
    return edits / symbols if symbols else math.nan


def exact_match(wanted: Iterable[object], predicted: Iterable[object]) -> float:
    """The part of the pairs that are equal, in [0, 1]; NaN of nothing."""
    equal = [true == guess for true, guess in zip(wanted, predicted, strict=True)]
    return sum(equal) / len(equal) if equal else math.nan


def bits_per_character(loss: float, characters_per_token: float = 1.0) -> float:
    """A cross-entropy in nats a token as bits a character: loss / (ln 2 · characters a token).

    So models of different vocabularies are compared by the text that they predict.
    """
    return loss / math.log(2) / characters_per_token
