"""A cell whose step is a list of operations, from the body of a Scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, Gates, State, Value, product, vector

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda x, y: x + y, "Sub": lambda x, y: x - y, "Mul": lambda x, y: x * y,
    "Div": lambda x, y: x / y, "Neg": lambda x: -x, "Pow": lambda x, y: x**y, "Abs": abs,
    "Exp": cells.exp, "Log": cells.log, "Sqrt": cells.sqrt, "Sigmoid": cells.sigmoid,
    "Tanh": cells.tanh, "Relu": cells.relu, "Softplus": cells.softplus,
    "Softsign": cells.softsign, "Min": cells.minimum, "Max": cells.maximum,
    "Less": lambda x, y: x < y, "LessOrEqual": lambda x, y: x <= y, "Equal": lambda x, y: x == y,
    "NotEqual": lambda x, y: x != y, "Where": cells.where, "ReduceMean": cells.mean,
    "Cast": lambda x: x * 1.0, "Identity": lambda x: x,
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """A function of ``FUNCTIONS``, or a product of the cell by its number; the names that it reads
    and defines."""

    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    product: int | None = None


@dataclass(frozen=True)
class InputProduct:
    """The names of the parts of the input product, their width, whether it has a bias, and its
    blocks."""

    parts: tuple[str, ...]
    width: int
    bias: bool
    blocks: int


@dataclass(frozen=True)
class StepProduct:
    """A product of a step: the width of its source, the number of parts of its result, their width,
    whether it has a bias, and its blocks."""

    source: int
    parts: int
    width: int
    bias: bool
    blocks: int


@dataclass(frozen=True)
class StepRecord:
    """A step as operations over names, in order.

    ``old_states`` and ``new_states`` are the names of the states and of their new values;
    ``numbers`` names that stand for one number, ``vectors`` the names of parameter vectors.
    """

    operations: tuple[Operation, ...]
    old_states: tuple[str, ...]
    new_states: tuple[str, ...]
    numbers: dict[str, float]
    vectors: tuple[str, ...]
    input_parts: tuple[str, ...]


class ScanCell(Cell):
    """A cell whose step is a list of operations.

    Product number k of the cell is called ``p{k}``, vector number k ``v{k}``.
    """

    def __init__(
        self,
        record: StepRecord,
        state_widths: tuple[int, ...],
        input_product: InputProduct,
        products: tuple[StepProduct, ...],
        vector_sizes: tuple[int, ...],
    ) -> None:
        self._record = record
        self.states = tuple("hcnm"[k] if k < 4 else f"s{k}" for k in range(len(state_widths)))  # type: ignore[misc]
        self.widths = dict(zip(self.states, state_widths, strict=True))  # type: ignore[misc]
        self.gates = tuple(f"part{k}" for k in range(len(input_product.parts)))  # type: ignore[misc]
        self.input = product(
            *self.gates,
            width=input_product.width,
            bias=input_product.bias,
            blocks=input_product.blocks,
        )
        self.recurrent = None
        for k, declared in enumerate(products):
            parts = declared.parts
            targets = tuple(f"part{j}" for j in range(parts)) if parts > 1 else ()
            step_product = product(
                *targets,
                source=declared.source,
                width=declared.width,
                bias=declared.bias,
                blocks=declared.blocks,
            )
            setattr(self, f"p{k}", step_product)
        for k, size in enumerate(vector_sizes):
            setattr(self, f"v{k}", vector(size))

    def step(self, x: Gates, h: Gates, state: State) -> Value | tuple[Value, ...]:
        record = self._record
        values: dict[str, Any] = dict(record.numbers)  # numbers and Values
        values |= {name: getattr(self, f"v{k}") for k, name in enumerate(record.vectors)}
        states = zip(record.old_states, self.states, strict=True)
        values |= {name: getattr(state, state_name) for name, state_name in states}
        gates = zip(record.input_parts, self.gates, strict=True)
        values |= {name: getattr(x, gate) for name, gate in gates}
        for operation in record.operations:
            arguments = [values[name] for name in operation.inputs]
            names = operation.outputs
            if operation.product is None:
                values[names[0]] = FUNCTIONS[operation.function](*arguments)
                continue
            result = getattr(self, f"p{operation.product}")(*arguments)
            if len(names) == 1:
                values[names[0]] = result
            else:
                values |= {name: getattr(result, f"part{k}") for k, name in enumerate(names)}
        new_states = tuple(values[name] for name in record.new_states)
        return new_states if len(new_states) > 1 else new_states[0]
