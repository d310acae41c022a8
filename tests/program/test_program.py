"""Programs: tracing, reverse-mode derivatives, stored values, and how a program prints.

The oracle is autograd on the cell's own lines, in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.declared_cells import CELLS
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.cells import Cell, Sizes, product, vector
from unrolled.cells._bound import BoundCell
from unrolled.cells._declaration import parameter_names
from unrolled.nn import Recurrent
from unrolled.program import Node, Program, ProgramError, TraceError, interpret, make_program
from unrolled.program._graph import NodeGraph, dependencies
from unrolled.program._program import free_vectors
from unrolled.program._trace import trace

N, I, H, P = 5, 3, 6, 4  # noqa: E741


class Case:
    """One step of a cell on random numbers, by autograd and by its program."""

    def __init__(self, cell: Cell, projected: bool = False) -> None:
        self.sizes = Sizes(I, H, P if projected else H)
        self.program = make_program(cell, projected)
        self.cell = cell
        shapes = cell.parameters(self.sizes)
        self.weights = {name: _random(*spec.shape) for name, spec in shapes.items()}
        self.states = [_random(N, width) for width in cell.state_widths(self.sizes)]
        if "n" in cell.states:
            self.states[2] = (self.states[2].detach().abs() + 1).requires_grad_()
        self.bound = BoundCell(cell, self.sizes, cell.prepare(self.weights))
        self.x = self.bound.project_input(_random(N, I)).detach().requires_grad_()
        self.new = self.bound.advance(self.bound.split_input(self.x), tuple(self.states))
        self.output_grads = [torch.randn_like(state) for state in self.new]
        self.products = cell.products(self.sizes)
        self.gates = self.products["input"].targets or ("",)

    def autograd(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Gradients of input products, states and parameter vectors."""
        named = {**self.weights}
        inputs = [self.x, *self.states, *named.values()]
        grads = torch.autograd.grad(self.new, inputs, self.output_grads, allow_unused=True)
        grads = [
            torch.zeros_like(a) if g is None else g for a, g in zip(inputs, grads, strict=True)
        ]
        x = dict(zip(self.gates, grads[0].chunk(len(self.gates), -1), strict=True))
        states = dict(zip(self.cell.states, grads[1:], strict=False))
        parameters = dict(zip(named, grads[1 + len(self.states) :], strict=True))
        return x, states, {name: parameters[name] for name in self.cell.vectors}

    def leaves(self) -> dict[Any, Any]:
        """Inputs of the program."""
        chunks = self.x.detach().chunk(len(self.gates), -1)
        return {
            **{("x", (k,)): v.numpy() for k, v in zip(self.gates, chunks, strict=True)},
            **self._states("state", self.states),
            **self._states("grad", self.output_grads),
            **{("vector", (k,)): self.weights[k].detach().numpy() for k in self.cell.vectors},
            **{("size", (k,)): float(getattr(self.sizes, k)) for k in "HP"},
        }

    def _states(self, op: str, values: list[Tensor]) -> dict[Any, Any]:
        pairs = zip(self.cell.states, values, strict=True)
        return {(op, (name,)): value.detach().numpy() for name, value in pairs}

    def multiply(self, node: Node, args: Any) -> Any:
        """A product or the transposed one, with the weights of this case, block by block."""
        name = str(node.key[0])
        bound = self._matrix(name)
        parts = max(1, len(self.products[name].targets))
        source = self.sizes.resolve(self.products[name].source)
        zero = torch.zeros(1, source, dtype=torch.float64)
        offset = bound.stacked(zero)
        rows = (bound.stacked(torch.eye(source, dtype=torch.float64)) - offset).T.chunk(parts)
        if node.op == "product":
            k = int(node.key[1])
            return (
                args[0] @ rows[k].detach().numpy().T + offset.chunk(parts, -1)[k].detach().numpy()
            )
        total: Any = 0.0
        for k, arg in zip(node.key[1:], args, strict=True):
            W = rows[int(k)].detach().numpy()
            total = total + np.broadcast_to(arg, (N, len(W))) @ W
        return total

    def _matrix(self, name: str) -> Any:
        parameters = {"recurrent": self.bound._recurrent, "hr": self.bound._project}
        return parameters.get(name) or getattr(self.bound._cell, name)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def _assert_close(actual: Any, expected: Tensor) -> None:
    wide = np.broadcast_to(actual, expected.shape)
    np.testing.assert_allclose(wide, expected.detach().numpy(), rtol=1e-9, atol=1e-11)


CASES: list[tuple[str, bool]] = [*((name, False) for name in CELLS), ("LSTM", True), ("RNN", True)]


@pytest.mark.parametrize(("name", "projected"), CASES)
def test_a_program_computes_the_step(name: str, projected: bool) -> None:
    case = Case(CELLS[name](), projected)
    actual = interpret(case.program.traced.states, case.leaves(), case.multiply)
    for value, expected in zip(actual, case.new, strict=True):
        _assert_close(value, expected)


