"""The forward part of a program's text, read back: the way from a file or a graph to the nodes.

The text is ``encode``'s, which says what its lines are; the gradients in it are passed over.
"""

from dataclasses import dataclass, replace

from unrolled.program.encode import VERSION
from unrolled.program.graph import Node, ProgramError, Width
from unrolled.program.operations import OPERATIONS

__all__ = ["Forward", "Matrix", "decode_forward"]

_NAMES = {operation.code: name for name, operation in OPERATIONS.items()}


@dataclass(frozen=True)
class Matrix:
    """A product: so many blocks of so many rows each, times a vector of ``source`` units."""

    parts: int
    width: Width
    source: Width


@dataclass(frozen=True)
class Forward:
    """One step as nodes over numbered things: states, vectors, parts of the input product, blocks
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
        ProgramError: it is no such text, or of a newer version.
    """
    head, *lines = text.removesuffix("\n").split("\n")
    if head != f"unrolled-program {VERSION}":
        raise ProgramError(f"wanted a program of version {VERSION}, got {head!r}")
    states: list[Width] = []
    vectors: list[Width] = []
    matrices: list[Matrix] = []
    nodes: list[Node] = []
    results: list[int] = []
    for kind, *rest in map(str.split, lines):
        match kind:
            case "state":
                states.append(_width(rest[0]))
            case "vector":
                vectors.append(_width(rest[0]))
            case "input":
                matrices.append(Matrix(int(rest[0]), _width(rest[1]), "I"))
            case "product":
                matrices.append(Matrix(int(rest[0]), _width(rest[1]), _width(rest[2])))
            case "node":
                nodes.append(_node(len(nodes), rest, nodes))
            case "forward":
                results = [int(number) for number in rest]
    found = tuple(nodes[number] for number in results)
    return Forward(tuple(states), tuple(vectors), matrices[0], tuple(matrices[1:]), found)


def _width(text: str) -> Width:
    return int(text) if text.isdigit() else text


def _node(number: int, words: list[str], known: list[Node]) -> Node:
    op, width, *rest = words
    made = Node(number, _NAMES.get(op, op), (), (), _width(width), 0)
    match op:
        case "const":
            return replace(made, key=(float(rest[0]),))
        case "size":
            return replace(made, key=(rest[0],))
        case "x" | "state" | "grad" | "vector":
            return replace(made, key=(int(rest[0]),))
        case "product":
            matrix, block, source = map(int, rest)
            return replace(made, key=(matrix, block), args=(known[source],))
        case "transposed":
            return made  # of the gradients
    return replace(made, args=tuple(known[int(arg)] for arg in rest))
