"""Weights of a description as short as the file shall have them."""

from typing import Any

import numpy as np

from unrolled.runtime.short import shortened

__all__ = ["kept_short"]


def kept_short(told: Any, weights: str) -> Any:
    """A description whose matrices are short: those that the core multiplies by. Embeddings,
    biases and vectors stay.
    """
    if isinstance(told, list | tuple):
        return type(told)(kept_short(one, weights) for one in told)
    if not isinstance(told, dict):
        return told
    made = {key: kept_short(value, weights) for key, value in told.items()}
    if told.get("block") == "linear":
        made["weight"] = shortened(told["weight"], weights)
    if "arrays" in told:
        made["arrays"] = [
            shortened(one, weights) if isinstance(one, np.ndarray) and one.ndim == 2 else one
            for one in told["arrays"]
        ]
    return made
