"""Layers as nodes, one above the other: each a standard operator, or a Scan in each direction."""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx import scan, standard
from unrolled.onnx.graph import INTS, Graph, Value, join, lifted
from unrolled.onnx.sweep import Lengths, Sweep

__all__ = ["layer", "stack"]


def stack(
    g: Graph,
    x: Value,
    layers: Sequence[Sequence[Sweep]],
    starts: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str = "concat",
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, ·] and final states [L·D, N, width] from x [T, N, I] and initial states
    [L·D, N, width] (None: zeros)."""
    D = len(layers[0])
    finals = []
    for k, sweeps in enumerate(layers):
        own = starts
        if starts is not None and len(layers) > 1:
            rows = (np.array([k * D], INTS), np.array([k * D + D], INTS), np.array([0], INTS))
            own = [g.op("Slice", state, *rows) for state in starts]
        x, final = layer(g, x, sweeps, own, lengths, merge)
        finals.append(final)
    return x, [join(g, parts) for parts in zip(*finals, strict=True)]


def layer(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    starts: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str = "concat",
) -> tuple[Value, list[Value]]:
    """One layer: as ``stack``, states are [D, N, width]."""
    found = standard.standard_of(g, sweeps)
    if found is None:
        return _scans(g, x, sweeps, starts, lengths, merge)
    output, finals = standard.run(g, x, sweeps, found, starts, lengths)
    if len(sweeps) == 1:
        return g.op("Squeeze", output, np.array([1], INTS)), finals
    if merge == "sum":
        return g.op("ReduceSum", output, np.array([1], INTS), keepdims=0), finals
    rows = g.op("Transpose", output, perm=[0, 2, 1, 3])
    return g.op("Reshape", rows, np.array([0, 0, -1], INTS)), finals


def _scans(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    starts: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str,
) -> tuple[Value, list[Value]]:
    outputs, finals = [], []
    for k, sweep in enumerate(sweeps):
        own = None
        if starts is not None:
            own = [g.op("Gather", state, np.array(k, INTS), axis=0) for state in starts]
        output, final = scan.run(g, x, sweep, own, lengths)
        outputs.append(output)
        finals.append([lifted(g, state) for state in final])
    states = [join(g, parts) for parts in zip(*finals, strict=True)]
    if merge == "sum" and len(outputs) == 2:
        return g.op("Add", *outputs), states
    return join(g, outputs, axis=-1), states
