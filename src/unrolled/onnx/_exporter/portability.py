"""Checks whether a chain can be written so that ONNX Runtime, OpenVINO and tract compute it alike.

The nodes are written by ``recurrent_layers`` and ``scan_nodes``; the versions of the runtimes are
in docs/onnx-runtimes.md.
"""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx._operator_cells import Operator
from unrolled.runtime._schema import Block, RecurrentBlock, WordsBlock

PORTABLE_OPERATORS = frozenset(
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


def refusal(blocks: Sequence[Block], states: bool) -> str | None:
    """Why a chain cannot be written for all three runtimes, or None if it can."""
    recurrent = [block for block in blocks if isinstance(block, RecurrentBlock)]
    if states and any(block.start is not None for block in recurrent):
        return (
            "the learned initial state would be lost, as OpenVINO and tract do not support "
            "optional inputs; export with states=False"
        )
    if any(isinstance(block, WordsBlock) for block in blocks):
        return "tract cannot reshape words that are read by their characters to [T, N]"
    weights = [block.layers[0][0].arrays[0] for block in recurrent]
    if any(weight is not None and weight.dtype == np.float64 for weight in weights):
        return NO_FLOAT64
    return None
