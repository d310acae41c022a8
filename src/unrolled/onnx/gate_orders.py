"""The order of gates, ours and that of the operators of ONNX: the one place that says it.

Everything is of one direction, as NumPy arrays: W [G·H, I], R [G·H, H], B [2·G·H], P [3·H], each
without the operators' first dimension of directions. Candidates are called g (LSTM; ONNX says c)
and n (GRU; ONNX says h) on both sides.
"""

from collections.abc import Mapping

import numpy as np

__all__ = [
    "GATES",
    "PEEPHOLES",
    "biases_from_onnx",
    "biases_to_onnx",
    "from_onnx",
    "peepholes_from_onnx",
    "peepholes_to_onnx",
    "to_onnx",
]

GATES: dict[str, tuple[str, str]] = {
    "RNN": ("n", "n"),
    "LSTM": ("ifgo", "iofg"),
    "GRU": ("rzn", "zrn"),
}
"""Of each operator: the order of its gates here, and in ONNX."""

PEEPHOLES = "iof"
"""The order of the peepholes in ONNX; here each is a vector of its own, p_i, p_f, p_o."""


def to_onnx(operator: str, rows: np.ndarray) -> np.ndarray:
    """Blocks of rows [G·H, …], a block a gate, from our order to that of the operator."""
    ours, theirs = GATES[operator]
    return _moved(rows, ours, theirs)


def from_onnx(operator: str, rows: np.ndarray) -> np.ndarray:
    """Blocks of rows [G·H, …], a block a gate, from the order of the operator to ours."""
    ours, theirs = GATES[operator]
    return _moved(rows, theirs, ours)


def biases_to_onnx(operator: str, input: np.ndarray, recurrent: np.ndarray) -> np.ndarray:
    """B [2·G·H] from the biases of the input and of the recurrent product, [G·H] each."""
    return np.concatenate([to_onnx(operator, input), to_onnx(operator, recurrent)])


def biases_from_onnx(operator: str, both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The biases of the input and of the recurrent product, [G·H] each, from B [2·G·H]."""
    first, second = np.split(both, 2)
    return from_onnx(operator, first), from_onnx(operator, second)


def peepholes_to_onnx(vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """P [3·H] from p_i, p_f and p_o, [H] each."""
    return np.concatenate([vectors[f"p_{gate}"] for gate in PEEPHOLES])


def peepholes_from_onnx(P: np.ndarray) -> dict[str, np.ndarray]:
    """p_i, p_f and p_o, [H] each, from P [3·H]."""
    return {f"p_{gate}": part for gate, part in zip(PEEPHOLES, np.split(P, 3), strict=True)}


def _moved(rows: np.ndarray, before: str, after: str) -> np.ndarray:
    parts = dict(zip(before, np.split(rows, len(before)), strict=True))
    return np.concatenate([parts[gate] for gate in after])
