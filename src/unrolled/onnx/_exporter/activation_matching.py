"""Finds activation functions of the standard operators in a program."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, State, Value, vector
from unrolled.onnx._activations import ACTIVATIONS, Activation
from unrolled.program._graph import Node
from unrolled.program._trace import trace


def match_activations(node: Node) -> Iterator[tuple[Activation, float | None, Node]]:
    """The ways to read a node as an activation function of another one: the function, the clip of
    its argument, and the argument without the clip."""
    for activation, argument in (*_functions(node), (Activation("Affine", 1.0, 0.0), node)):
        if argument.op == "clip":
            unclipped, low, high = argument.args
            if low.value is not None and high.value is not None and high.value == -low.value > 0:
                yield activation, high.value, unclipped
        yield activation, None, argument


def _functions(node: Node) -> Iterator[tuple[Activation, Node]]:
    for pattern in _patterns():
        for match in _match(pattern.node, node, _Match()):
            if match.x is not None:
                alpha = pattern.alpha if match.alpha is None else match.alpha
                beta = pattern.beta if match.beta is None else match.beta
                yield Activation(pattern.name, alpha, beta), match.x


@dataclass(frozen=True)
class _Pattern:
    """An activation function as a node of x, α and β; ``alpha`` and ``beta`` are numbers that leave
    no trace in the node."""

    name: str
    alpha: float | None
    beta: float | None
    node: Node


@lru_cache(maxsize=1)
def _patterns() -> list[_Pattern]:
    """All activation functions, with α and β open or one, as products with one leave no trace."""
    hard_sigmoid = _traced(lambda x, a, b: cells.hard_sigmoid(x), None, None)
    patterns = [_Pattern("HardSigmoid", 1 / 6, 0.5, hard_sigmoid)]
    for name, formula in ACTIVATIONS.items():
        alphas = (None,) if formula.alpha is None else (None, 1.0)
        betas = (None,) if formula.beta is None else (None, 1.0)
        for alpha, beta in product(alphas, betas):
            node = _traced(formula.function, alpha, beta)
            patterns.append(_Pattern(name, alpha, beta, node))
    return patterns


class _FunctionCell(Cell):
    """A function of the input and of two numbers; those that are None stay open."""

    recurrent = None
    a, b = vector(1), vector(1)

    def __init__(
        self, function: Callable[..., Any], alpha: float | None, beta: float | None
    ) -> None:
        self.function = function
        self.alpha, self.beta = alpha, beta

    def step(self, x: Value, h: Value, state: State) -> Value:
        a = self.a if self.alpha is None else self.alpha
        b = self.b if self.beta is None else self.beta
        result: Value = self.function(x, a, b)
        return result


def _traced(function: Callable[..., Any], alpha: float | None, beta: float | None) -> Node:
    return trace(_FunctionCell(function, alpha, beta)).states[0]


@dataclass(frozen=True)
class _Match:
    """The argument and the parameters of a function, as far as they are matched."""

    x: Node | None = None
    alpha: float | None = None
    beta: float | None = None


def _match(expected: Node, node: Node, match: _Match) -> Iterator[_Match]:
    if expected.op == "x":
        if match.x is None or match.x is node:
            yield replace(match, x=node)
    elif expected.op == "vector":
        is_alpha = expected.key[0] == "a"
        bound = match.alpha if is_alpha else match.beta
        if node.value is not None and bound in (None, node.value):
            yield replace(match, alpha=node.value) if is_alpha else replace(match, beta=node.value)
    elif expected.op == node.op and (expected.op != "const" or expected.value == node.value):
        commutes = expected.op in ("add", "mul")
        for args in permutations(node.args) if commutes else [node.args]:
            yield from _match_all(expected.args, args, match)


def _match_all(
    expected_nodes: tuple[Node, ...], nodes: tuple[Node, ...], match: _Match
) -> Iterator[_Match]:
    if not expected_nodes:
        yield match
        return
    for extended in _match(expected_nodes[0], nodes[0], match):
        yield from _match_all(expected_nodes[1:], nodes[1:], extended)
