"""Reverse mode on a program: from gradients of the new states to those of all that made them.

The backward program is made in the graph of the forward one, so that what both compute is one
node. Derivatives at kinks and ties are torch's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from unrolled.program.graph import Graph, Node, needed
from unrolled.program.operations import COMPARISONS, OPERATIONS
from unrolled.program.trace import Traced

Rule = Callable[[Graph, Node, Node], tuple[Node | None, ...]]


@dataclass(frozen=True)
class Derivative:
    """Gradients by what they are of; ``seeds`` are the gradients of the new states that come in.

    ``x`` by gate, ``products`` by (matrix, block): what weight gradients and the transposed
    products are made from; ``states`` of the states at t-1, transposed products included;
    ``vectors`` of the cell's own parameters, to be summed over all tokens.
    """

    seeds: tuple[Node, ...]
    x: dict[str, Node]
    products: dict[tuple[str, int], Node]
    states: dict[str, Node]
    vectors: dict[str, Node]

    @property
    def outputs(self) -> list[Node]:
        """All gradients."""
        groups = (self.x, self.products, self.states, self.vectors)
        return [node for group in groups for node in group.values()]


def differentiate(traced: Traced) -> Derivative:
    """The gradients of one step."""
    graph = traced.graph
    forward = needed(traced.states)
    seeds = tuple(
        graph.leaf("grad", name, node.width)
        for name, node in zip(traced.cell.states, traced.states, strict=True)
    )
    adjoints: dict[int, Node] = {}
    for node, seed in zip(traced.states, seeds, strict=True):
        _add(graph, adjoints, node, seed)
    found = Derivative(seeds, {}, {}, {}, {})
    fed: dict[int, dict[str, dict[int, Node]]] = {}
    for node in reversed(forward):
        for matrix, slopes in fed.get(node.number, {}).items():
            blocks = sorted(slopes)
            args = tuple(slopes[block] for block in blocks)
            back = graph.product("transposed", args, (matrix, *blocks), node.width)
            _add(graph, adjoints, node, back)
        adjoint = adjoints.get(node.number)
        if adjoint is None or node.op == "const" or node.op in COMPARISONS:
            continue
        if node.op == "product":
            matrix, block = str(node.key[0]), int(node.key[1])
            found.products[matrix, block] = adjoint
            fed.setdefault(node.args[0].number, {}).setdefault(matrix, {})[block] = adjoint
        elif node.op in OPERATIONS:
            for arg, slope in zip(node.args, RULES[node.op](graph, node, adjoint), strict=True):
                if slope is not None:
                    _add(graph, adjoints, arg, _summed(graph, node, arg, slope))
        else:
            group = {"x": found.x, "state": found.states, "vector": found.vectors}[node.op]
            group[str(node.key[0])] = adjoint
    return found


def _summed(graph: Graph, node: Node, arg: Node, slope: Node) -> Node:
    """A value shared by all units of a vector has the sum of their slopes."""
    if arg.width != 1 or node.width == 1:
        return slope
    if slope.width == 1:
        return graph.apply("mul", slope, graph.leaf("size", str(node.width), 1))
    return graph.apply("sum", slope)


def _add(graph: Graph, adjoints: dict[int, Node], node: Node, slope: Node) -> None:
    before = adjoints.get(node.number)
    adjoints[node.number] = slope if before is None else graph.apply("add", before, slope)


def _binary(op: str) -> Rule:
    """Slopes of the four basic operations."""

    def rule(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
        a, b = node.args
        if op == "add":
            return d, d
        if op == "sub":
            return d, g.apply("neg", d)
        if op == "mul":
            return g.apply("mul", d, b), g.apply("mul", d, a)
        da = g.apply("div", d, b)
        return da, g.apply("neg", g.apply("mul", da, node))

    return rule


def _power(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
    a, b = node.args
    if b.value == 0.0:
        return None, None
    lower = g.apply("pow", a, g.apply("sub", b, g.const(1)))
    da = g.apply("mul", d, g.apply("mul", b, lower))
    if b.value is not None:
        return da, None
    # As in torch: a ** 0 has slope 0 in a, 0 ** b has slope 0 in b for b >= 0; the products of 0
    # and infinity that stand there otherwise are NaN.
    zero = g.const(0)
    da = g.apply("where", g.apply("eq", b, zero), zero, da)
    flat = g.apply("mul", d, g.apply("mul", node, g.apply("log", a)))
    at_zero = g.apply("where", g.apply("le", zero, b), zero, flat)
    return da, g.apply("where", g.apply("eq", a, zero), at_zero, flat)


def _slope(build: Callable[[Graph, Node, Node], Node]) -> Rule:
    """Slope of an operation of one argument: d times what ``build`` makes of (argument, result)."""

    def rule(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
        return (g.apply("mul", d, build(g, node.args[0], node)),)

    return rule


def _selected(build: Callable[[Graph, Node], tuple[Node, float]]) -> Rule:
    """Slope of a function of straight pieces: d times a number where a condition holds, else 0."""

    def rule(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
        condition, factor = build(g, node.args[0])
        slope = g.apply("mul", d, g.const(factor))
        return (g.apply("where", condition, slope, g.const(0)),)

    return rule


def _inside(g: Graph, x: Node, bound: float) -> Node:
    """-bound < x < bound."""
    return g.apply("lt", g.apply("abs", x), g.const(bound))


def _extreme(op: str) -> Rule:
    """minimum and maximum; at a tie each side gets half."""

    def rule(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
        a, b = node.args
        zero, half = g.const(0), g.apply("mul", d, g.const(0.5))
        first, second = (a, b) if op == "minimum" else (b, a)
        takes = [g.apply("lt", first, second), g.apply("lt", second, first)]
        tie = g.apply("eq", a, b)
        da, db = (g.apply("where", tie, half, g.apply("where", take, d, zero)) for take in takes)
        # With a number torch has a clamp, whose slope at the bound is 1.
        if b.value is not None:
            return g.apply("where", tie, d, g.apply("where", takes[0], d, zero)), None
        if a.value is not None:
            return None, g.apply("where", tie, d, g.apply("where", takes[1], d, zero))
        return da, db

    return rule


def _clip(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
    x, low, high = node.args
    below = g.apply("where", g.apply("le", x, high), d, g.const(0))
    return g.apply("where", g.apply("le", low, x), below, g.const(0)), None, None


def _where(g: Graph, node: Node, d: Node) -> tuple[Node | None, ...]:
    condition, _, _ = node.args
    zero = g.const(0)
    return None, g.apply("where", condition, d, zero), g.apply("where", condition, zero, d)


RULES: dict[str, Rule] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "div": _binary("div"),
    "neg": lambda g, node, d: (g.apply("neg", d),),
    "pow": _power,
    "exp": _slope(lambda g, x, y: y),
    "log": lambda g, node, d: (g.apply("div", d, node.args[0]),),
    "sqrt": lambda g, node, d: (g.apply("div", d, g.apply("mul", g.const(2), node)),),
    "sigmoid": _slope(lambda g, x, y: g.apply("mul", y, g.apply("sub", g.const(1), y))),
    "tanh": _slope(lambda g, x, y: g.apply("sub", g.const(1), g.apply("mul", y, y))),
    "relu": lambda g, node, d: (_rectified(g, node, d),),
    "softplus": _slope(lambda g, x, y: g.apply("sigmoid", x)),
    "softsign": lambda g, node, d: (_softsign(g, node, d),),
    "hard_sigmoid": _selected(lambda g, x: (_inside(g, x, 3), 1 / 6)),
    "hard_tanh": _selected(lambda g, x: (_inside(g, x, 1), 1.0)),
    "abs": _slope(lambda g, x, y: g.apply("sign", x)),
    "sign": lambda g, node, d: (None,),
    "minimum": _extreme("minimum"),
    "maximum": _extreme("maximum"),
    "clip": _clip,
    "where": _where,
    "mean": lambda g, node, d: (g.apply("div", d, g.leaf("size", str(node.args[0].width), 1)),),
    "sum": lambda g, node, d: (d,),
}


def _rectified(g: Graph, node: Node, d: Node) -> Node:
    """0 where x <= 0, so that NaN goes on, as in torch."""
    zero = g.const(0)
    return g.apply("where", g.apply("le", node.args[0], zero), zero, d)


def _softsign(g: Graph, node: Node, d: Node) -> Node:
    scale = g.apply("add", g.const(1), g.apply("abs", node.args[0]))
    return g.apply("div", d, g.apply("mul", scale, scale))
