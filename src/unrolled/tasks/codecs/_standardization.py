"""Mean and standard deviation of each column of numeric data, and their check."""

from typing import TypeGuard

import torch
from torch import Tensor


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of values `[n, F]`: two `[F]`, float64.

    The deviation is that of the n values (not n - 1), and 1 for a column that is constant up to
    rounding: where it is at most n eps times the mean, as in scikit-learn's StandardScaler. Values
    are divided by the largest of their column first, so that their squares stay in range.
    """
    values = values.double()
    largest = values.abs().amax(0)
    largest = largest.where(largest > 0, 1.0)
    scaled = values / largest
    mean, deviation = scaled.mean(0), scaled.std(0, correction=0)
    constant = deviation <= len(values) * torch.finfo(torch.float64).eps * mean.abs()
    return mean * largest, (deviation * largest).where(~constant, 1.0)


def check_standardization(mean: object, deviation: object) -> None:
    """Check that a mean and a deviation from a file are `[F]` and finite, the deviation positive.

    Raises:
        ValueError: they are not.
    """
    shape = mean.shape if isinstance(mean, Tensor) else None
    for name, value in (("mean", mean), ("deviation", deviation)):
        if not _is_vector(value) or value.shape != shape:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"codec: {name} must have a number for each column, got {got}")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"codec: {name} must be finite, got {value.tolist()[:5]}")
        if name == "deviation" and not bool((value > 0).all()):
            raise ValueError(f"codec: deviation must be above 0, got {value.tolist()[:5]}")


def _is_vector(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.dim() == 1
