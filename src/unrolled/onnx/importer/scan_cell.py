"""A Scan as a layer: its body, one step over states, becomes a cell's step.

What ``unrolled.onnx.export`` writes of a cell that is no operator's comes back by this: a step made
of products with constant weights, constant vectors, and functions of numbers, whose one sequence
is a product of the input, and which may keep its states behind the ends of sequences.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from unrolled import cells
from unrolled.cells import Cell, product, vector
from unrolled.onnx.importer.recurrent_node import read_attributes

__all__ = ["Body", "ScannedCell", "read_body"]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda x, y: x + y, "Sub": lambda x, y: x - y, "Mul": lambda x, y: x * y,
    "Div": lambda x, y: x / y, "Neg": lambda x: -x, "Pow": lambda x, y: x**y, "Abs": abs,
    "Exp": cells.exp, "Log": cells.log, "Sqrt": cells.sqrt, "Sigmoid": cells.sigmoid,
    "Tanh": cells.tanh, "Relu": cells.relu, "Softplus": cells.softplus,
    "Softsign": cells.softsign, "Min": cells.minimum, "Max": cells.maximum,
    "Less": lambda x, y: x < y, "LessOrEqual": lambda x, y: x <= y, "Equal": lambda x, y: x == y,
    "NotEqual": lambda x, y: x != y, "Where": cells.where, "ReduceMean": cells.mean,
    "Cast": lambda x: x * 1.0, "Identity": lambda x: x,
}  # fmt: skip

_OF_VECTORS = {"Exp", "Log", "Sqrt", "Sigmoid", "Tanh", "Relu", "Softplus", "Softsign"}

Step = tuple[str, tuple[str, ...], tuple[str, ...]]
"""An operation, the names that it reads, the names that it gives."""


class ScannedCell(Cell):
    """A step that stands in a file: operations over names, in their order.

    Args:
        steps: the operations; "product k" applies the cell's own product p_k.
        before, after: the names of the states, in their order, and of what they become.
        numbers: names that are one number.
        vectors: sizes of the parameter vectors, by the names in ``steps``.
        fed: the names of the parts of the input product, their width, and whether it has a bias.
        products: source, width and number of parts of each, and whether it has a bias.
        widths: of the states.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        before: tuple[str, ...],
        after: tuple[str, ...],
        numbers: dict[str, float],
        vectors: dict[str, int],
        fed: tuple[tuple[str, ...], int, bool],
        products: tuple[tuple[int, int, int, bool], ...],
        widths: tuple[int, ...],
    ) -> None:
        self._told = (steps, before, after, numbers, tuple(vectors), fed[0])
        self.states = tuple("hcnm"[k] if k < 4 else f"s{k}" for k in range(len(before)))  # type: ignore[misc]
        self.widths = dict(zip(self.states, widths, strict=True))  # type: ignore[misc]
        self.gates = tuple(f"part{k}" for k in range(len(fed[0])))  # type: ignore[misc]
        self.input = product(*self.gates, width=fed[1], bias=fed[2])
        self.recurrent = None
        for k, (source, width, parts, bias) in enumerate(products):
            targets = tuple(f"part{j}" for j in range(parts)) if parts > 1 else ()
            setattr(self, f"p{k}", product(*targets, source=source, width=width, bias=bias))
        for k, size in enumerate(vectors.values()):
            setattr(self, f"v{k}", vector(size))

    def step(self, x: Any, h: Any, state: Any) -> Any:
        steps, before, after, numbers, vectors, fed = self._told
        known: dict[str, Any] = dict(numbers)
        known |= {name: getattr(self, f"v{k}") for k, name in enumerate(vectors)}
        known |= {name: getattr(state, s) for name, s in zip(before, self.states, strict=True)}
        known |= {name: getattr(x, gate) for name, gate in zip(fed, self.gates, strict=True)}
        for op, reads, gives in steps:
            args = [known[name] for name in reads]
            if not op.startswith("product"):
                known[gives[0]] = _FUNCTIONS[op](*args)
                continue
            made = getattr(self, f"p{op.split()[1]}")(*args)
            many = len(gives) > 1
            known |= {g: getattr(made, f"part{k}") if many else made for k, g in enumerate(gives)}
        new = tuple(known[name] for name in after)
        return new if len(new) > 1 else new[0]


