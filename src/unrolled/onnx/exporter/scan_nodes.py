"""A sweep as the operator Scan: one step of the cell's program is its body.

The input product is one multiplication for all steps, in front. With lengths each step *selects*:
behind the end of a sequence its state stays as it is, so that in the reverse direction it starts at
the end, and what lies in the padding reaches nothing.
"""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx.exporter.graph import INTS, Body, Graph, Value, turned
from unrolled.onnx.exporter.pointwise import apply, number
from unrolled.onnx.exporter.sweep import Lengths, Sweep, zeros
from unrolled.program.graph import Node, dependencies

__all__ = ["run"]

_LAST = np.array([-1], INTS)


def run(
    g: Graph, x: Value, sweep: Sweep, starts: Sequence[Value] | None, lengths: Lengths | None
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, width] and final states [N, width] from x [T, N, I] and states [N, width]
    (None: zeros)."""
    weight, bias = sweep.matrices[:2]
    fed = _product(g, x, turned(g, weight), bias, f"{sweep.name}_{{}}_input")
    if starts is None:
        starts = [zeros(g, x, width) for width in sweep.widths]
    if g.portable and lengths is None and not _reads_all(sweep):
        lengths = Lengths.whole(g, x)
    body = _Step(g, sweep, lengths is not None)
    given = [*starts, fed]
    if lengths is not None:
        given.append(lengths.inside())
    inputs = len(given) - len(starts)
    back = int(sweep.reverse)
    *final, output = g.several(
        "Scan",
        len(starts) + 1,
        *given,
        body=body.attribute,
        num_scan_inputs=inputs,
        scan_input_directions=[back] * inputs,
        scan_output_directions=[back],
    )
    return output, final


def _reads_all(sweep: Sweep) -> bool:
    """Whether a step reads its input and all states. tract refuses a body that does not; OpenVINO
    makes one step of a Scan whose body reads no input."""
    read = {(node.op, node.key[0]) for node in dependencies(sweep.forward.results) if node.key}
    states = all(("state", k) in read for k in range(len(sweep.widths)))
    return states and any(op == "x" for op, _ in read)


def _product(g: Graph, v: Value, turned: Value, bias: Value | None, name: str) -> Value:
    """W v + b of rows v [..., K], from W's transpose; ``name`` has a place for weight or bias."""
    made = g.op("MatMul", v, g.named(turned, name.format("weight")))
    return made if bias is None else g.op("Add", made, g.named(bias, name.format("bias")))


class _Step:
    """The body: states and the input product of a step in, states and output out."""

    def __init__(self, outer: Graph, sweep: Sweep, masked: bool) -> None:
        self.sweep = sweep
        # Transposed weights belong outside, where they are made once and not in each step.
        self.matrices = [
            value if k % 2 or value is None else turned(outer, value)
            for k, value in enumerate(sweep.matrices[2:])
        ]
        self.g: Body = outer.body()
        g, N = self.g, None
        widths = sweep.widths
        self.states = [g.input("before", g.dtype, [N, width]) for width in widths]
        width = sweep.width(sweep.forward.input.width) * sweep.forward.input.parts
        self.fed = g.input("fed", g.dtype, [N, width])
        self.inside = g.input("inside", np.dtype(np.bool_), [N, 1]) if masked else None
        self.blocks: dict[int, list[Value]] = {}
        self.values: dict[int, Value] = {}
        self.masks: set[int] = set()
        self.rows: set[int] = set()  # which nodes have a row for each sequence
        for node in dependencies(sweep.forward.results):
            self._add(node)
        self.attribute = self._close(widths)

    def _add(self, node: Node) -> None:
        args = [self.values[arg.number] for arg in node.args]
        key = node.key[0] if node.key else 0
        if node.op in ("x", "state") or any(a.number in self.rows for a in node.args):
            self.rows.add(node.number)
        self.values[node.number] = self._value(node, key, args)

    def _value(self, node: Node, key: str | float, args: list[Value]) -> Value:
        match node.op:
            case "const":
                return number(self.g, float(key))
            case "size":
                return number(self.g, self.sweep.width(str(key)))
            case "vector":
                return self.g.named(self.sweep.vectors[int(key)], f"{self.sweep.name}_vector")
            case "state":
                return self.states[int(key)]
            case "x":
                return self._split(-1, self.fed, self.sweep.forward.input.parts)[int(key)]
            case "product":
                return self._block(int(key), int(node.key[1]), args[0])
        masks = [arg.number in self.masks for arg in node.args]
        made, mask = apply(self.g, node.op, args, masks)
        if mask:
            self.masks.add(node.number)
        return made

    def _block(self, matrix: int, block: int, source: Value) -> Value:
        if matrix not in self.blocks:
            weight, bias = self.matrices[2 * matrix : 2 * matrix + 2]
            name = f"{self.sweep.name}_{{}}_{matrix}"
            made = _product(self.g, source, weight, bias, name)
            self._split(matrix, made, self.sweep.forward.products[matrix].parts)
        return self.blocks[matrix][block]

    def _split(self, matrix: int, whole: Value, parts: int) -> list[Value]:
        if matrix not in self.blocks:
            self.blocks[matrix] = (
                [whole]
                if parts == 1
                else self.g.several("Split", parts, whole, axis=-1, num_outputs=parts)
            )
        return self.blocks[matrix]

    def _close(self, widths: list[int]) -> object:
        results = []
        for node, before in zip(self.sweep.forward.results, self.states, strict=True):
            results.append(self._result(node, before))
        output = results[0]
        if self.inside is not None:
            output = self.g.op("Where", self.inside, output, number(self.g, 0))
            results = [
                self.g.op("Where", self.inside, new, old)
                for new, old in zip(results, self.states, strict=True)
            ]
        else:  # a body gives each of its results once, and none of its inputs
            output = self.g.op("Identity", output)
            results = [self.g.op("Identity", result) for result in results]
        shapes = [[None, width] for width in (*widths, widths[0])]
        return self.g.close([*results, output], shapes)

    def _result(self, node: Node, before: Value) -> Value:
        """A new state [N, width], also where it is the same for all sequences."""
        value = self.values[node.number]
        if node.number in self.masks:
            value = self.g.op("CastLike", value, before)
        if node.number in self.rows:
            return value
        return self.g.op("Expand", value, self.g.op("Shape", before))
