"""ONNX files for the tests: written, loaded into ONNX Runtime, run on random sequences.

What they must do is in the tests.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tests.support.tolerances import close
from unrolled import engines
from unrolled.nn import Recurrent
from unrolled.onnx import export

__all__ = [
    "Batch",
    "check_layer",
    "exported_session",
    "node_counts",
    "randomize",
    "session",
    "with_nan_padding",
]


def randomize(module: nn.Module) -> nn.Module:
    """Draw every parameter at random, also those that are initialized with constants."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.5, 0.5)
    return module


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns about optional inputs
    options.intra_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def exported_session(
    module: nn.Module, folder: Path, **options: Any
) -> onnxruntime.InferenceSession:
    export(module, folder / "model.onnx", **options)
    return session(folder / "model.onnx")


def node_counts(path: Path) -> Counter[str]:
    """The number of nodes of each operator in a file."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@dataclass
class Batch:
    """Random sequences for a layer: x [T, N, I], lengths [N] and states, or None."""

    x: Tensor
    lengths: Tensor | None
    states: tuple[Tensor, ...] | None

    @classmethod
    def of(cls, layer: Recurrent, T: int, N: int, lengths: bool, states: bool) -> "Batch":
        generator = torch.Generator().manual_seed(T * 100 + N)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator) * 2 - 1

        rows = layer.num_layers * layer.spec.num_directions
        ends = torch.tensor([(3 * n + T) % (T + 1) for n in range(N)])
        ends[0] = T
        # Above zero: a cell may divide by its state.
        starts = tuple(draw(rows, N, width).abs() + 0.1 for width in layer.spec.state_widths)
        x = draw(*((N, T) if layer.batch_first else (T, N)), layer.input_size)
        return cls(x, ends if lengths else None, starts if states else None)


def with_nan_padding(x: Tensor, lengths: Tensor, batch_first: bool) -> Tensor:
    """x with NaN behind each sequence's end."""
    rows = x.clone() if batch_first else x.transpose(0, 1).clone()
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[length:] = torch.nan
    return rows if batch_first else rows.transpose(0, 1)


def check_layer(
    layer: Recurrent, run: onnxruntime.InferenceSession, batch: Batch, exact: bool = True
) -> None:
    """A file of a layer gives what the reference gives in float64: outputs and final states.

    Not ``exact``: as far off as twice what the reference is in float32.
    """
    expected = _reference(copy.deepcopy(layer).double(), batch)
    rounded = [None] * len(expected) if exact else _reference(layer, batch)
    x = (
        batch.x
        if batch.lengths is None
        else with_nan_padding(batch.x, batch.lengths, layer.batch_first)
    )
    feed = {"x": x.numpy()}
    if batch.lengths is not None:
        feed["lengths"] = batch.lengths.numpy()
    names = layer.cell.states
    for name, state in zip(names, batch.states or (), strict=False):
        feed[f"{name}_0"] = state.numpy()
    outputs = run.run(["y", *(f"{name}_n" for name in names)], feed)
    for actual, value, rounded_value in zip(outputs, expected, rounded, strict=True):
        close(torch.from_numpy(np.asarray(actual)), value, "output", repr(layer), rounded_value)


def _reference(layer: Recurrent, batch: Batch) -> list[Tensor]:
    dtype = layer.weight_ih_l0.dtype
    states = None if batch.states is None else tuple(state.to(dtype) for state in batch.states)
    if states is not None and len(states) == 1:
        states = states[0]  # type: ignore[assignment]
    with torch.no_grad(), engines.use("reference"):
        y, final = layer(batch.x.to(dtype), states, lengths=batch.lengths)
    return [y, *(final if isinstance(final, tuple) else (final,))]
