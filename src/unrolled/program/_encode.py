"""Encodes a program as text, with stable codes, for the native core and for files.

The text holds all that is needed to run it without Python: states, parameters, the nodes of forward
and backward, the vectors that forward stores. The number of a node is its position in the text.
"""

from unrolled.program._graph import Node, dependencies
from unrolled.program._operations import OPERATIONS
from unrolled.program._program import Program

VERSION = 2
"""The version of the text; readers refuse later ones. Version 2 added block-diagonal products. A
program without them is written as version 1, so that older versions of the library can read it.
"""


def encode(program: Program) -> str:
    """The program's text.

    Lines: a header; ``state``, ``vector``, ``input`` and ``product`` declarations in their order;
    a line for each node; then the results: ``forward`` (new states), ``stored``, ``source`` (the
    vector that each product multiplies) and the gradients, ``-`` for a zero gradient.
    The declaration of a block-diagonal product ends with the number of its blocks. Products that
    the step does not use are left out: their weights have no effect.
    """
    traced, derived = program.traced, program.derivative
    sources = program.sources
    outputs = [*traced.states, *derived.outputs, *program.saving.stored, *sources.values()]
    nodes = dependencies(outputs)
    number = {node.number: k for k, node in enumerate(nodes)}
    names = _Names(program)

    def at(node: Node | None) -> str:
        return "-" if node is None else str(number[node.number])

    products = [traced.products[key] for key in ("input", *names.products)]
    blocks = [f" {p.blocks}" if p.blocks > 1 else "" for p in products]
    lines = [f"unrolled-program {VERSION if any(blocks) else 1}"]
    lines += [f"state {names.width(node.width)}" for node in program.state_leaves]
    lines += [f"vector {names.width(v.size)}" for v in traced.cell.vectors.values()]
    lines.append(f"input {products[0].parts} {names.width(products[0].width)}{blocks[0]}")
    for p, suffix in zip(products[1:], blocks[1:], strict=True):
        sizes = f"{names.width(p.width)} {names.width(p.source)}"
        lines.append(f"product {p.parts} {sizes}{suffix}")
    lines += [f"node {names.node(node, number)}" for node in nodes]
    lines.append("forward " + " ".join(at(node) for node in traced.states))
    lines.append(" ".join(["stored", *(at(node) for node in program.saving.stored)]))
    lines.append(" ".join(["source", *(at(sources.get(key)) for key in names.products)]))
    lines.append(" ".join(["dx", *(at(derived.x.get(name)) for name in names.x)]))
    for key in names.products:
        parts = range(traced.products[key].parts)
        gradients = (derived.products.get((key, k)) for k in parts)
        lines.append(" ".join(["dproduct", *map(at, gradients)]))
    lines.append(" ".join(["dstate", *(at(derived.states.get(s)) for s in traced.cell.states)]))
    lines.append(" ".join(["dvector", *(at(derived.vectors.get(v)) for v in traced.cell.vectors)]))
    return "\n".join(lines) + "\n"


def used_products(program: Program) -> list[str]:
    """The products in a program's text, in its order: ``input`` is first."""
    used = program.sources
    return ["input", *(key for key in program.traced.products if key in used and key != "input")]


class _Names:
    """Positions of states, vectors and products, by which nodes refer to them."""

    def __init__(self, program: Program) -> None:
        traced = program.traced
        self.projected = traced.projected
        self.products = used_products(program)[1:]
        self.x = list(traced.products["input"].targets) or [""]
        self.states = list(traced.cell.states)
        self.vectors = list(traced.cell.vectors)

    def width(self, width: int | str) -> str:
        return "H" if width == "P" and not self.projected else str(width)

    def node(self, node: Node, number: dict[int, int]) -> str:
        args = " ".join(str(number[arg.number]) for arg in node.args)
        width = self.width(node.width)
        key = node.key[0] if node.key else ""
        match node.op:
            case "const":
                return f"const 1 {node.key[1]}"
            case "size":
                return f"size 1 {self.width(str(key))}"
            case "x":
                return f"x {width} {self.x.index(str(key))}"
            case "state" | "grad":
                return f"{node.op} {width} {self.states.index(str(key))}"
            case "vector":
                return f"vector {width} {self.vectors.index(str(key))}"
            case "product":
                return f"product {width} {self.products.index(str(key))} {node.key[1]} {args}"
            case "transposed":
                blocks = " ".join(map(str, node.key[1:]))
                count = len(node.args)
                return f"transposed {width} {self.products.index(str(key))} {count} {blocks} {args}"
        return f"{OPERATIONS[node.op].code} {width} {args}"
