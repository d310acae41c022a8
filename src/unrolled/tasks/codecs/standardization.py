"""The scale of numeric data, mean and deviation of each column, as a file may hold it.

Who uses a scale applies it; here it is only held to what it must be.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_standardization", "mean_and_deviation"]


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column of values `[n, F]`: two `[F]`, float64.

    The deviation is that of the n values (not n - 1), and 1 for a column that is constant but for
    rounding: where it is at most n eps times the mean, as in scikit-learn's StandardScaler. Values
    are divided by the largest of their column on the way, so that squares stay in range.
    """
    values = values.double()
    largest = values.abs().amax(0)
    largest = largest.where(largest > 0, 1.0)
    parts = values / largest
    mean, deviation = parts.mean(0), parts.std(0, correction=0)
    constant = deviation <= len(values) * torch.finfo(torch.float64).eps * mean.abs()
    return mean * largest, (deviation * largest).where(~constant, 1.0)


def check_standardization(mean: Any, deviation: Any) -> None:
    """Hold a mean and a deviation `[F]` to finite numbers, the deviation above 0.

    Raises:
        ValueError: they are not.
    """
    for name, value in (("mean", mean), ("deviation", deviation)):
        if not isinstance(value, Tensor) or value.dim() != 1 or value.shape != mean.shape:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name}: wanted a number for each column, got {got}")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"{name}: wanted finite numbers, got {value.tolist()[:5]}")
    if not bool((deviation > 0).all()):
        raise ValueError(f"deviation: wanted numbers above 0, got {deviation.tolist()[:5]}")
