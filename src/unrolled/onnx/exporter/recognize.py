"""Which programs are those of the standard operators RNN, LSTM and GRU.

The patterns are the operators' own cells (``cells``), traced, with activation functions left open.
So a program is known by its equations, whatever its cell is called and however its gates are
ordered, and a class that only looks like an LSTM is not taken for one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, vector
from unrolled.onnx.operator_cells import (
    ACTIVATIONS,
    Activation,
    Operator,
    OperatorCoupledLSTM,
    OperatorGRU,
    OperatorLSTM,
)
from unrolled.program.decode import Forward
from unrolled.program.graph import Node
from unrolled.program.trace import trace

__all__ = ["Standard", "recognise"]

Found = dict[Any, Any]
_HOLES = {"sigmoid": "f", "tanh": "g", "softsign": "h"}
"""In patterns these operations stand for any activation function, by its letter in ``cells``."""
_OPEN = {"f": cells.sigmoid, "g": cells.tanh, "h": cells.softsign}


@dataclass(frozen=True)
class Standard:
    """A program as an operator, and what of the program each of its gates is.

    ``input`` has the block of the input product of each gate, ``recurrent`` product and block,
    ``peepholes`` the vector; gates by their letters in ``orders``.
    """

    operator: Operator
    input: dict[str, int]
    recurrent: dict[str, tuple[int, int]]
    peepholes: dict[str, int]


@lru_cache(maxsize=256)
def recognise(forward: Forward) -> Standard | None:
    """The operator of a program, or None."""
    for kind, settings, pattern in _patterns():
        found = next(_all(pattern.results, forward.results, {}, pattern), None)
        if found is not None:
            return _standard(kind, settings, found)
    return None


@dataclass(frozen=True)
class _Pattern:
    """A traced cell: new states, the states' names in their order, the letter of each gate."""

    results: tuple[Node, ...]
    states: tuple[str, ...]
    gates: dict[tuple[str, str | float], str]


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, dict[str, bool], _Pattern]]:
    f, g, h = _OPEN.values()
    found: list[tuple[str, dict[str, bool], _Pattern]] = [("RNN", {}, _pattern(cells.RNN(f)))]
    for coupled, peepholes in product((False, True), repeat=2):
        cell = (OperatorCoupledLSTM if coupled else OperatorLSTM)(f, g, h, peepholes)
        settings = {"input_forget": coupled, "peepholes": peepholes}
        found.append(("LSTM", settings, _pattern(cell)))
    for after in (True, False):
        settings = {"linear_before_reset": after}
        found.append(("GRU", settings, _pattern(OperatorGRU(f, g, **settings))))
    return found


def _pattern(cell: Cell) -> _Pattern:
    traced = trace(cell)
    gates: dict[tuple[str, str | float], str] = {}
    for name, declared in traced.products.items():
        for block, target in enumerate(declared.targets or ("n",)):
            gates[name, block] = target
            if name == "input":
                gates["x", target if declared.targets else ""] = target
    return _Pattern(traced.states, traced.cell.states, gates)


def _standard(kind: str, settings: dict[str, bool], found: Found) -> Standard:
    letters = [letter for letter in _OPEN if letter in found]
    operator = Operator(kind, tuple(found[one] for one in letters), found["clip"], **settings)
    parts: dict[str, dict[str, Any]] = {"x": {}, "product": {}, "vector": {}}
    for key, value in found.items():
        if isinstance(key, tuple):
            parts[key[0]][key[1]] = value
    peepholes = {name.removeprefix("p_"): number for name, number in parts["vector"].items()}
    return Standard(operator, parts["x"], parts["product"], peepholes)


def _all(
    wanted: tuple[Node, ...], given: tuple[Node, ...], found: Found, pattern: _Pattern
) -> Iterator[Found]:
    """Ways to see a list of nodes as that of a pattern, each with what its open parts then are."""
    if len(wanted) != len(given):
        return
    if not wanted:
        yield found
        return
    for first in _one(wanted[0], given[0], found, pattern):
        yield from _all(wanted[1:], given[1:], first, pattern)


def _one(want: Node, node: Node, found: Found, pattern: _Pattern) -> Iterator[Found]:
    if want.op in _HOLES:
        for activation, clip, inner in _activations(node):
            seen = _bound(found, _HOLES[want.op], activation)
            if _HOLES[want.op] == "h":  # the operators bound what goes into the others alone
                seen = seen if clip is None else None
            elif seen is not None:
                seen = _bound(seen, "clip", clip)
            if seen is not None:
                yield from _one(want.args[0], inner, seen, pattern)
        return
    if want.op == "add":
        yield from _sum(want, node, found, pattern)
        return
    if want.op != node.op:
        return
    match want.op:
        case "const":
            yield from [found] if want.value == node.value else []
        case "state":
            same = pattern.states.index(str(want.key[0])) == node.key[0]
            yield from [found] if same and node.width == "H" else []
        case "x" | "vector" | "product":
            key = _key(want, pattern)
            value = node.key if want.op == "product" else node.key[0]
            seen = _bound(found, key, value) if node.width == "H" else None
            if seen is not None:
                yield from _all(want.args, node.args, seen, pattern)
        case "mul":
            for args in permutations(node.args):
                yield from _all(want.args, args, found, pattern)
        case _:
            yield from _all(want.args, node.args, found, pattern)


