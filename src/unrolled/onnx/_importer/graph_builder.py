"""Builds the ``torch.fx`` graph of an imported model while its nodes are converted.

The rules for single operators are in ``math_rules``, ``shape_rules`` and ``recurrent_rules``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from unrolled._limits import Budget
from unrolled.onnx._importer.attributes import STANDARD_DOMAINS, Attributes, node_label
from unrolled.onnx._importer.shape_functions import Dims
from unrolled.onnx._importer.shape_inference import ShapeInference
from unrolled.onnx._importer.values import RefusedError, Value

MAX_INTEGERS = 1024
"""The maximum number of elements of an operator's axes, shapes and bounds."""


@dataclass(frozen=True)
class ImportedNode:
    """A node, its attributes, and its inputs as values (None: omitted)."""

    proto: onnx.NodeProto
    attributes: Attributes
    inputs: list[Value | None]

    @property
    def label(self) -> str:
        """The name of the node in messages."""
        return node_label(self.proto)

    def input(self, index: int) -> Value:
        """A required input.

        Raises:
            RefusedError: it is absent.
        """
        value = self.optional_input(index)
        if value is None:
            raise RefusedError(f"{self.label}: input {index} must be present, got none")
        return value

    def optional_input(self, index: int) -> Value | None:
        """An input, or None if it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant_integers(self, index: int) -> list[int] | None:
        """The integers of a constant input; None if it is not constant.

        Raises:
            RefusedError: there are more of them than any operator reads.
        """
        value = self.optional_input(index)
        if value is None or value.array is None:
            return None
        if value.array.size > MAX_INTEGERS:
            raise RefusedError(
                f"{self.label}: input {index} must have at most {MAX_INTEGERS} numbers, got "
                f"{value.array.size}"
            )
        return [int(item) for item in np.asarray(value.array).reshape(-1)]

    def required_inputs(self) -> list[Value]:
        """All inputs, which are required."""
        return [self.input(index) for index in range(len(self.inputs))]


class GraphBuilder:
    """Holds the graph, its modules and constants, and the values of the model by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, Value] = {}
        versions = [
            opset.version for opset in model.opset_import if opset.domain in STANDARD_DOMAINS
        ]
        self.opset = max(versions, default=1)
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(output.name for output in model.graph.output)
        self.shapes = ShapeInference()
        self.budget = Budget(model.ByteSize())
        self._constants: dict[int, tuple[str, np.ndarray]] = {}
        self._name_counts: Counter[str] = Counter()

    def dims(self, name: str) -> Dims | None:
        """The shape of a value: numbers, names, "" for an unknown size; None for unknown rank."""
        return self.shapes.dims.get(name)

    def is_integer(self, name: str) -> bool:
        """Whether a value is certain to hold integers of 32 or 64 bits."""
        return name in self.shapes.integer_values

    def define(self, values: Mapping[str, Value]) -> None:
        """Define the values of names."""
        self.values |= values
        for name, value in values.items():
            if value.array is not None:
                self.shapes.add_constant(name, value.array)

    def unique_name(self, stem: str) -> str:
        """A name for a module or a constant."""
        self._name_counts[stem] += 1
        number = self._name_counts[stem]
        return stem if number == 1 else f"{stem}_{number}"

    def call_module(
        self, stem: str, module: nn.Module, *args: Argument, **kwargs: Argument
    ) -> fx.Node:
        """A call of a new module."""
        name = self.unique_name(stem)
        self.root.add_module(name, module)
        return self.graph.call_module(name, args, kwargs)

    def call(self, function: Callable[..., object], *args: Argument, **kwargs: Argument) -> fx.Node:
        """A call of a function."""
        return self.graph.call_function(function, args, kwargs)

    def constant(self, array: np.ndarray) -> fx.Node:
        """A buffer with these numbers."""
        if id(array) not in self._constants:
            self.charge(array.size, "constant")
            name = self.unique_name("constant")
            self.root.register_buffer(name, torch.from_numpy(np.array(array)))
            # Keep the array alive so that its id is not reused.
            self._constants[id(array)] = (name, array)
        return self.graph.get_attr(self._constants[id(array)][0])

    def node(self, value: Value) -> fx.Node:
        """The node of a value as it is in the graph of ONNX.

        Raises:
            RefusedError: the value has none.
        """
        stored = self.stored_node(value)
        swapped = value.node is not None and value.swapped
        return self.call(torch.transpose, stored, 0, 1) if swapped else stored

    def stored_node(self, value: Value) -> fx.Node:
        """The node of a value, with the first two axes exchanged if the value is swapped.

        Raises:
            RefusedError: the value has none.
        """
        if value.error is not None:
            raise RefusedError(value.error)
        if value.node is not None:
            return value.node
        if value.array is None:
            raise RefusedError(
                "unrolled.onnx: values that are read must be defined, got an undefined one"
            )
        return self.constant(value.array)

    def is_rowwise(self, name: str, value: Value) -> bool:
        """Whether a function of the last axis may be applied to the stored node."""
        dims = self.dims(name)
        return not value.swapped or (dims is not None and len(dims) > 2)

    def finish(self, outputs: Sequence[str]) -> fx.GraphModule:
        """Build the module that returns these values; unused nodes are removed.

        Raises:
            RefusedError: a value has no node.
        """
        nodes = [self.node(self.values[name]) for name in outputs]
        self.graph.output(nodes[0] if len(nodes) == 1 else tuple(nodes))
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "Imported")

    def charge(self, numbers: int, label: str) -> None:
        """Count elements against the file's budget, before they are allocated.

        Raises:
            ValueError: the budget is exhausted.
        """
        self.budget.take(max(0, int(numbers)), label)

    def parameter(self, array: np.ndarray, label: str) -> nn.Parameter:
        """A copy of a constant."""
        self.charge(array.size, label)
        return nn.Parameter(torch.from_numpy(np.array(array)))

    def fold(
        self,
        n: ImportedNode,
        function: Callable[..., Tensor],
        size: Callable[..., int] | None = None,
        inputs: Sequence[Value | None] | None = None,
    ) -> Value | None:
        """The result of a function of a node's inputs (by default all) if they are constant, else
        None.

        The elements of inputs and result are counted before the function runs: ``size`` computes
        the number of the result's elements from the inputs; by default it equals theirs.
        """
        tensors = self._constant_inputs(n, size, inputs)
        return None if tensors is None else Value(array=function(*tensors).numpy())

    def fold_parts(
        self,
        n: ImportedNode,
        function: Callable[..., Sequence[Tensor]],
        inputs: Sequence[Value | None],
    ) -> list[Value] | None:
        """As ``fold``, for a function with several results."""
        tensors = self._constant_inputs(n, None, inputs)
        if tensors is None:
            return None
        return [Value(array=part.numpy()) for part in function(*tensors)]

    def _constant_inputs(
        self,
        n: ImportedNode,
        size: Callable[..., int] | None,
        inputs: Sequence[Value | None] | None,
    ) -> list[Tensor | None] | None:
        values = n.inputs if inputs is None else inputs
        arrays = [None if value is None else value.array for value in values]
        constants = [array for array in arrays if array is not None]
        if not constants or len(constants) < sum(value is not None for value in values):
            return None
        read = sum(array.size for array in constants)
        self.charge(read + (read if size is None else size(*arrays)), n.label)
        return [None if array is None else torch.from_numpy(np.array(array)) for array in arrays]


Rule = Callable[[GraphBuilder, ImportedNode], list[Value]]
"""Converts a node; returns its outputs as values."""


class RuleTable(dict[str, Rule]):
    """Rules by the names of their operators."""

    def register(self, *names: str) -> Callable[[Rule], Rule]:
        """A decorator that makes a function the rule of these operators."""

        def add(rule: Rule) -> Rule:
            self.update(dict.fromkeys(names, rule))
            return rule

        return add


def axes_of(n: ImportedNode) -> list[int] | None:
    """The axes of an operator that reads them from an attribute or from its second input."""
    axes = n.attributes.integers("axes")
    if axes is not None:
        return axes
    if n.optional_input(1) is None:
        return None
    axes = n.constant_integers(1)
    if axes is None:
        raise RefusedError(f"{n.label}: axes must be constant, got a computed value")
    return axes
