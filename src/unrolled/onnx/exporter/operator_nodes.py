"""A layer as one of the standard operators, where its program is that of one."""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx.exporter import portability
from unrolled.onnx.exporter.graph import Graph, Value, join, lifted, split
from unrolled.onnx.exporter.recognize import Standard, recognise
from unrolled.onnx.exporter.sweep import Lengths, Sweep, zeros
from unrolled.onnx.gate_orders import GATES, PEEPHOLES

__all__ = ["run", "standard_of"]


def standard_of(
    g: Graph, sweeps: Sequence[Sweep], lengths: Lengths | None = None
) -> Standard | None:
    """The operator that runs a layer in its directions, or None.

    Numbers of float64 go another way: the operators' definition has them, ONNX Runtime has not. A
    portable graph has no ``sequence_lens``: OpenVINO ignores them where T or N is free, tract
    refuses them.
    """
    if g.dtype != np.float32:
        return None
    if g.portable and lengths is not None:
        return None
    first, *others = (recognise(one.forward) for one in sweeps)
    if first is None or any(other != first for other in others):
        return None
    return first if not g.portable or first.operator in portability.OPERATORS else None


def run(
    g: Graph,
    x: Value,
    sweeps: Sequence[Sweep],
    standard: Standard,
    starts: Sequence[Value] | None,
    lengths: Lengths | None,
) -> tuple[Value, list[Value]]:
    """Outputs [T, D, N, H] and final states [D, N, H] from x [T, N, I] and states (None: zeros)."""
    kind, D = standard.operator.kind, len(sweeps)
    if starts is None and g.portable:  # without them tract needs to know N as it loads the file
        starts = [zeros(g, x, width, D) for width in sweeps[0].widths]
    weights = [_weights(g, one, standard) for one in sweeps]
    given: list[Value | None] = [x, *(_stacked(g, parts) for parts in zip(*weights, strict=True))]
    peepholes = given.pop()
    given.append(None if lengths is None else lengths.sequence_lens())
    states = len(sweeps[0].widths)
    given += [None] * states if starts is None else starts
    given.append(peepholes)
    made = g.several(
        kind,
        1 + states,
        *given,
        hidden_size=sweeps[0].H,
        direction="bidirectional" if D == 2 else "reverse" if sweeps[0].reverse else "forward",
        **standard.operator.attributes(D),
    )
    output, final = made[0], made[1:]
    if lengths is not None and starts is not None:
        # The definition leaves open what a sequence without a step ends in; here it is its start.
        pairs = zip(starts, final, strict=True)
        final = [g.op("Where", lengths.empty(), start, end) for start, end in pairs]
    return output, final


def _stacked(g: Graph, parts: Sequence[tuple[Value | None, str]]) -> Value | None:
    """One array of both directions."""
    values = [value for value, _ in parts]
    if any(value is None for value in values):
        return None
    whole = join(g, [lifted(g, value) for value in values])
    return g.named(whole, parts[0][1])


def _weights(g: Graph, sweep: Sweep, standard: Standard) -> list[tuple[Value | None, str]]:
    """W, R, B and P of one direction in the operator's order, with names; None where absent."""
    gates = GATES[standard.operator.kind][1]
    H = sweep.H
    blocks = [
        [None] * matrix.parts if value is None else split(g, value, matrix.parts)
        for matrix, pair in zip(
            (sweep.forward.input, *sweep.forward.products), _pairs(sweep.matrices), strict=True
        )
        for value in pair
    ]
    found: dict[str, list[Value | None]] = {"W": [], "R": [], "Wb": [], "Rb": []}
    for gate in gates:
        at = standard.input.get(gate)
        product, block = standard.recurrent.get(gate, (0, None))
        found["W"].append(None if at is None else blocks[0][at])
        found["Wb"].append(None if at is None else blocks[1][at])
        found["R"].append(None if block is None else blocks[2 + 2 * product][block])
        found["Rb"].append(None if block is None else blocks[3 + 2 * product][block])
    bias = [*found["Wb"], *found["Rb"]]
    peepholes = [
        None if gate not in standard.peepholes else sweep.vectors[standard.peepholes[gate]]
        for gate in PEEPHOLES
    ]
    name = sweep.name
    return [
        (_filled(g, found["W"], (H, sweep.I)), f"{name}_W"),
        (_filled(g, found["R"], (H, H)), f"{name}_R"),
        (_filled(g, bias, (H,)), f"{name}_B"),
        (_filled(g, peepholes, (H,)), f"{name}_P"),
    ]


def _pairs(matrices: Sequence[Value | None]) -> list[tuple[Value | None, Value | None]]:
    return list(zip(matrices[::2], matrices[1::2], strict=True))


def _filled(g: Graph, parts: Sequence[Value | None], shape: tuple[int, ...]) -> Value | None:
    """The parts in a row, zeros for those that are not there; None if none is."""
    if all(part is None for part in parts):
        return None
    zeros = np.zeros(shape, g.dtype)
    return join(g, [zeros if part is None else part for part in parts])
