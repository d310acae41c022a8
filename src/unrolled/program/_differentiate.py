"""Reverse-mode differentiation of a program.

The backward program is built in the graph of the forward program, so that a value that both use is
one node. Derivatives at kinks and ties are those of torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from unrolled.program._graph import Node, NodeGraph, dependencies
from unrolled.program._operations import COMPARISONS, OPERATIONS
from unrolled.program._trace import Traced

Rule = Callable[[NodeGraph, Node, Node], tuple[Node | None, ...]]


@dataclass(frozen=True)
class Derivative:
    """The backward program of one step. Its inputs, ``seeds``, are the gradients of the new states.

    Its results are the gradients of

    - ``x``: the input product, by gate;
    - ``products``: the results of products, by (matrix, block), from which weight gradients and
      transposed products are computed;
    - ``states``: the states at t-1, transposed products included;
    - ``vectors``: the cell's vectors, to be summed over all tokens.
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
    """Derive the gradients of one step."""
    graph = traced.graph
    forward = dependencies(traced.states)
    seeds = tuple(
        graph.leaf("grad", name, node.width)
        for name, node in zip(traced.cell.states, traced.states, strict=True)
    )
    adjoints: dict[int, Node] = {}
    for node, seed in zip(traced.states, seeds, strict=True):
        _add(graph, adjoints, node, seed)
    result = Derivative(seeds, {}, {}, {}, {})
    # The adjoint of each block of a product, by source node, matrix and block.
    block_adjoints: dict[int, dict[str, dict[int, Node]]] = {}
    for node in reversed(forward):
        for matrix, by_block in block_adjoints.get(node.number, {}).items():
            blocks = sorted(by_block)
            args = tuple(by_block[block] for block in blocks)
            product = graph.product("transposed", args, (matrix, *blocks), node.width)
            _add(graph, adjoints, node, product)
        adjoint = adjoints.get(node.number)
        if adjoint is None or node.op == "const" or node.op in COMPARISONS:
            continue
        if node.op == "product":
            matrix, block = str(node.key[0]), int(node.key[1])
            result.products[matrix, block] = adjoint
            by_matrix = block_adjoints.setdefault(node.args[0].number, {})
            by_matrix.setdefault(matrix, {})[block] = adjoint
        elif node.op in OPERATIONS:
            for arg, gradient in zip(node.args, RULES[node.op](graph, node, adjoint), strict=True):
                if gradient is not None:
                    _add(graph, adjoints, arg, _reduced(graph, node, arg, gradient))
        else:
            group = {"x": result.x, "state": result.states, "vector": result.vectors}[node.op]
            group[str(node.key[0])] = adjoint
    return result


def _reduced(graph: NodeGraph, node: Node, arg: Node, gradient: Node) -> Node:
    """Sum a gradient over all units if ``arg`` is one value that they share."""
    if arg.width != 1 or node.width == 1:
        return gradient
    if gradient.width == 1:
        return graph.apply("mul", gradient, graph.leaf("size", str(node.width), 1))
    return graph.apply("sum", gradient)


def _add(graph: NodeGraph, adjoints: dict[int, Node], node: Node, gradient: Node) -> None:
    total = adjoints.get(node.number)
    adjoints[node.number] = gradient if total is None else graph.apply("add", total, gradient)


