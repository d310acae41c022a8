"""Prints a program in the notation of a cell's step."""

from collections.abc import Iterable, Mapping, Sequence

from unrolled.program._graph import Node
from unrolled.program._operations import OPERATIONS


class Listing:
    """Names for nodes, and expressions over them.

    A node has a separate line if the step gave it a name or if it is used more than once; all
    others are written inline.
    """

    def __init__(self, names: Mapping[int, str], products: Mapping[str, tuple[str, ...]]) -> None:
        self.names = dict(names)
        self.products = products

    def lines(self, returned: Sequence[Node]) -> list[str]:
        """Assignments and a ``return``, as in the step."""
        order = _between(returned, ())
        body = self._definitions(order, _count_uses(order))
        return [*body, f"return {', '.join(self.expression(node) for node in returned)}"]

    def assignments(self, outputs: Mapping[str, Node], available: Iterable[Node]) -> list[str]:
        """Assignments that end in the named outputs, from ``available`` nodes."""
        order = _between(list(outputs.values()), available)
        uses = _count_uses(order)
        for name, node in outputs.items():
            # One value under two names (a gate whose products are only added) is written once.
            if node.args and node.number not in self.names:
                self.names[node.number] = name
        body = self._definitions(order, uses)
        aliases = [
            f"{name} = {self.expression(node)}"
            for name, node in outputs.items()
            if self.names.get(node.number) != name
        ]
        return [*body, *aliases]

    def _definitions(self, order: Sequence[Node], uses: Mapping[int, int]) -> list[str]:
        for node in order:
            shared = uses.get(node.number, 0) > 1 and not self._short(node)
            if shared and node.number not in self.names:
                self.names[node.number] = self._fresh()
        return [
            f"{self.names[node.number]} = {self.expression(node, as_definition=True)}"
            for node in order
            if node.number in self.names
        ]

    def expression(self, node: Node, rank: int = 0, as_definition: bool = False) -> str:
        """The node as text, in brackets if it binds less tightly than ``rank``."""
        if not as_definition and node.number in self.names:
            return self.names[node.number]
        if node.op not in OPERATIONS:
            return self._leaf(node)
        operation = OPERATIONS[node.op]
        if operation.rank == 9:
            args = [self.expression(arg) for arg in node.args]
        else:
            args = [self.expression(node.args[0], operation.rank)]
            args += [self.expression(arg, operation.rank + 1) for arg in node.args[1:]]
        text = operation.text.format(*args)
        return f"({text})" if operation.rank < rank else text

    def product(self, matrix: str, block: int, prefix: str = "") -> str:
        """The name of a product's result: ``h.r`` for the recurrent one."""
        targets = self.products[matrix]
        name = "h" if matrix == "recurrent" else matrix
        if not targets:
            return f"{prefix}({name})" if prefix else name
        return f"{prefix}{name}.{targets[block]}"

    def _leaf(self, node: Node) -> str:
        key = node.key[0]
        match node.op:
            case "const":
                return f"{float(key):g}"
            case "x":
                return f"x.{key}" if key else "x"
            case "state":
                return f"state.{key}"
            case "grad":
                return f"d{key}"
            case "size" | "vector":
                return str(key)
        source = ", ".join(self.expression(arg) for arg in node.args)
        matrix = str(key)
        if node.op == "transposed":
            return f"{'h' if matrix == 'recurrent' else matrix}ᵀ({source})"
        if matrix == "recurrent":
            return self.product(matrix, int(node.key[1]))
        targets = self.products[matrix]
        return f"{matrix}({source})" + (f".{targets[int(node.key[1])]}" if targets else "")

    def _short(self, node: Node) -> bool:
        """Whether a name would not be shorter than the expression."""
        return node.op == "product" and node.key[0] == "recurrent"

    def _fresh(self) -> str:
        number = 1
        while f"t{number}" in self.names.values():
            number += 1
        return f"t{number}"


def _count_uses(order: Iterable[Node]) -> dict[int, int]:
    """The number of times that each node is an argument."""
    count: dict[int, int] = {}
    for node in order:
        for arg in node.args:
            count[arg.number] = count.get(arg.number, 0) + 1
    return count


def _between(outputs: Sequence[Node], available: Iterable[Node]) -> list[Node]:
    """Operations that lead from the available nodes to the outputs; arguments come first."""
    visited = {node.number for node in available}
    order: list[Node] = []
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.args and node.number not in visited:
            visited.add(node.number)
            order.append(node)
            stack.extend(node.args)
    return sorted(order, key=lambda node: node.number)
