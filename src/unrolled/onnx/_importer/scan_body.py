"""Reads the body of a Scan as the step of a cell.

``unrolled.onnx.export`` writes cells that no standard operator has as a Scan. Its body consists of
products with constant weights, constant vectors and pointwise functions; its one sequence is a
product of the input; it may keep its states after the end of a sequence.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from unrolled.cells import Cell
from unrolled.onnx._importer.attributes import STANDARD_DOMAINS, Attributes
from unrolled.onnx._importer.block_diagonal import Chain
from unrolled.onnx._importer.scan_cell import (
    FUNCTIONS,
    InputProduct,
    Operation,
    ScanCell,
    StepProduct,
    StepRecord,
)

_VECTOR_FUNCTIONS = {"Exp", "Log", "Sqrt", "Sigmoid", "Tanh", "Relu", "Softplus", "Softsign"}
"""Functions that take only arrays, not Python numbers."""


@dataclass
class _Product:
    """A product of the body: its weight [rows, K / blocks], its bias or None, the number of parts
    of its result, and the number that its blocks require (None: any)."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    parts: int = 1
    blocks: int = 1
    required_parts: int | None = None

    def declaration(self) -> StepProduct:
        """The product without its arrays."""
        rows, columns = self.weight.shape
        _check_parts(self.parts, self.required_parts)
        width, bias = rows // self.parts, self.bias is not None
        return StepProduct(columns * self.blocks, self.parts, width, bias, self.blocks)


@dataclass(frozen=True)
class InputForm:
    """The input product of all steps: its rows, whether it has a bias, its blocks, and the number
    of parts that these require (None: any)."""

    rows: int
    bias: bool
    blocks: int
    required_parts: int | None


@dataclass(frozen=True)
class ScanBody:
    """The cell of a body, the parameters of its products and vectors, and whether the body keeps
    its states after the end of a sequence."""

    cell: Cell
    parameters: dict[str, np.ndarray]
    masked: bool


def read_body(
    graph: onnx.GraphProto,
    outer_constant: Callable[[str], np.ndarray],
    state_count: int,
    input_form: InputForm,
) -> ScanBody:
    """The cell of a Scan's body.

    Args:
        graph: the body.
        outer_constant: returns the constant of a name outside of the body, or raises.
        state_count: the number of states.
        input_form: the input product, whose rows the body reads as [N, rows].

    Raises:
        ValueError: the body cannot be the step of a cell.
    """
    return _BodyReader(graph, outer_constant, state_count, input_form).read()


