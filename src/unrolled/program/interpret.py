"""A program on arrays, node by node: the plain twin that judges every other way to run one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unrolled import cells
from unrolled.program.graph import Node, needed

Key = tuple[str, tuple[str | float, ...]]

_PYTHON: dict[str, Callable[..., Any]] = {
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
    leaves: Mapping[Key, Any],
    product: Callable[[Node, Sequence[Any]], Any],
) -> list[Any]:
    """Values of nodes [N, width].

    ``leaves`` gives those of the inputs by (op, key); ``product`` multiplies: it gets a
    ``product`` or ``transposed`` node and the values of its arguments.
    """
    values: dict[int, Any] = {}
    for node in needed(outputs):
        args = [values[arg.number] for arg in node.args]
        if node.op == "const":
            values[node.number] = node.value
        elif node.op in ("product", "transposed"):
            values[node.number] = product(node, args)
        elif not node.args:
            values[node.number] = leaves[node.op, node.key]
        else:
            function = _PYTHON.get(node.op) or getattr(cells, node.op)
            values[node.number] = function(*args)
    return [values[node.number] for node in outputs]
