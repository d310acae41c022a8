"""Weights in a file as short as the core keeps them: int8 with a scale for each row, or bfloat16.

What is widened is packed to the very bits that were packed from the weights before they were
shortened. bfloat16 is a part of float32. For int8 the core takes s = m / 127 of a row's largest
size m and rounds w / s to q. The file has q and m; widened, w' is q s, but m where q is 127. No
other is as large, since 126 s < m, so m comes out again and with it s; and w' / s is q but for two
roundings of 2⁻²⁴ each, which no step of q is near to. Rows whose scale is subnormal or no number
are left out of this, and their weight stays float32.
"""

from typing import Any

import numpy as np

__all__ = ["shortened", "widened"]

_SMALLEST = np.finfo(np.float32).tiny


def shortened(weight: np.ndarray, weights: str) -> np.ndarray | dict[str, Any]:
    """A weight [rows, columns] in float32 as the file has it."""
    if weights == "float32" or not np.isfinite(weight).all():
        return weight
    made = _bfloat16(weight) if weights == "bfloat16" else _int8(weight)
    return weight if made is None else made


def _bfloat16(weight: np.ndarray) -> dict[str, Any]:
    """The upper halves of the bits, rounded to the nearest, of two as near to the even one."""
    bits = weight.view(np.uint32)
    upper = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return {"kept": "bfloat16", "values": upper.astype(np.uint16)}


def _int8(weight: np.ndarray) -> dict[str, Any] | None:
    largest = np.abs(weight).max(1)
    scale = largest / np.float32(127)
    if ((scale > 0) & (scale < _SMALLEST)).any() or (scale == 0)[largest > 0].any():
        return None
    ratio = weight / np.where(scale > 0, scale, np.float32(1))[:, None]
    values = np.trunc(ratio + np.copysign(np.float32(0.5), ratio))
    return {"kept": "int8", "values": values.astype(np.int8), "largest": largest}


def widened(told: dict[str, Any]) -> np.ndarray:
    """A weight in float32.

    Raises:
        one of ``unrolled.io.DAMAGE``: it is none that ``shortened`` made.
    """
    values = told["values"]
    kept = told["kept"]
    dtype = {"int8": np.int8, "bfloat16": np.uint16}.get(kept)
    if dtype is None:
        raise ValueError(f"weight: kept as {kept!r}, wanted int8 or bfloat16")
    if not isinstance(values, np.ndarray) or values.dtype != dtype or values.ndim != 2:
        raise TypeError(f"weight: wanted values of {kept}, [rows, columns]")
    if kept == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    largest = told["largest"]
    if not isinstance(largest, np.ndarray) or largest.dtype != np.float32:
        raise TypeError("weight: wanted the largest of each row in float32")
    if largest.shape != values.shape[:1] or not np.isfinite(largest).all() or largest.min() < 0:
        raise ValueError("weight: wanted the largest of each row, 0 or above")
    wide = values * (largest / np.float32(127))[:, None]
    return np.where(np.abs(values) == 127, np.sign(values) * largest[:, None], wide)