def _binary(op: str) -> Rule:
    """Gradients of the four basic operations."""

    def rule(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
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


def _power(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
    a, b = node.args
    if b.value == 0.0:
        return None, None
    lower = g.apply("pow", a, g.apply("sub", b, g.const(1)))
    da = g.apply("mul", d, g.apply("mul", b, lower))
    if b.value is not None:
        return da, None
    # As in torch, d(a ** 0)/da is 0, and d(0 ** b)/db is 0 for b >= 0; the formulas would multiply
    # 0 by infinity.
    zero = g.const(0)
    da = g.apply("where", g.apply("eq", b, zero), zero, da)
    flat = g.apply("mul", d, g.apply("mul", node, g.apply("log", a)))
    at_zero = g.apply("where", g.apply("le", zero, b), zero, flat)
    return da, g.apply("where", g.apply("eq", a, zero), at_zero, flat)


def _elementwise(build: Callable[[NodeGraph, Node, Node], Node]) -> Rule:
    """Gradient of a unary operation: d times its derivative, which ``build`` computes from the
    argument and the result."""

    def rule(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
        return (g.apply("mul", d, build(g, node.args[0], node)),)

    return rule


def _piecewise_linear(build: Callable[[NodeGraph, Node], tuple[Node, float]]) -> Rule:
    """Gradient of a piecewise linear function: d times a number where a condition holds, else 0."""

    def rule(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
        condition, factor = build(g, node.args[0])
        gradient = g.apply("mul", d, g.const(factor))
        return (g.apply("where", condition, gradient, g.const(0)),)

    return rule


def _inside(g: NodeGraph, x: Node, bound: float) -> Node:
    """-bound < x < bound."""
    return g.apply("lt", g.apply("abs", x), g.const(bound))


def _extreme(op: str) -> Rule:
    """Gradients of minimum and maximum; equal arguments get half each."""

    def rule(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
        a, b = node.args
        zero, half = g.const(0), g.apply("mul", d, g.const(0.5))
        lower, upper = (a, b) if op == "minimum" else (b, a)
        selects_a, selects_b = g.apply("lt", lower, upper), g.apply("lt", upper, lower)
        tie = g.apply("eq", a, b)
        in_a = g.apply("where", selects_a, d, zero)
        da = g.apply("where", tie, half, in_a)
        in_b = g.apply("where", selects_b, d, zero)
        db = g.apply("where", tie, half, in_b)
        # With a number the function is torch's clamp, whose gradient at the bound is 1.
        if b.value is not None:
            return g.apply("where", tie, d, in_a), None
        if a.value is not None:
            return None, g.apply("where", tie, d, in_b)
        return da, db

    return rule


def _clip(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
    x, low, high = node.args
    below = g.apply("where", g.apply("le", x, high), d, g.const(0))
    return g.apply("where", g.apply("le", low, x), below, g.const(0)), None, None


def _where(g: NodeGraph, node: Node, d: Node) -> tuple[Node | None, ...]:
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
    "exp": _elementwise(lambda g, x, y: y),
    "log": lambda g, node, d: (g.apply("div", d, node.args[0]),),
    "sqrt": lambda g, node, d: (g.apply("div", d, g.apply("mul", g.const(2), node)),),
    "sigmoid": _elementwise(lambda g, x, y: g.apply("mul", y, g.apply("sub", g.const(1), y))),
    "tanh": _elementwise(lambda g, x, y: g.apply("sub", g.const(1), g.apply("mul", y, y))),
    "relu": lambda g, node, d: (_rectified(g, node, d),),
    "softplus": _elementwise(lambda g, x, y: g.apply("sigmoid", x)),
    "softsign": lambda g, node, d: (_softsign(g, node, d),),
    "hard_sigmoid": _piecewise_linear(lambda g, x: (_inside(g, x, 3), 1 / 6)),
    "hard_tanh": _piecewise_linear(lambda g, x: (_inside(g, x, 1), 1.0)),
    "abs": _elementwise(lambda g, x, y: g.apply("sign", x)),
    "sign": lambda g, node, d: (None,),
    "minimum": _extreme("minimum"),
    "maximum": _extreme("maximum"),
    "clip": _clip,
    "where": _where,
    "mean": lambda g, node, d: (g.apply("div", d, g.leaf("size", str(node.args[0].width), 1)),),
    "sum": lambda g, node, d: (d,),
}


def _rectified(g: NodeGraph, node: Node, d: Node) -> Node:
    """0 where x <= 0, so that NaN propagates, as in torch."""
    zero = g.const(0)
    return g.apply("where", g.apply("le", node.args[0], zero), zero, d)


def _softsign(g: NodeGraph, node: Node, d: Node) -> Node:
    scale = g.apply("add", g.const(1), g.apply("abs", node.args[0]))
    return g.apply("div", d, g.apply("mul", scale, scale))
