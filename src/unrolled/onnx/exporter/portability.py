"""What ONNX Runtime, OpenVINO and tract compute alike, and what of a model they do not.

How the rest is written for all three is said where nodes are made (``stack``, ``scan``); versions
are in docs/onnx-runtimes.md.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.onnx.operator_cells import Operator

__all__ = ["NO_FLOAT64", "OPERATORS", "refusal"]

OPERATORS = frozenset(
    {
        Operator("RNN"),
        Operator("LSTM"),
        Operator("GRU"),
        Operator("GRU", linear_before_reset=True),
    }
)
"""tract ignores activation functions, clip and input_forget; OpenVINO ignores peepholes,
input_forget and the functions of the second direction."""

NO_FLOAT64 = (
    "OpenVINO computes float64 in float32, and tract has no Sigmoid in float64; export "
    "module.float()"
)


def refusal(blocks: Sequence[dict[str, Any]], states: bool) -> str | None:
    """Why a chain cannot be written for all three, or None if it can."""
    layers = [block for block in blocks if block["block"] == "recurrent"]
    if states and any(layer["start"] is not None for layer in layers):
        return (
            "the learned initial state would be lost, as OpenVINO and tract know no inputs that "
            "may be left out; export with states=False"
        )
    if any(block["block"] == "words" for block in blocks):
        return "tract cannot arrange words that are read by their characters as [T, N]"
    if any(layer["layers"][0][0]["arrays"][0].dtype == np.float64 for layer in layers):
        return NO_FLOAT64
    return None
