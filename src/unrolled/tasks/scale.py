"""The scale of numeric data, mean and deviation of each column, as a file may hold it.

Who uses a scale applies it; here it is only held to what it must be.
"""

from typing import Any

from torch import Tensor

__all__ = ["check_scale"]


def check_scale(mean: Any, deviation: Any) -> None:
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
