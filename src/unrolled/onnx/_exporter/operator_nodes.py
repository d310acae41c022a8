"""Writes a layer as a standard operator, if its program is that of the operator."""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx._exporter.graph import Graph, Value, concatenate, split_rows, unsqueezed
from unrolled.onnx._exporter.operator_matching import OperatorMatch, match_operator
from unrolled.onnx._exporter.portability import PORTABLE_OPERATORS
from unrolled.onnx._exporter.sequences import Lengths, zeros
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.onnx._gate_orders import GATES, PEEPHOLES

_Blocks = Sequence[Value | None]

_MAX_DENSE_UNITS = 255
"""Up to here the operator with dense matrices is faster than the Scan with blocks
(benchmarks/onnx_heads.py)."""


def operator_of(g: Graph, sweeps: Sequence[Sweep], lengths: Lengths | None) -> OperatorMatch | None:
    """The operator that runs a layer in its directions, or None.

    float64 has none: the operators are defined for it, but ONNX Runtime does not have them. A
    portable graph has no ``sequence_lens``: OpenVINO ignores them where T or N is free, tract
    refuses them. The matrices of an operator are dense: large ones with blocks become a Scan.
    """
    if g.dtype != np.float32 or (g.portable and lengths is not None):
        return None
    if any(sweep.is_block_diagonal and sweep.H > _MAX_DENSE_UNITS for sweep in sweeps):
        return None
    matches = [match_operator(sweep.forward) for sweep in sweeps]
    match = matches[0]
    if match is None or any(other_match != match for other_match in matches):
        return None
    return match if not g.portable or match.operator in PORTABLE_OPERATORS else None


def operator_node(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    match: OperatorMatch,
    initial_states: Sequence[Value] | None,
    lengths: Lengths | None,
) -> tuple[Value, list[Value]]:
    """Outputs [T, D, N, H] and final states [D, N, H] from x [T, N, I] and initial states (None:
    zeros)."""
    op_type, D = match.operator.name, len(sweeps)
    widths = sweeps[0].state_widths
    if (
        initial_states is None and g.portable
    ):  # without them tract has to know N when it loads the file
        initial_states = [zeros(g, x, width, D) for width in widths]
    W, R, B, P = _stacked_weights(g, sweeps, match)
    output, *final_states = g.multi_op(
        op_type,
        1 + len(widths),
        x,
        W,
        R,
        B,
        None if lengths is None else lengths.sequence_lens(),
        *([None] * len(widths) if initial_states is None else initial_states),
        P,
        hidden_size=sweeps[0].H,
        direction="bidirectional" if D == 2 else "reverse" if sweeps[0].reverse else "forward",
        **match.operator.attributes(D),
    )
    if lengths is not None and initial_states is not None:
        # The final state of a sequence without a step is undefined in ONNX; here it is its initial
        # state.
        pairs = zip(initial_states, final_states, strict=True)
        final_states = [g.op("Where", lengths.empty(), start, final) for start, final in pairs]
    return output, final_states


def _stacked_weights(g: Graph, sweeps: Sequence[Sweep], match: OperatorMatch) -> list[Value | None]:
    """W, R, B and P with a first axis of directions; None if absent."""
    directions = [_weights(g, sweep, match) for sweep in sweeps]
    stacked: list[Value | None] = []
    for letter, parts in zip("WRBP", zip(*directions, strict=True), strict=True):
        values = [value for value in parts if value is not None]
        if len(values) < len(parts):
            stacked.append(None)
            continue
        weight = concatenate(g, [unsqueezed(g, value) for value in values])
        stacked.append(g.named(weight, f"{sweeps[0].name}_{letter}"))
    return stacked


def _weights(g: Graph, sweep: Sweep, match: OperatorMatch) -> list[Value | None]:
    """W, R, B and P of one direction in the operator's order; None if absent."""
    H, gates = sweep.H, GATES[match.operator.name][1]
    weights, biases = _blocks(g, sweep)
    input_blocks = [(0, match.input[gate]) if gate in match.input else None for gate in gates]
    recurrent_blocks = [
        (1 + match.recurrent[gate][0], match.recurrent[gate][1])
        if gate in match.recurrent
        else None
        for gate in gates
    ]
    peepholes = [
        sweep.vectors[match.peepholes[gate]] if gate in match.peepholes else None
        for gate in PEEPHOLES
    ]
    return [
        _with_zeros(g, _selected(weights, input_blocks), (H, sweep.I)),
        _with_zeros(g, _selected(weights, recurrent_blocks), (H, H)),
        _with_zeros(g, _selected(biases, [*input_blocks, *recurrent_blocks]), (H,)),
        _with_zeros(g, peepholes, (H,)),
    ]


def _blocks(g: Graph, sweep: Sweep) -> tuple[list[_Blocks], list[_Blocks]]:
    """The blocks of the weight and of the bias of each product; None if it has no bias."""
    weights: list[_Blocks] = []
    biases: list[_Blocks] = []
    for k, product in enumerate((sweep.forward.input, *sweep.forward.products)):
        for blocks, matrix in zip(
            (weights, biases), sweep.matrices[2 * k : 2 * k + 2], strict=True
        ):
            parts = product.parts
            blocks.append([None] * parts if matrix is None else split_rows(g, matrix, parts))
    return weights, biases


def _selected(
    blocks: Sequence[_Blocks], keys: Sequence[tuple[int, int] | None]
) -> list[Value | None]:
    """The blocks with these numbers of product and block."""
    return [None if key is None else blocks[key[0]][key[1]] for key in keys]


def _with_zeros(g: Graph, parts: Sequence[Value | None], shape: tuple[int, ...]) -> Value | None:
    """Concatenate the parts, with zeros for absent ones; None if all are absent."""
    if all(part is None for part in parts):
        return None
    absent = np.zeros(shape, g.dtype)
    return concatenate(g, [absent if part is None else part for part in parts])
