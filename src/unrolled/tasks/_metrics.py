"""Metrics of predictions: classes, forecasts, texts. Those of entities are in `_entities`."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

IGNORED = -100
"""The class number of padding, which is not scored."""


def class_counts(expected: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How often each class was expected, predicted, and both: `[3, classes]`, int64.

    The counts of two batches can be added; the other metrics of classes are computed from them.
    Their memory grows with the classes, where that of a confusion matrix grows with their square.

    Args:
        expected: class numbers of any shape; -100 marks what is not scored, such as padding.
        predicted: class numbers of the same shape.

    Raises:
        ValueError: the shapes differ, or a number is not below `classes`.
    """
    if expected.shape != predicted.shape:
        raise ValueError(
            f"class_counts: predicted must have the shape of expected, {list(expected.shape)}, "
            f"got {list(predicted.shape)}"
        )
    scored = expected != IGNORED
    pairs = {"expected": expected[scored].long(), "predicted": predicted[scored].long()}
    for name, numbers in pairs.items():
        invalid = numbers[(numbers < 0) | (numbers >= classes)]
        if len(invalid):
            raise ValueError(f"class_counts: {name} must be below {classes}, got {int(invalid[0])}")
    correct = pairs["expected"][pairs["expected"] == pairs["predicted"]]
    return torch.stack(
        [torch.bincount(numbers, minlength=classes) for numbers in (*pairs.values(), correct)]
    )


def accuracy(counts: Tensor) -> float:
    """The fraction of correct predictions, in [0, 1]; NaN without any."""
    total = int(counts[0].sum())
    return int(counts[2].sum()) / total if total else math.nan


def f1_scores(counts: Tensor) -> Tensor:
    """2 correct / (expected + predicted) for each class, `[classes]`, float64, in [0, 1].

    NaN for a class that was neither expected nor predicted.
    """
    expected, predicted, correct = counts.double()
    f1: Tensor = 2 * correct / (expected + predicted)
    return f1


def macro_f1(counts: Tensor) -> float:
    """The mean F1 of the classes that were expected or predicted, in [0, 1]; NaN without any."""
    return f1_scores(counts).nanmean().item()


def mean_absolute_error(expected: Tensor, predicted: Tensor) -> Tensor:
    """mean |y - ŷ| at each step of the horizon, in the unit of the data: `[K, N, …]` to `[K]`."""
    return _errors("mean_absolute_error", expected, predicted).abs().flatten(1).mean(1)


def root_mean_squared_error(expected: Tensor, predicted: Tensor) -> Tensor:
    """√ mean (y - ŷ)² at each step of the horizon, in the data's unit: `[K, N, …]` to `[K]`."""
    errors = _errors("root_mean_squared_error", expected, predicted)
    return errors.square().flatten(1).mean(1).sqrt()


def mean_absolute_scaled_error(
    expected: Tensor, predicted: Tensor, history: Tensor, season: int = 1
) -> Tensor:
    """Absolute errors relative to those of one-step seasonal naive forecasts within the history.

    MASE_k = mean |y - ŷ| / mean_t |h_t - h_{t-season}| (Hyndman and Koehler 2006), with a scale for
    each variable. Below 1 is better than repeating the previous season was on the history.

    Args:
        expected: `[K, N]` or `[K, N, I]`.
        predicted: of the same shape.
        history: the training part of the series, `[T]` or `[T, I]`.
        season: steps of a season; 1 repeats the last value.

    Returns:
        `[K]`, 0 or more.

    Raises:
        ValueError: the shapes do not match, or the history is too short or never changes.
    """
    name = "mean_absolute_scaled_error"
    errors = _errors(name, expected, predicted).abs()
    if history.shape[1:] != expected.shape[2:]:
        raise ValueError(
            f"{name}: history must have the variables of expected, {list(expected.shape[2:])}, "
            f"got {list(history.shape[1:])}"
        )
    if not 1 <= season < len(history):
        raise ValueError(f"{name}: season must be from 1 to {len(history) - 1}, got {season}")
    scale = (history[season:] - history[:-season]).double().abs().mean(0)
    if not (scale > 0).all():
        raise ValueError(f"{name}: history must change from season to season, got a constant one")
    return (errors / scale).flatten(1).mean(1)


def _errors(function: str, expected: Tensor, predicted: Tensor) -> Tensor:
    if expected.shape != predicted.shape or expected.dim() < 2:
        raise ValueError(
            f"{function}: predicted must have the shape [K, N, …] of expected, "
            f"{list(expected.shape)}, got {list(predicted.shape)}"
        )
    return expected.double() - predicted.double()


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that turn a into b (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
            diagonal, row[j] = row[j], best
    return row[-1]


def error_rate(
    expected: Iterable[Sequence[object]], predicted: Iterable[Sequence[object]]
) -> float:
    """Edits per expected symbol over all pairs, 0 or more: the character error rate of texts, the
    word error rate of lists of words. NaN without any symbol."""
    edits = symbols = 0
    for reference, prediction in zip(expected, predicted, strict=True):
        edits += edit_distance(reference, prediction)
        symbols += len(reference)
    return edits / symbols if symbols else math.nan


def bits_per_character(loss: float, characters_per_token: float = 1.0) -> float:
    """A cross-entropy in nats per token as bits per character: loss / (ln 2 · characters/token).

    It compares models with different vocabularies.
    """
    return loss / math.log(2) / characters_per_token
