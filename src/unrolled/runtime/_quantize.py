"""Quantizes weights for a file in the formats of the core: bfloat16, or int8 with a scale for each
row.

Packing a dequantized weight gives the same bits as packing the weight before it was quantized.
For bfloat16, whose values are a subset of those of float32, this is obvious. For int8 the core
computes s = m / 127 from the largest absolute value m of a row and rounds w / s to q. The file
holds q and m, and w' = q s, except that w' = ±m where q = ±127. No other value is as large, since
126 s < m, so the core computes the same m and s again. w' / s differs from q by two roundings of
2⁻²⁴ each, which is never enough to change q. A matrix with a row whose scale is subnormal, or with
a value that is not finite, remains in float32.
"""

import numpy as np
from numpy.typing import NDArray

from unrolled.runtime._schema import QuantizedWeight

_SMALLEST_NORMAL = np.finfo(np.float32).tiny


def quantize(weight: NDArray[np.float32], weights: str) -> QuantizedWeight | None:
    """A matrix in one of the ``FORMATS``; None if it remains in float32."""
    if weights == "float32" or not np.isfinite(weight).all():
        return None
    return _to_bfloat16(weight) if weights == "bfloat16" else _to_int8(weight)


def _to_bfloat16(weight: NDArray[np.float32]) -> QuantizedWeight:
    """The upper halves of the float32 bits, rounded to nearest, ties to even."""
    bits = weight.view(np.uint32)
    upper = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return QuantizedWeight("bfloat16", upper.astype(np.uint16))


def _to_int8(weight: NDArray[np.float32]) -> QuantizedWeight | None:
    largest = np.abs(weight).max(1)
    scale = largest / np.float32(127)
    if ((scale > 0) & (scale < _SMALLEST_NORMAL)).any() or (scale == 0)[largest > 0].any():
        return None
    ratio = weight / np.where(scale > 0, scale, np.float32(1))[:, None]
    values = np.trunc(ratio + np.copysign(np.float32(0.5), ratio))
    return QuantizedWeight("int8", values.astype(np.int8), largest)


def dequantize(weight: QuantizedWeight) -> NDArray[np.float32]:
    """Convert a quantized matrix to float32."""
    values = weight.values
    if weight.largest is None:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    products = values * (weight.largest / np.float32(127))[:, None]
    is_largest = np.abs(values) == 127
    return np.where(is_largest, np.sign(values) * weight.largest[:, None], products)