@pytest.mark.parametrize(("name", "projected"), CASES)
def test_the_derived_gradients_are_autograds(name: str, projected: bool) -> None:
    case = Case(CELLS[name](), projected)
    derived = case.program.derivative
    groups = (derived.x, derived.states, derived.vectors)
    for group, expected in zip(groups, case.autograd(), strict=True):
        actual = interpret(list(group.values()), case.leaves(), case.multiply)
        values = dict(zip(group, actual, strict=True))
        for key, gradient in expected.items():
            if key not in values:
                assert not gradient.any()
            elif group is derived.vectors:
                _assert_close(values[key].sum(0), gradient)
            else:
                _assert_close(values[key], gradient)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_products_give_those_of_the_matrices(name: str) -> None:
    case = Case(CELLS[name]())
    if type(case.cell).prepare is not Cell.prepare:
        pytest.skip("the stored matrix is not the one that multiplies")
    for key, declared in case.products.items():
        blocks = [k for n, k in case.program.derivative.products if n == key]
        if key == "input" or declared.blocks > 1 or not declared.bias:
            continue
        output_grads = [case.program.derivative.products[key, k] for k in sorted(blocks)]
        actual = interpret(output_grads, case.leaves(), case.multiply)
        bias = case.weights[parameter_names(key)[1]]
        expected = torch.autograd.grad(case.new, bias, case.output_grads, retain_graph=True)[0]
        _assert_close(np.concatenate([value.sum(0) for value in actual]), expected)


@pytest.mark.parametrize("name", CELLS)
def test_what_is_stored_is_enough_for_backward(name: str) -> None:
    program = make_program(CELLS[name]())
    saving = program.saving
    at_hand = {node.number for node in (*saving.stored, *free_vectors(program.traced))}
    forward = {node.number for node in dependencies(program.traced.states)}
    waiting = list(program.derivative.outputs)
    while waiting:
        node = waiting.pop()
        if node.number in at_hand:
            continue
        assert node.op not in ("x", "product") or node.number not in forward
        waiting.extend(node.args)


LSTM_LISTING = """\
LSTM: gates i, f, g, o; states h, c; stages 1
forward
    i = sigmoid(x.i + h.i)
    f = sigmoid(x.f + h.f)
    g = tanh(x.g + h.g)
    o = sigmoid(x.o + h.o)
    c = f * state.c + i * g
    return o * tanh(c), c
    stores i, f, g, o

backward from dh, dc
    t1 = tanh(c)
    t2 = dc + dh * o * (1 - t1 * t1)
    dstate.c = t2 * f
    dx.o = dh * t1 * (o * (1 - o))
    dx.g = t2 * i * (1 - g * g)
    dx.f = t2 * state.c * (f * (1 - f))
    dx.i = t2 * g * (i * (1 - i))
    dstate.h = hᵀ(dx.i, dx.f, dx.g, dx.o)
    dh.o = dx.o
    dh.g = dx.g
    dh.f = dx.f
    dh.i = dx.i"""

GRU_LISTING = """\
GRU: gates r, z, n; states h; stages 1
forward
    r = sigmoid(x.r + h.r)
    z = sigmoid(x.z + h.z)
    n = tanh(x.n + r * h.n)
    return (1 - z) * n + z * state.h
    stores h.n, r, z, n

backward from dh
    t1 = 1 - z
    dx.n = dh * t1 * (1 - n * n)
    dh.n = dx.n * r
    dx.z = (dh * state.h - dh * n) * (z * t1)
    dx.r = dx.n * h.n * (r * (1 - r))
    dstate.h = dh * z + hᵀ(dx.r, dx.z, dh.n)
    dh.z = dx.z
    dh.r = dx.r"""


@pytest.mark.parametrize(("name", "listing"), [("LSTM", LSTM_LISTING), ("GRU", GRU_LISTING)])
def test_the_listing(name: str, listing: str) -> None:
    assert str(make_program(CELLS[name]())) == listing


@pytest.mark.parametrize(
    ("name", "stages"),
    [("LSTM", 1), ("IndRNN", 1), ("ResetBeforeGRU", 2), ("LEM", 2), ("DeepTransition", 3)],
)
def test_stages_follow_from_products_of_intermediate_vectors(name: str, stages: int) -> None:
    assert make_program(CELLS[name]()).stages == stages


def _cell(step: Callable[..., Any], **attributes: Any) -> Cell:
    return type("Mine", (Cell,), {"gates": ("a", "b"), "step": step, **attributes})()


