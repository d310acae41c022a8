"""Layers as nodes, one above the other: each a standard operator, or a node in each direction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unrolled.onnx.exporter import operator_nodes, scan_nodes
from unrolled.onnx.exporter.graph import INTS, Graph, Value, join, lifted
from unrolled.onnx.exporter.recognize import Standard
from unrolled.onnx.exporter.sweep import Lengths, Sweep, reversed_steps

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
    found = operator_nodes.standard_of(g, sweeps, lengths)
    if found is None:
        return _scans(g, x, sweeps, starts, lengths, merge)
    if g.portable:
        return _forward_nodes(g, x, sweeps, found, starts, merge)
    output, finals = operator_nodes.run(g, x, sweeps, found, starts, lengths)
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
        output, final = scan_nodes.run(g, x, sweep, own, lengths)
        outputs.append(output)
        finals.append([lifted(g, state) for state in final])
    return _merged(g, outputs, finals, merge)


def _forward_nodes(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    operator: Standard,
    starts: Sequence[Value] | None,
    merge: str,
) -> tuple[Value, list[Value]]:
    """A node in the forward direction for each sweep, over reversed steps where that is reverse.

    tract runs a node in reverse forward; OpenVINO fuses a forward and a reverse node of one x into
    another function where T is fixed and N > 1; tract refuses an LSTM in both directions whose N is
    free and whose initial states are zeros.
    """
    outputs, finals = [], []
    backward = reversed_steps(g, x) if any(sweep.reverse for sweep in sweeps) else None
    for k, sweep in enumerate(sweeps):
        own = starts
        if starts is not None and len(sweeps) > 1:
            own = [g.op("Gather", state, np.array([k], INTS), axis=0) for state in starts]
        steps = g.op("Gather", x, backward, axis=0) if sweep.reverse else x
        forward = replace(sweep, reverse=False)
        output, final = operator_nodes.run(g, steps, [forward], operator, own, None)
        output = g.op("Squeeze", output, np.array([1], INTS))
        outputs.append(g.op("Gather", output, backward, axis=0) if sweep.reverse else output)
        finals.append(final)
    return _merged(g, outputs, finals, merge)


def _merged(
    g: Graph, outputs: Sequence[Value], finals: Sequence[Sequence[Value]], merge: str
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, ·] and final states [D, N, width] of directions."""
    states = [join(g, parts) for parts in zip(*finals, strict=True)]
    if merge == "sum" and len(outputs) == 2:
        return g.op("Add", *outputs), states
    return join(g, outputs, axis=-1), states
