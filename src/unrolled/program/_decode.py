"""Reads the forward part of a program's text, from a file or a graph, into nodes.

``_encode`` writes the text and documents its lines; the gradients in it are skipped.
"""

from dataclasses import dataclass, replace

from unrolled.program._encode import VERSION
from unrolled.program._graph import Node, ProgramError, Width
from unrolled.program._operations import OPERATIONS

__all__ = ["Forward", "Matrix", "decode_forward"]

_NAMES = {operation.code: name for name, operation in OPERATIONS.items()}


@dataclass(frozen=True)
class Matrix:
    """A product: ``parts`` of ``width`` rows, times a vector of ``source`` units. Each part may be
    block-diagonal, with that number of blocks."""

    parts: int
    width: Width
    source: Width
    blocks: int = 1


@dataclass(frozen=True)
class Forward:
    """One step as nodes over numbered leaves: states, vectors, parts of the input product, blocks
    of the other products.

    The key of a leaf is its number, that of a product (product, block). ``results`` are the new
    states.
    """

    states: tuple[Width, ...]
    vectors: tuple[Width, ...]
    input: Matrix
    products: tuple[Matrix, ...]
    results: tuple[Node, ...]


def decode_forward(text: str) -> Forward:
    """One step forward, from a program's text.

    Raises:
        ProgramError: the text is not a program, or of a newer version.
    """
    header, *lines = text.removesuffix("\n").split("\n")
    if header not in {f"unrolled-program {version}" for version in range(1, VERSION + 1)}:
        raise ProgramError(
            f"decode_forward: text must be of a version from 1 to {VERSION}, got {header!r}"
        )
    states: list[Width] = []
    vectors: list[Width] = []
    matrices: list[Matrix] = []
    nodes: list[Node] = []
    results: list[int] = []
    for keyword, *fields in map(str.split, lines):
        match keyword:
            case "state":
                states.append(_width(fields[0]))
            case "vector":
                vectors.append(_width(fields[0]))
            case "input":
                matrices.append(_matrix(fields[0], fields[1], "I", *fields[2:]))
            case "product":
                matrices.append(_matrix(*fields))
            case "node":
                nodes.append(_node(len(nodes), fields, nodes))
            case "forward":
                results = [int(number) for number in fields]
    new_states = tuple(nodes[number] for number in results)
    return Forward(tuple(states), tuple(vectors), matrices[0], tuple(matrices[1:]), new_states)


def _matrix(parts: str, width: str, source: str, blocks: str = "1") -> Matrix:
    return Matrix(int(parts), _width(width), _width(source), int(blocks))


def _width(text: str) -> Width:
    return int(text) if text.isdigit() else text


def _node(number: int, fields: list[str], nodes: list[Node]) -> Node:
    op, width, *operands = fields
    node = Node(number, _NAMES.get(op, op), (), (), _width(width), 0)
    match op:
        case "const":
            return replace(node, key=(float(operands[0]),))
        case "size":
            return replace(node, key=(operands[0],))
        case "x" | "state" | "grad" | "vector":
            return replace(node, key=(int(operands[0]),))
        case "product":
            matrix, block, source = map(int, operands)
            return replace(node, key=(matrix, block), args=(nodes[source],))
        case "transposed":
            return node  # only gradients have it
    return replace(node, args=tuple(nodes[int(operand)] for operand in operands))
