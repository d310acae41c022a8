"""A graph of vectors and operations, which folds constants, shares equal nodes and simplifies.

A :class:`NodeGraph` creates all nodes, and returns an existing node if it is equal. This module
does not depend on cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from unrolled.program._operations import COMMUTATIVE, COMPARISONS, OPERATIONS, REDUCTIONS

Width = int | str
"""The width of a vector: a letter (H, P), a number, or 1 for a value shared by all units."""

LEAVES = frozenset({"const", "size", "x", "state", "vector", "grad"})
PRODUCTS = frozenset({"product", "transposed"})


class ProgramError(TypeError):
    """A step cannot become a program; the message gives the operation and the reason."""


@dataclass(frozen=True, eq=False)
class Node:
    """One vector.

    ``op`` is one of

    - an operation;
    - a leaf: ``const``, ``size`` (the number of units of a width), ``x`` (an input product),
      ``state`` (at t-1), ``vector`` (a parameter), ``grad`` (of a new state);
    - ``product``: of a node with one block of a matrix;
    - ``transposed``: the transposed product with the gradients of all blocks of a matrix.

    ``key`` is the name or number of a leaf, or (matrix, block) of a product.
    """

    number: int
    op: str
    args: tuple["Node", ...]
    key: tuple[str | float, ...]
    width: Width
    stage: int

    @property
    def is_mask(self) -> bool:
        """Whether the vector holds truth values."""
        return self.op in COMPARISONS

    @property
    def value(self) -> float | None:
        """The value of a constant, else None."""
        return float(self.key[0]) if self.op == "const" else None


@dataclass
class NodeGraph:
    """All nodes in the order of their creation, so that arguments precede their uses."""

    nodes: list[Node] = field(default_factory=list)
    _by_content: dict[tuple[object, ...], Node] = field(default_factory=dict)

    def leaf(self, op: str, name: str, width: Width) -> Node:
        """An input of the program."""
        return self._node(op, (), (name,), width, 0)

    def const(self, value: float) -> Node:
        """A number."""
        return self._node("const", (), (float(value), repr(float(value))), 1, 0)

    def product(
        self, op: str, args: Sequence[Node], key: tuple[str | float, ...], width: Width
    ) -> Node:
        """A matrix product; it begins a stage unless its source is known before the step."""
        stage = max((arg.stage + (arg.op not in LEAVES) for arg in args), default=0)
        return self._node(op, tuple(args), key, width, stage)

    def apply(self, op: str, *args: Node) -> Node:
        """An operation on nodes, folded or simplified if that changes no value."""
        if len(args) != OPERATIONS[op].arity:
            raise ProgramError(f"{op}: must have {OPERATIONS[op].arity} arguments, got {len(args)}")
        if all(arg.value is not None for arg in args):
            return self._fold(op, args)
        if (simpler := self._simplify(op, args)) is not None:
            return simpler
        width: Width = 1 if op in REDUCTIONS else joint_width(op, args)
        stage = max(arg.stage for arg in args)
        return self._node(op, args, (), width, stage)

    def _fold(self, op: str, args: tuple[Node, ...]) -> Node:
        numbers = [float(arg.key[0]) for arg in args]
        try:
            return self.const(float(OPERATIONS[op].fold(*numbers)))
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            arguments = ", ".join(map(str, numbers))
            raise ProgramError(f"{op}({arguments}) has no value: {error}") from error

    def _simplify(self, op: str, args: tuple[Node, ...]) -> Node | None:
        """Identities that hold for every value, NaN and infinities included."""
        numbers = [arg.value for arg in args]
        if op == "mul" and 1.0 in numbers:
            return args[1 - numbers.index(1.0)]
        if op == "mul" and -1.0 in numbers:
            return self.apply("neg", args[1 - numbers.index(-1.0)])
        if op == "div" and numbers[1] == 1.0:
            return args[0]
        if op == "pow" and numbers[1] == 1.0:
            return args[0]
        if op == "pow" and numbers[1] == 2.0:
            return self.apply("mul", args[0], args[0])
        if op == "pow" and numbers[1] == 0.5:
            return self.apply("sqrt", args[0])
        if op == "sub" and numbers[1] == 0.0:
            return args[0]
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        if op == "add" and args[1].op == "neg":
            return self.apply("sub", args[0], args[1].args[0])
        if op == "where" and args[1] is args[2] and joint_width(op, args) == args[1].width:
            return args[1]
        return None

    def _node(
        self,
        op: str,
        args: tuple[Node, ...],
        key: tuple[str | float, ...],
        width: Width,
        stage: int,
    ) -> Node:
        numbers = [arg.number for arg in args]
        # Arguments of commutative operations may be in any order; the node keeps the order in which
        # it was first written.
        content = (op, tuple(sorted(numbers) if op in COMMUTATIVE else numbers), key)
        if content not in self._by_content:
            self._by_content[content] = Node(len(self.nodes), op, args, key, width, stage)
            self.nodes.append(self._by_content[content])
        return self._by_content[content]


def joint_width(op: str, args: Sequence[Node]) -> Width:
    """The width of a pointwise result: that of all arguments whose width is not 1."""
    widths = {arg.width for arg in args} - {1}
    if len(widths) > 1:
        listed = " and ".join(sorted(map(str, widths)))
        raise ProgramError(f"{op}: vectors must have one width, got {listed}")
    return widths.pop() if widths else 1


def dependencies(outputs: Sequence[Node]) -> list[Node]:
    """The outputs and all nodes that they depend on; arguments precede their uses."""
    visited: dict[int, Node] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.number not in visited:
            visited[node.number] = node
            stack.extend(node.args)
    return [visited[number] for number in sorted(visited)]
