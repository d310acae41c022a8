"""Writes a sweep as the operator Scan, whose body is one step of the cell's program.

The input product is one matrix product for all steps, before the Scan. With lengths each step
*selects*: after the end of a sequence its state does not change, so that in the reverse direction
the sequence starts at its end, and values in the padding have no effect.
"""

from collections.abc import Sequence

import numpy as np

from unrolled.onnx._exporter.block_diagonal import Product
from unrolled.onnx._exporter.graph import INTEGERS, Body, BodyGraph, Graph, Value
from unrolled.onnx._exporter.pointwise import apply, scalar
from unrolled.onnx._exporter.sequences import Lengths, zeros
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.program._graph import Node, dependencies

_INPUT = -1
"""The number of the input product among the products of a step."""


def scan(
    g: Graph,
    x: Value,
    sweep: Sweep,
    initial_states: Sequence[Value] | None,
    lengths: Lengths | None,
) -> tuple[Value, list[Value]]:
    """Outputs [T, N, width] and final states [N, width] from x [T, N, I] and initial states
    [N, width] (None: zeros)."""
    weight, bias = sweep.matrices[:2]
    assert weight is not None
    input_product = Product.of(g, (weight, bias), sweep.forward.input, sweep, rank=3)
    product = input_product.apply(g, x, f"{sweep.name}_{{}}_input")
    if initial_states is None:
        initial_states = [zeros(g, x, width) for width in sweep.state_widths]
    if g.portable and lengths is None and not _reads_everything(sweep):
        lengths = Lengths.full(g, x)
    body = _Step(g, sweep, lengths is not None).close()
    sequences = [product] if lengths is None else [product, lengths.inside()]
    direction = int(sweep.reverse)
    *final_states, output = g.multi_op(
        "Scan",
        len(initial_states) + 1,
        *initial_states,
        *sequences,
        body=body,
        num_scan_inputs=len(sequences),
        scan_input_directions=[direction] * len(sequences),
        scan_output_directions=[direction],
    )
    return output, final_states


def _reads_everything(sweep: Sweep) -> bool:
    """Whether a step reads its input and all states. tract refuses a body that does not; OpenVINO
    makes one step of a Scan whose body reads no input."""
    leaves = {(node.op, node.key[0]) for node in dependencies(sweep.forward.results) if node.key}
    reads_states = all(("state", k) in leaves for k in range(len(sweep.state_widths)))
    return reads_states and any(op == "x" for op, _ in leaves)


def _step_products(g: Graph, sweep: Sweep) -> list[Product]:
    """The products of a step. Their weights are transposed outside the body: once, not in each
    step."""
    products = []
    for k, matrix in enumerate(sweep.forward.products):
        weight, bias = sweep.matrices[2 * k + 2 : 2 * k + 4]
        assert weight is not None
        products.append(Product.of(g, (weight, bias), matrix, sweep, rank=2))
    return products


class _Step:
    """The body of a Scan: reads states and the input product, returns new states and the output."""

    def __init__(self, outer: Graph, sweep: Sweep, masked: bool) -> None:
        self.sweep = sweep
        self.products = _step_products(outer, sweep)
        self.g: Body = outer.body()
        g = self.g
        self.old_states = [
            g.input("before", g.dtype, [None, width]) for width in sweep.state_widths
        ]
        input_product = sweep.forward.input
        rows = sweep.width(input_product.width) * input_product.parts
        self.input_product = g.input("fed", g.dtype, [None, rows])
        self.mask = g.input("inside", np.dtype(np.bool_), [None, 1]) if masked else None
        self.parts: dict[int, list[Value]] = {}  # of each product
        self.values: dict[int, Value] = {}
        self.truth_values: set[int] = set()
        self.batched: set[int] = set()  # nodes with a row for each sequence
        for node in dependencies(sweep.forward.results):
            self._add(node)

    def close(self) -> BodyGraph:
        """The body as an attribute of the Scan."""
        g = self.g
        new_states = [
            self._new_state(node, old_state)
            for node, old_state in zip(self.sweep.forward.results, self.old_states, strict=True)
        ]
        output = new_states[0]
        if self.mask is not None:
            output = g.op("Where", self.mask, output, scalar(g, 0))
            new_states = [
                g.op("Where", self.mask, new, old)
                for new, old in zip(new_states, self.old_states, strict=True)
            ]
        else:  # each result of a body must be distinct, and none may be an input
            output = g.op("Identity", output)
            new_states = [g.op("Identity", state) for state in new_states]
        widths = self.sweep.state_widths
        shapes = [[None, width] for width in (*widths, widths[0])]
        return g.close([*new_states, output], shapes)

    def _add(self, node: Node) -> None:
        args = [self.values[arg.number] for arg in node.args]
        if node.op in ("x", "state") or any(arg.number in self.batched for arg in node.args):
            self.batched.add(node.number)
        self.values[node.number] = self._value(node, args)

    def _value(self, node: Node, args: list[Value]) -> Value:
        key = node.key[0] if node.key else 0
        match node.op:
            case "const":
                return scalar(self.g, float(key))
            case "size":
                return scalar(self.g, self.sweep.width(str(key)))
            case "vector":
                return self.g.named(self.sweep.vectors[int(key)], f"{self.sweep.name}_vector")
            case "state":
                return self.old_states[int(key)]
            case "x":
                parts = self.sweep.forward.input.parts
                return self._split(_INPUT, self.input_product, parts)[int(key)]
            case "product":
                source = node.args[0].number
                return self._product_parts(int(key), source)[int(node.key[1])]
        masks = [arg.number in self.truth_values for arg in node.args]
        result, is_mask = apply(self.g, node.op, args, masks)
        if is_mask:
            self.truth_values.add(node.number)
        return result

    def _product_parts(self, number: int, source_number: int) -> list[Value]:
        if number not in self.parts:
            product, source = self.products[number], self.values[source_number]
            if product.blocks > 1 and source_number not in self.batched:
                source = self.g.op("Unsqueeze", source, np.array([0], INTEGERS))
            result = product.apply(self.g, source, f"{self.sweep.name}_{{}}_{number}")
            self._split(number, result, product.parts)
        return self.parts[number]

    def _split(self, number: int, product: Value, parts: int) -> list[Value]:
        if number not in self.parts:
            self.parts[number] = (
                [product]
                if parts == 1
                else self.g.multi_op("Split", parts, product, axis=-1, num_outputs=parts)
            )
        return self.parts[number]

    def _new_state(self, node: Node, old_state: Value) -> Value:
        """A new state [N, width], expanded if it is the same for all sequences."""
        value = self.values[node.number]
        if node.number in self.truth_values:
            value = self.g.op("CastLike", value, old_state)
        if node.number in self.batched:
            return value
        return self.g.op("Expand", value, self.g.op("Shape", old_state))
