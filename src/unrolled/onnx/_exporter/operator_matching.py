"""Recognizes programs of the standard operators RNN, LSTM and GRU.

The patterns are the operators' own cells (``_operator_cells``), traced, with the activation
functions left open. So a program is recognized by its equations, whatever the name of its cell and
the order of its gates; the class of a cell does not matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

from unrolled import cells
from unrolled.cells import Cell
from unrolled.onnx._activations import Activation
from unrolled.onnx._exporter.activation_matching import match_activations
from unrolled.onnx._operator_cells import Operator, OperatorCoupledLSTM, OperatorGRU, OperatorLSTM
from unrolled.program._decode import Forward
from unrolled.program._graph import Node
from unrolled.program._trace import trace

_OPEN_FUNCTIONS = {"sigmoid": "f", "tanh": "g", "softsign": "h"}
"""Operations that stand for any activation function in patterns, with its letter in the cells."""

BoundValue = Activation | float | None | tuple[str | float, ...]
Bindings = Mapping[tuple[str, str], BoundValue]
"""What the open parts of a pattern are: by ("activation", letter), ("clip", ""), ("x", gate),
("product", gate) and ("vector", name); the last three have the key of the program's node."""


@dataclass(frozen=True)
class OperatorMatch:
    """A program as an operator, and the parts of the program that belong to each gate.

    ``input`` has the block of the input product of each gate, ``recurrent`` product and block,
    ``peepholes`` the vector; gates by their letters in ``_gate_orders``.
    """

    operator: Operator
    input: dict[str, int]
    recurrent: dict[str, tuple[int, int]]
    peepholes: dict[str, int]


@lru_cache(maxsize=256)
def match_operator(forward: Forward) -> OperatorMatch | None:
    """The operator of a program, or None."""
    for pattern in _patterns():
        bindings = next(pattern.match_all(pattern.results, forward.results, {}), None)
        if bindings is not None:
            return _operator_match(pattern.operator, bindings)
    return None


def _operator_match(operator: Operator, bindings: Bindings) -> OperatorMatch:
    functions = [bindings.get(("activation", letter)) for letter in "fgh"]
    activations = tuple(f for f in functions if isinstance(f, Activation))
    clip = bindings["clip", ""]
    assert clip is None or isinstance(clip, float)
    return OperatorMatch(
        Operator(
            operator.name,
            activations,
            clip,
            operator.input_forget,
            operator.linear_before_reset,
            operator.peepholes,
        ),
        {gate: key[0] for gate, key in _keys(bindings, "x").items()},
        {gate: (key[0], key[1]) for gate, key in _keys(bindings, "product").items()},
        {name.removeprefix("p_"): key[0] for name, key in _keys(bindings, "vector").items()},
    )


def _keys(bindings: Bindings, op: str) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(number) for number in key)
        for (bound_op, name), key in bindings.items()
        if bound_op == op and isinstance(key, tuple)
    }


@lru_cache(maxsize=1)
def _patterns() -> list["_Pattern"]:
    f, g, h = cells.sigmoid, cells.tanh, cells.softsign
    patterns = [_pattern(Operator("RNN"), cells.RNN(f))]
    for coupled, peepholes in product((False, True), repeat=2):
        cell_class = OperatorCoupledLSTM if coupled else OperatorLSTM
        operator = Operator("LSTM", input_forget=coupled, peepholes=peepholes)
        patterns.append(_pattern(operator, cell_class(f, g, h, peepholes)))
    for reset_after in (True, False):
        operator = Operator("GRU", linear_before_reset=reset_after)
        patterns.append(_pattern(operator, OperatorGRU(f, g, reset_after)))
    return patterns


def _pattern(operator: Operator, cell: Cell) -> "_Pattern":
    traced = trace(cell)
    gates: dict[tuple[str, str | float], str] = {}
    for name, declared in traced.products.items():
        for block, target in enumerate(declared.targets or ("n",)):
            gates[name, block] = target
            if name == "input":
                gates["x", target if declared.targets else ""] = target
    return _Pattern(operator, traced.states, traced.cell.states, gates)


@dataclass(frozen=True)
class _Pattern:
    """A traced cell of an operator.

    ``results`` are its new states, ``states`` their names in order; ``gates`` has the letter of the
    gate for each block of a product, and for each part of the input product.
    """

    operator: Operator
    results: tuple[Node, ...]
    states: tuple[str, ...]
    gates: dict[tuple[str, str | float], str]

    def match_all(
        self, expected_nodes: tuple[Node, ...], nodes: tuple[Node, ...], bindings: Bindings
    ) -> Iterator[Bindings]:
        """The bindings with which each node matches its node of the pattern."""
        if len(expected_nodes) != len(nodes):
            return
        if not expected_nodes:
            yield bindings
            return
        for extended in self._match(expected_nodes[0], nodes[0], bindings):
            yield from self.match_all(expected_nodes[1:], nodes[1:], extended)

    def _match(self, expected: Node, node: Node, bindings: Bindings) -> Iterator[Bindings]:
        if expected.op in _OPEN_FUNCTIONS:
            yield from self._match_function(expected, node, bindings)
        elif expected.op == "add":
            yield from self._match_sum(expected, node, bindings)
        elif expected.op == node.op == "const":
            yield from [bindings] if expected.value == node.value else []
        elif expected.op == node.op == "state":
            is_same = self.states.index(str(expected.key[0])) == node.key[0]
            yield from [bindings] if is_same and node.width == "H" else []
        elif expected.op == node.op and expected.op in ("x", "vector", "product"):
            key = node.key if node.op == "product" else node.key[:1]
            bound = _bind(bindings, (expected.op, self._name(expected)), key)
            if bound is not None and node.width == "H":
                yield from self.match_all(expected.args, node.args, bound)
        elif expected.op == node.op == "mul":
            for args in permutations(node.args):
                yield from self.match_all(expected.args, args, bindings)
        elif expected.op == node.op:
            yield from self.match_all(expected.args, node.args, bindings)

    def _match_function(self, expected: Node, node: Node, bindings: Bindings) -> Iterator[Bindings]:
        letter = _OPEN_FUNCTIONS[expected.op]
        for activation, clip, argument in match_activations(node):
            bound = _bind(bindings, ("activation", letter), activation)
            if letter == "h":  # the operators clip the arguments of the other functions only
                bound = bound if clip is None else None
            elif bound is not None:
                bound = _bind(bound, ("clip", ""), clip)
            if bound is not None:
                yield from self._match(expected.args[0], argument, bound)

    def _match_sum(self, expected: Node, node: Node, bindings: Bindings) -> Iterator[Bindings]:
        """Match a sum, whose terms may be in any order."""
        expected_terms, terms = _terms(expected), _terms(node)
        if len(expected_terms) == len(terms):
            for ordered in permutations(terms):
                yield from self.match_all(expected_terms, ordered, bindings)

    def _name(self, expected: Node) -> str:
        """The gate or the vector of an open part of the pattern."""
        name = str(expected.key[0])
        if expected.op == "x":
            return self.gates["x", name]
        return self.gates[name, expected.key[1]] if expected.op == "product" else name


def _bind(bindings: Bindings, key: tuple[str, str], value: BoundValue) -> Bindings | None:
    """The bindings with one more open part, or None if it is bound to another value."""
    if key in bindings:
        return bindings if bindings[key] == value else None
    return {**bindings, key: value}


def _terms(node: Node) -> tuple[Node, ...]:
    if node.op != "add":
        return (node,)
    return tuple(term for arg in node.args for term in _terms(arg))