def _key(want: Node, pattern: _Pattern) -> tuple[str, str]:
    """By which name the pattern knows one of its open parts."""
    name = want.key[0]
    if want.op == "x":
        return want.op, pattern.gates["x", str(name)]
    if want.op == "product":
        return want.op, pattern.gates[str(name), want.key[1]]
    return want.op, str(name)


def _bound(found: Found, key: Any, value: Any) -> Found | None:
    """With one more thing known, or None if it is known to be another."""
    if key in found:
        return found if found[key] == value else None
    return {**found, key: value}


def _sum(want: Node, node: Node, found: Found, pattern: _Pattern) -> Iterator[Found]:
    """Sums are equal in any order of their terms."""
    terms = _terms(want)
    if len(terms) == len(_terms(node)):
        for given in permutations(_terms(node)):
            yield from _all(tuple(terms), given, found, pattern)


def _terms(node: Node) -> list[Node]:
    return [t for arg in node.args for t in _terms(arg)] if node.op == "add" else [node]


def _activations(node: Node) -> Iterator[tuple[Activation, float | None, Node]]:
    """Ways to see a node as an activation function of another one, its bounds taken off."""
    for activation, inner in (*_functions(node), (Activation("Affine", 1.0, 0.0), node)):
        if inner.op == "clip":
            bounded, low, high = inner.args
            if low.value is not None and high.value is not None and high.value == -low.value > 0:
                yield activation, high.value, bounded
        yield activation, None, inner


def _functions(node: Node) -> Iterator[tuple[Activation, Node]]:
    for name, alpha, beta, pattern in _shapes():
        for found in _one_of_shape(pattern, node, {}):
            yield Activation(name, found.get("a", alpha), found.get("b", beta)), found["x"]


@lru_cache(maxsize=1)
def _shapes() -> list[tuple[str, float | None, float | None, Node]]:
    """Activation functions as nodes of x, a and b; also with a or b one, which leave no trace."""
    found: list[tuple[str, float | None, float | None, Node]] = [
        ("HardSigmoid", 1 / 6, 0.5, _shape(lambda x, a, b: cells.hard_sigmoid(x)))
    ]
    for name, kind in ACTIVATIONS.items():
        alphas = (None,) if kind.alpha is None else (None, 1.0)
        betas = (None,) if kind.beta is None else (None, 1.0)
        for alpha, beta in product(alphas, betas):
            found.append((name, alpha, beta, _shape(kind.function, alpha, beta)))
    return found


class _Probe(Cell):
    """A function alone, of the input and of numbers that are left open."""

    recurrent = None
    a, b = vector(1), vector(1)

    def __init__(self, function: Callable[..., Any], numbers: tuple[float | None, ...]) -> None:
        self.function = function
        self.numbers = numbers

    def step(self, x: Any, h: Any, state: Any) -> Any:
        a, b = (
            own if given is None else given
            for own, given in zip((self.a, self.b), self.numbers, strict=True)
        )
        return self.function(x, a, b)


def _shape(
    function: Callable[..., Any], alpha: float | None = None, beta: float | None = None
) -> Node:
    return trace(_Probe(function, (alpha, beta))).states[0]


def _one_of_shape(want: Node, node: Node, found: Found) -> Iterator[Found]:
    if want.op == "x":
        seen = _bound(found, "x", node)
        yield from [seen] if seen is not None else []
        return
    if want.op == "vector":
        seen = _bound(found, str(want.key[0]), node.value) if node.value is not None else None
        yield from [seen] if seen is not None else []
        return
    if want.op != node.op or (want.op == "const" and want.value != node.value):
        return
    orders = permutations(node.args) if want.op in ("add", "mul") else [node.args]
    for given in orders:
        yield from _args_of_shape(want.args, tuple(given), found)


def _args_of_shape(
    wanted: tuple[Node, ...], given: tuple[Node, ...], found: Found
) -> Iterator[Found]:
    if not wanted:
        yield found
        return
    for first in _one_of_shape(wanted[0], given[0], found):
        yield from _args_of_shape(wanted[1:], given[1:], first)
