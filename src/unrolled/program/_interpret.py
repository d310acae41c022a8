"""Evaluates a program on arrays, node by node: the oracle that engines are tested against."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unrolled import cells
from unrolled.cells._values import Array
from unrolled.program._graph import Node, dependencies

Key = tuple[str, tuple[str | float, ...]]

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "pow": lambda x, y: x**y,
    "abs": abs,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "sum": lambda x: x.sum(-1, keepdims=True),
    "sign": lambda x: cells.where(x > 0, 1.0 + 0 * x, cells.where(x < 0, -1.0 + 0 * x, 0 * x)),
}


def interpret(
    outputs: Sequence[Node],
    leaves: Mapping[Key, Array],
    product: Callable[[Node, Sequence[Array]], Array],
) -> list[Array]:
    """Values of nodes [N, width].

    ``leaves`` gives those of the inputs by (op, key); ``product`` multiplies: it gets a
    ``product`` or ``transposed`` node and the values of its arguments.
    """
    values: dict[int, Any] = {}  # constants are numbers
    for node in dependencies(outputs):
        args = [values[arg.number] for arg in node.args]
        if node.op == "const":
            values[node.number] = node.value
        elif node.op in ("product", "transposed"):
            values[node.number] = product(node, args)
        elif not node.args:
            values[node.number] = leaves[node.op, node.key]
        else:
            function = _OPERATORS.get(node.op) or getattr(cells, node.op)
            values[node.number] = function(*args)
    return [values[node.number] for node in outputs]