@dataclass
class _BodyReader:
    graph: onnx.GraphProto
    outer_constant: Callable[[str], np.ndarray]
    state_count: int
    input_form: InputForm
    operations: list[Operation] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    products: list[_Product] = field(default_factory=list)
    sources: dict[str, Operation] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [info.name for info in self.graph.input]
        self.old_states, sequences = tuple(names[: self.state_count]), names[self.state_count :]
        if len(sequences) not in (1, 2):
            raise ValueError(
                f"body must read one sequence, or one and a mask, got {len(sequences)}"
            )
        self.input_parts: tuple[str, ...] = (sequences[0],)
        self.mask = sequences[1] if len(sequences) == 2 else None
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer
        }
        self.defined = set(names)

    def read(self) -> ScanBody:
        for node in self.graph.node:
            self._add(node)
        new_states, output = self._results()
        if output != new_states[0]:
            raise ValueError("the output of the body must be its first state, got another")
        widths = tuple(_state_width(info) for info in self.graph.input[: self.state_count])
        parts, form = self.input_parts, self.input_form
        _check_parts(len(parts), form.required_parts)
        cell = ScanCell(
            StepRecord(
                tuple(self.operations), self.old_states, new_states, self.numbers,
                tuple(self.vectors), parts,
            ),
            widths,
            InputProduct(parts, form.rows // len(parts), form.bias, form.blocks),
            tuple(declared.declaration() for declared in self.products),
            tuple(len(array) for array in self.vectors.values()),
        )  # fmt: skip
        return ScanBody(cell, self._parameters(), self.mask is not None)

    def _parameters(self) -> dict[str, np.ndarray]:
        parameters = {f"v{k}": array for k, array in enumerate(self.vectors.values())}
        for k, declared in enumerate(self.products):
            parameters[f"weight_p{k}"] = declared.weight
            if declared.bias is not None:
                parameters[f"bias_p{k}"] = declared.bias
        return parameters

    def _results(self) -> tuple[tuple[str, ...], str]:
        """The names of the new states and of the output, before the mask keeps the old ones."""
        names = [info.name for info in self.graph.output]
        if len(names) != self.state_count + 1:
            raise ValueError(
                f"body must have {self.state_count} states and one output, got {len(names)} results"
            )
        old_names = [*self.old_states, None]
        results = [self._unmasked(*pair) for pair in zip(names, old_names, strict=True)]
        if self.mask is not None and any(self.mask in op.inputs for op in self.operations):
            raise ValueError("the mask must select states only, got another use of it")
        return tuple(results[:-1]), results[-1]

    def _unmasked(self, name: str, old_state: str | None) -> str:
        """The name of a result before the mask selects between it and the old state (zero for
        the output)."""
        source = self.sources.get(name)
        if self.mask is None:
            is_copy = source is not None and source.function == "Identity"
            return source.inputs[0] if source is not None and is_copy else name
        if (
            source is None
            or source.function != "Where"
            or len(source.inputs) != 3
            or source.inputs[0] != self.mask
            or not self._is_unchanged(source.inputs[2], old_state)
        ):
            raise ValueError(
                f"result {name!r} must be the old state after the end of a sequence, got "
                "another value"
            )
        self.operations.remove(source)
        return source.inputs[1]

    def _is_unchanged(self, name: str, old_state: str | None) -> bool:
        return name == old_state if old_state is not None else self.numbers.get(name) == 0

    def _add(self, node: onnx.NodeProto) -> None:
        attributes, op = Attributes(node), node.op_type
        if op in ("Reshape", "Transpose") or (op == "MatMul" and node.input[0] in self.chains):
            self._add_to_chain(node, attributes)
        elif op == "MatMul":
            self._add_product(node)
        elif op == "Split":
            self._add_split(node, attributes)
        elif op == "Add" and self._add_bias(node):
            return
        elif op == "Not":
            source = self.sources.get(node.input[0])
            if source is None or source.function != "Equal":
                raise ValueError("Not: its input must be the result of Equal, got another value")
            self._add_operation("NotEqual", source.inputs, node)
        elif op in ("Cast", "CastLike"):
            self._add_operation("Cast", node.input[:1], node)
        elif op == "ReduceMean":
            if self._reduced_axes(node, attributes) != [-1] or not attributes.flag(
                "keepdims", True
            ):
                raise ValueError("ReduceMean: axes must be [-1] with keepdims=1, got others")
            self._add_operation(op, node.input[:1], node)
        elif op in FUNCTIONS and not [*attributes] and node.domain in STANDARD_DOMAINS:
            self._add_operation(op, node.input, node)
        else:
            raise ValueError(
                f"operators must be products with weights or pointwise functions, got {op}"
            )

    def _reduced_axes(self, node: onnx.NodeProto, attributes: Attributes) -> list[int]:
        axes = attributes.integers("axes")
        if axes is not None:
            return axes
        return [int(axis) for axis in self._array(node.input[1])] if len(node.input) > 1 else []

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(
            self.constants[name] if name in self.constants else self.outer_constant(name)
        )

    def _add_operation(
        self,
        function: str,
        inputs: Iterable[str],
        node: onnx.NodeProto,
        product: int | None = None,
    ) -> None:
        inputs = tuple(inputs)
        for name in inputs:
            if name not in self.defined:
                self._add_constant(name, function)
        self._define(Operation(function, inputs, tuple(node.output), product))

    def _add_constant(self, name: str, function: str) -> None:
        array = self._array(name)
        if array.size == 1 and function not in _VECTOR_FUNCTIONS:
            self.numbers[name] = float(array.reshape(()))
        elif array.ndim == 1:
            self.vectors[name] = array
        else:
            raise ValueError(
                f"{name!r} must be a number or a vector, got shape {list(array.shape)}"
            )
        self.defined.add(name)

    def _define(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.defined.update(operation.outputs)
        self.sources |= dict.fromkeys(operation.outputs, operation)

    def _rename_outputs(self, outputs: Iterable[str]) -> None:
        """Give the results of the latest operation other names."""
        operation = self.operations.pop()
        self._define(
            Operation(operation.function, operation.inputs, tuple(outputs), operation.product)
        )

    def _add_product(self, node: onnx.NodeProto) -> None:
        source, weight = node.input
        array = self._array(weight) if weight not in self.defined else np.zeros(0)
        if array.ndim != 2 or source not in self.defined:
            raise ValueError(
                f"MatMul {node.output[0]!r}: it must multiply a vector by constant weights, got "
                "other inputs"
            )
        self.products.append(_Product(array.T))
        self._add_operation("product", (source,), node, len(self.products) - 1)

    def _add_to_chain(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        """One of the nodes of a product with a block-diagonal weight."""
        name = node.input[0]
        chain = self.chains.get(name) or (Chain(name) if name in self.defined else None)
        permutation = attributes.integers("perm") or []
        argument = permutation if node.op_type == "Transpose" else self._array(node.input[1])
        chain = None if chain is None else chain.extended(node.op_type, argument)
        product = chain.product(rank=2) if chain is not None and chain.is_complete else None
        if chain is None or (product is None and chain.is_complete):
            raise ValueError(
                f"{node.op_type} {node.output[0]!r}: it must be part of a product with a "
                "block-diagonal weight, got other nodes"
            )
        if product is None:
            self.chains[node.output[0]] = chain
            return
        declared = _Product(product.weight, blocks=product.blocks, required_parts=product.parts)
        self.products.append(declared)
        self._add_operation("product", (chain.source,), node, len(self.products) - 1)

    def _latest_product(self, name: str) -> _Product | None:
        """The product of the latest operation, if ``name`` is its whole result."""
        if not self.operations:
            return None
        operation = self.operations[-1]
        if operation.product is None or operation.outputs != (name,):
            return None
        return self.products[operation.product]

    def _add_bias(self, node: onnx.NodeProto) -> bool:
        """Whether an Add is the bias of the latest product."""
        declared = self._latest_product(node.input[0])
        if declared is None or declared.bias is not None or node.input[1] in self.defined:
            return False
        array = self._array(node.input[1])
        if array.shape != (len(declared.weight),):
            return False
        declared.bias = array
        self._rename_outputs(node.output)
        return True

    def _add_split(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        parts = len(node.output)
        axis = attributes.integer("axis", 0)
        if axis != -1 or len(node.input) > 1 or "split" in attributes:
            raise ValueError(f"Split: it must give equal parts along axis -1, got axis {axis}")
        if (node.input[0],) == self.input_parts and self.input_form.rows % parts == 0:
            self.input_parts = tuple(node.output)
            self.defined.update(node.output)
            return
        declared = self._latest_product(node.input[0])
        if declared is None or len(declared.weight) % parts:
            raise ValueError("Split: its input must be the product before it, got another value")
        declared.parts = parts
        self._rename_outputs(node.output)


def _check_parts(parts: int, required: int | None) -> None:
    if required not in (None, parts):
        raise ValueError(
            f"a product with a block-diagonal weight must be split into {required} parts, got "
            f"{parts}"
        )


def _state_width(info: onnx.ValueInfoProto) -> int:
    dims = info.type.tensor_type.shape.dim
    if len(dims) != 2 or dims[1].dim_value < 1:
        raise ValueError(
            f"state {info.name!r} must have shape [N, width], got {len(dims)} dimensions"
        )
    return int(dims[1].dim_value)