@dataclass
class Body:
    """What is read of a Scan's body: a cell, its own parameters, whether it keeps states."""

    cell: Cell
    parameters: dict[str, np.ndarray]
    masked: bool


def read_body(
    graph: onnx.GraphProto, outer: Callable[[str], Any], states: int, M: int, bias: bool
) -> Body:
    """The cell of a Scan's body, with so many states, fed by a product [N, M] with or without bias.

    Args:
        outer: the constant array of a name outside of the body; raises where there is none.

    Raises:
        ValueError: the body is none that a cell's step can be.
    """
    return _Reader(graph, outer, states, M, bias).read()


@dataclass
class _Reader:
    graph: onnx.GraphProto
    outer: Callable[[str], Any]
    count: int
    M: int
    fed_bias: bool
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    products: list[list[Any]] = field(default_factory=list)
    made: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = [one.name for one in self.graph.input]
        self.before, rest = tuple(inputs[: self.count]), inputs[self.count :]
        if len(rest) not in (1, 2):
            raise ValueError(f"wanted one sequence, and perhaps where it ends, got {len(rest)}")
        self.fed: tuple[str, ...] = (rest[0],)
        self.inside = rest[1] if len(rest) == 2 else None
        self.inner = {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}
        self.known = set(inputs)

    def read(self) -> Body:
        for node in self.graph.node:
            self._add(node)
        after, output = self._results()
        if output != after[0]:
            raise ValueError("wanted the first state as the output of the body")
        widths = tuple(self._width(one) for one in self.graph.input[: self.count])
        cell = ScannedCell(
            tuple(self.steps), self.before, after, self.numbers,
            {name: len(one) for name, one in self.vectors.items()},
            (self.fed, self.M // len(self.fed), self.fed_bias),
            tuple((W.shape[1], W.shape[0] // parts, parts, bias is not None)
                  for W, bias, parts in self.products),
            widths,
        )  # fmt: skip
        parameters = {f"v{k}": one for k, one in enumerate(self.vectors.values())}
        for k, (W, bias, _) in enumerate(self.products):
            parameters[f"weight_p{k}"] = W
            if bias is not None:
                parameters[f"bias_p{k}"] = bias
        return Body(cell, parameters, self.inside is not None)

    def _width(self, one: onnx.ValueInfoProto) -> int:
        dims = one.type.tensor_type.shape.dim
        if len(dims) != 2 or dims[1].dim_value < 1:
            raise ValueError(f"state {one.name!r}: wanted shape [N, width]")
        return dims[1].dim_value

    def _results(self) -> tuple[tuple[str, ...], str]:
        """The names of the new states and of the output, without what keeps the old ones."""
        names = [one.name for one in self.graph.output]
        if len(names) != self.count + 1:
            raise ValueError(f"wanted {self.count} states and one output, got {len(names)} results")
        found = []
        for k, name in enumerate(names):
            op, reads, _ = self.made.get(name, ("", (), ()))
            if self.inside is not None:
                old = self.before[k] if k < self.count else None
                kept = len(reads) == 3 and reads[0] == self.inside
                if op != "Where" or not kept or not self._is_old(reads[2], old):
                    raise ValueError(f"result {name!r}: wanted the old state behind the end")
                self.steps.remove(self.made[name])
                found.append(reads[1])
            else:
                found.append(reads[0] if op == "Identity" else name)
        if any(self.inside in step[1] for step in self.steps):
            raise ValueError("wanted the ends of sequences to choose between states alone")
        return tuple(found[:-1]), found[-1]

    def _is_old(self, name: str, old: str | None) -> bool:
        return name == old if old is not None else self.numbers.get(name) == 0

    def _add(self, node: onnx.NodeProto) -> None:
        told, op = read_attributes(node), node.op_type
        if op == "MatMul":
            self._multiply(node)
        elif op == "Split":
            self._split(node, told)
        elif op == "Add" and self._bias(node):
            return
        elif op == "Not":
            before = self.made.get(node.input[0])
            if before is None or before[0] != "Equal":
                raise ValueError("Not: wanted it of Equal")
            self._note("NotEqual", before[1], node)
        elif op in ("Cast", "CastLike"):
            self._note("Cast", tuple(node.input[:1]), node)
        elif op == "ReduceMean":
            axes = told.get("axes", self._array(node.input[1]) if len(node.input) > 1 else ())
            if list(axes) != [-1] or not told.get("keepdims", 1):
                raise ValueError("ReduceMean: wanted it over the last axis, which stays")
            self._note(op, tuple(node.input[:1]), node)
        elif op in _FUNCTIONS and not told and node.domain in ("", "ai.onnx"):
            self._note(op, tuple(node.input), node)
        else:
            raise ValueError(f"{op}: wanted products with weights and functions of numbers")

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(self.inner[name] if name in self.inner else self.outer(name))

    def _note(self, op: str, reads: tuple[str, ...], node: onnx.NodeProto) -> None:
        for name in reads:
            if name not in self.known:
                array = self._array(name)
                if array.size == 1 and op not in _OF_VECTORS:
                    self.numbers[name] = float(array.reshape(()))
                elif array.ndim == 1:  # of one number, too: a function of numbers wants an array
                    self.vectors[name] = array
                else:
                    raise ValueError(f"{name!r}: wanted a number or a row of them")
                self.known.add(name)
        step = (op, reads, tuple(node.output))
        self.steps.append(step)
        self.known.update(node.output)
        self.made |= dict.fromkeys(node.output, step)

    def _multiply(self, node: onnx.NodeProto) -> None:
        source, weight = node.input
        array = self._array(weight) if weight not in self.known else np.zeros(0)
        if array.ndim != 2 or source not in self.known:
            raise ValueError(f"MatMul {node.output[0]!r}: wanted a vector times constant weights")
        self.products.append([array.T, None, 1])
        self._note(f"product {len(self.products) - 1}", (source,), node)

    def _last(self, name: str) -> list[Any] | None:
        """The product that was just made, if this is its whole result."""
        op, _, gives = self.steps[-1] if self.steps else ("", (), ())
        whole = op.startswith("product") and gives == (name,)
        return self.products[int(op.split()[1])] if whole else None

    def _renamed(self, gives: Any) -> None:
        op, reads, _ = self.steps.pop()
        step = (op, reads, tuple(gives))
        self.steps.append(step)
        self.known.update(gives)
        self.made |= dict.fromkeys(gives, step)

    def _bias(self, node: onnx.NodeProto) -> bool:
        made = self._last(node.input[0])
        if made is None or made[1] is not None or node.input[1] in self.known:
            return False
        array = self._array(node.input[1])
        if array.shape != (len(made[0]),):
            return False
        made[1] = array
        self._renamed(node.output)
        return True

    def _split(self, node: onnx.NodeProto, told: dict[str, Any]) -> None:
        parts = len(node.output)
        if told.get("axis", 0) != -1 or len(node.input) > 1 or "split" in told:
            raise ValueError("Split: wanted equal parts of the last axis")
        if (node.input[0],) == self.fed and self.M % parts == 0:
            self.fed = tuple(node.output)
            self.known.update(node.output)
            return
        made = self._last(node.input[0])
        if made is None or len(made[0]) % parts:
            raise ValueError("Split: wanted it of a product, right behind it")
        made[2] = parts
        self._renamed(node.output)
