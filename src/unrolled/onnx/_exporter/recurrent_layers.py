"""Writes recurrent layers as nodes: a standard operator, or a Scan for each direction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unrolled.onnx._exporter.block_diagonal import with_dense_matrices
from unrolled.onnx._exporter.graph import INTEGERS, Graph, Value, concatenate, unsqueezed
from unrolled.onnx._exporter.operator_matching import OperatorMatch
from unrolled.onnx._exporter.operator_nodes import operator_node, operator_of
from unrolled.onnx._exporter.scan_nodes import scan
from unrolled.onnx._exporter.sequences import Lengths, reversed_steps
from unrolled.onnx._exporter.sweep import Sweep


def layer_stack(
    g: Graph,
    x: Value,
    layers: Sequence[Sequence[Sweep]],
    initial_states: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str = "concat",
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, ·] and final states [L·D, N, width] from x [T, N, I] and initial states
    [L·D, N, width] (None: zeros)."""
    D = len(layers[0])
    final_states = []
    for k, sweeps in enumerate(layers):
        states = initial_states
        if initial_states is not None and len(layers) > 1:
            start, end = np.array([k * D], INTEGERS), np.array([k * D + D], INTEGERS)
            axis = np.array([0], INTEGERS)
            states = [g.op("Slice", state, start, end, axis) for state in initial_states]
        x, final = layer(g, x, sweeps, states, lengths, merge)
        final_states.append(final)
    return x, [concatenate(g, rows) for rows in zip(*final_states, strict=True)]


def layer(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    initial_states: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str = "concat",
) -> tuple[Value, list[Value]]:
    """One layer: as ``layer_stack``, with states [D, N, width]."""
    match = operator_of(g, sweeps, lengths)
    if match is None:
        return _scans(g, x, sweeps, initial_states, lengths, merge)
    sweeps = [with_dense_matrices(g, sweep) for sweep in sweeps]
    if g.portable:
        return _forward_nodes(g, x, sweeps, match, initial_states, merge)
    output, final_states = operator_node(g, x, sweeps, match, initial_states, lengths)
    if len(sweeps) == 1:
        return g.op("Squeeze", output, np.array([1], INTEGERS)), final_states
    if merge == "sum":
        return g.op("ReduceSum", output, np.array([1], INTEGERS), keepdims=0), final_states
    rows = g.op("Transpose", output, perm=[0, 2, 1, 3])
    return g.op("Reshape", rows, np.array([0, 0, -1], INTEGERS)), final_states


def _scans(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    initial_states: Sequence[Value] | None,
    lengths: Lengths | None,
    merge: str,
) -> tuple[Value, list[Value]]:
    outputs, final_states = [], []
    for k, sweep in enumerate(sweeps):
        states = None
        if initial_states is not None:
            row = np.array(k, INTEGERS)
            states = [g.op("Gather", state, row, axis=0) for state in initial_states]
        output, final = scan(g, x, sweep, states, lengths)
        outputs.append(output)
        final_states.append([unsqueezed(g, state) for state in final])
    return _merged(g, outputs, final_states, merge)


def _forward_nodes(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    match: OperatorMatch,
    initial_states: Sequence[Value] | None,
    merge: str,
) -> tuple[Value, list[Value]]:
    """A node in the forward direction for each sweep; for a reverse sweep over reversed steps.

    tract runs a node in reverse forward; OpenVINO fuses a forward and a reverse node of one x into
    another function where T is fixed and N > 1; tract refuses an LSTM in both directions whose N is
    free and whose initial states are zeros.
    """
    outputs, final_states = [], []
    backward = reversed_steps(g, x) if any(sweep.reverse for sweep in sweeps) else None
    for k, sweep in enumerate(sweeps):
        states = initial_states
        if initial_states is not None and len(sweeps) > 1:
            row = np.array([k], INTEGERS)
            states = [g.op("Gather", state, row, axis=0) for state in initial_states]
        steps = g.op("Gather", x, backward, axis=0) if sweep.reverse else x
        forward = replace(sweep, reverse=False)
        output, final = operator_node(g, steps, [forward], match, states, None)
        output = g.op("Squeeze", output, np.array([1], INTEGERS))
        outputs.append(g.op("Gather", output, backward, axis=0) if sweep.reverse else output)
        final_states.append(final)
    return _merged(g, outputs, final_states, merge)


def _merged(
    g: Graph, outputs: Sequence[Value], final_states: Sequence[Sequence[Value]], merge: str
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, ·] and final states [D, N, width] of directions."""
    states = [concatenate(g, rows) for rows in zip(*final_states, strict=True)]
    if merge == "sum" and len(outputs) == 2:
        return g.op("Add", *outputs), states
    return concatenate(g, outputs, axis=-1), states