# Every function with arguments on both sides of its kinks and on them; torch decides.
POINTS = torch.tensor([-30.0, -3.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0, 21.0])
KINKS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda a, b: cells.relu(a),
    "abs": lambda a, b: abs(a),
    "minimum": cells.minimum,
    "maximum": cells.maximum,
    "minimum of a number": lambda a, b: cells.minimum(a, 1.0),
    "maximum of a number": lambda a, b: cells.maximum(a, 1.0),
    "minimum with a number": lambda a, b: cells.minimum(1.0, a),
    "maximum with a number": lambda a, b: cells.maximum(1.0, a),
    "clip": lambda a, b: cells.clip(a, -1.0, 1.5),
    "hard_tanh": lambda a, b: cells.hard_tanh(a),
    "hard_sigmoid": lambda a, b: cells.hard_sigmoid(a),
    "softplus": lambda a, b: cells.softplus(a),
    "softsign": lambda a, b: cells.softsign(a),
    "where": lambda a, b: cells.where(a > b, a * b, b),
    "where not": lambda a, b: cells.where(a <= b, a, 2.0 * b),
    "power": lambda a, b: a**3,
    "powers": lambda a, b: abs(a) ** b,
    "power of a number": lambda a, b: 2.0**a,
    "quotient": lambda a, b: a / (b + 100),
    "square root": lambda a, b: cells.sqrt(a * a + 1),
    "logarithm": lambda a, b: cells.log(cells.exp(a / 9) + 1),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivatives_are_torchs_also_at_kinks_and_ties(name: str) -> None:
    function = KINKS[name]
    a, b = (
        v.double().flatten().requires_grad_() for v in torch.meshgrid(POINTS, POINTS, indexing="ij")
    )
    expected = torch.autograd.grad(function(a, b).sum(), (a, b), allow_unused=True)
    program = make_program(_cell(lambda self, x, h, state: function(x.a, x.b)))
    shape = (1, len(a))
    leaves = {
        ("x", ("a",)): a.detach().numpy().reshape(shape),
        ("x", ("b",)): b.detach().numpy().reshape(shape),
        ("grad", ("h",)): np.ones(shape),
    }
    derived = program.derivative.x
    with np.errstate(all="ignore"):
        actual = interpret(list(derived.values()), leaves, lambda node, args: None)
    for gate, gradient in zip("ab", expected, strict=True):
        if gate in derived:
            value = dict(zip(derived, actual, strict=True))[gate]
            np.testing.assert_allclose(
                np.broadcast_to(value, shape)[0], gradient.numpy(), rtol=1e-7, atol=1e-10
            )
        else:
            assert gradient is None or not gradient.any()


def test_equal_expressions_are_one_and_numbers_fold() -> None:
    def step(self: Cell, x: Any, h: Any, state: Any) -> Any:
        unused = cells.exp(x.b)  # noqa: F841
        return (x.a + h.a) * (h.a + x.a) * (2.0 - 1.0) + cells.where(x.a > 0, x.b, x.b) / 1

    traced = trace(_cell(step))
    text = str(make_program(_cell(step)))
    assert "t1 * t1 + x.b" in text
    assert "exp" not in text
    assert len([n for n in dependencies(traced.states) if n.op == "add"]) == 2


def test_a_choice_between_equal_numbers_is_as_wide_as_its_condition() -> None:
    """One number for all units is a row where each unit asks for itself."""

    def step(self: Cell, x: Any, h: Any, state: Any) -> Any:
        mean = cells.mean(x.a + h.b)
        return cells.where(x.a < h.b, mean, mean)

    layer = Recurrent(_cell(step), 3, 5)
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    with engines.use("reference"):
        expected = layer(x)[0]
    with engines.use("native"):
        close(layer(x)[0], expected, "output")


def _branch(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return x.a if x.a > 0 else h.a


def _foreign(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return torch.tanh(x.a)


def _number(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return x.a * float(h.a)


def _index(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return x.a[:, :2]


def _joined(self: Cell, x: Any, h: Any, state: Any) -> Any:
    return x.a + state.s, state.s


@pytest.mark.parametrize(
    ("step", "attributes", "message"),
    [
        (_branch, {}, r"cell Mine, .*test_program.py:\d+ .*x\.a > 0.*a branch on a value"),
        (_foreign, {}, r"cell Mine, .*torch\.tanh"),
        (_number, {}, "a conversion to a number"),
        (_index, {}, "indexing units"),
        (
            _joined,
            {"states": ("h", "s"), "widths": {"s": 3}},
            "must have one width, got 3 and H",
        ),
        (
            lambda self, x, h, state: self.m(3.0),
            {"m": product()},
            "'m': argument must be a vector, got",
        ),
        (
            lambda self, x, h, state: self.m(x.a),
            {"m": product(source=2)},
            "must have width 2, got H",
        ),
        (
            lambda self, x, h, state: self.v,
            {"v": vector(5)},
            "state 'h' must have width H, got 5",
        ),
        (lambda self, x, h, state: x.a + "b", {}, "must be vectors or numbers, got str"),
    ],
)
def test_an_error_names_the_cell_and_the_line(
    step: Callable[..., Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        trace(_cell(step, **attributes))


def test_numbers_without_a_value_are_refused() -> None:
    graph = NodeGraph()
    with pytest.raises(ProgramError, match=r"log\(-1\.0\) has no value"):
        graph.apply("log", graph.const(-1.0))


def test_programs_print_for_every_published_cell() -> None:
    for name, cell in CELLS.items():
        program: Program = make_program(cell())
        assert str(program).startswith(f"{name}: gates ")
        assert "backward from" in str(program)
