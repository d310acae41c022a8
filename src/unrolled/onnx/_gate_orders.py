"""The order of gates in our layers and in ONNX's operators, and conversions between them.

All arrays are NumPy arrays of one direction: W [G·H, I], R [G·H, H], B [2·G·H], P [3·H], each
without the operators' first dimension of directions. Candidates are called g (LSTM; c in ONNX) and
n (GRU; h in ONNX) on both sides.
"""

import numpy as np

GATES: dict[str, tuple[str, str]] = {
    "RNN": ("n", "n"),
    "LSTM": ("ifgo", "iofg"),
    "GRU": ("rzn", "zrn"),
}
"""For each operator the order of its gates in our layers, and in ONNX."""

PEEPHOLES = "iof"
"""The order of the peepholes in ONNX; in our cells each is a vector: p_i, p_f, p_o."""


def from_onnx(operator: str, rows: np.ndarray) -> np.ndarray:
    """Blocks of rows [G·H, …], one for each gate, from the operator's order to ours."""
    our_order, onnx_order = GATES[operator]
    return _reordered(rows, onnx_order, our_order)


def biases_from_onnx(operator: str, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The biases of the input product and of the recurrent product, [G·H] each, from B [2·G·H]."""
    input_bias, recurrent_bias = np.split(B, 2)
    return from_onnx(operator, input_bias), from_onnx(operator, recurrent_bias)


def peepholes_from_onnx(P: np.ndarray) -> dict[str, np.ndarray]:
    """p_i, p_f and p_o, [H] each, from P [3·H]."""
    return {f"p_{gate}": part for gate, part in zip(PEEPHOLES, np.split(P, 3), strict=True)}


def _reordered(rows: np.ndarray, old_order: str, new_order: str) -> np.ndarray:
    blocks = dict(zip(old_order, np.split(rows, len(old_order)), strict=True))
    return np.concatenate([blocks[gate] for gate in new_order])
