"""A graph of ONNX as a graph of ``torch.fx``: what each name holds while the nodes are followed.

What single operators become is in ``rules``. A value knows more than its place in the graph where
that keeps the graph plain: that it is a constant, that it is the outputs of a layer with the
directions on an axis of their own, that only its first two axes are exchanged, so that a layer may
be ``batch_first`` instead.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from unrolled.limits import Budget
from unrolled.onnx.importer.recurrent_node import where_of
from unrolled.onnx.importer.shape_inference import Dims, Shapes

__all__ = [
    "Builder",
    "Node",
    "RefusedError",
    "Rule",
    "Rules",
    "Separated",
    "Value",
    "axes_of",
    "numbers",
]


LONGEST_ROW = 1024
"""Numbers of an operator's axes, shapes and bounds."""


class RefusedError(ValueError):
    """A node is none that this library makes a module of; the message names it."""


@dataclass(frozen=True)
class Separated:
    """Outputs of a layer as the operators give them, with an axis of D directions: ``merged`` is
    the layer's own [T, N, D·H], ``turned`` that it has T and N exchanged; ``last`` says whether D
    and H are the last two axes, [T, N, D, H], as they are behind the usual Transpose."""

    merged: fx.Node
    D: int
    H: int
    turned: bool
    last: bool


@dataclass(frozen=True)
class Value:
    """What a name of the graph stands for.

    ``array`` is set of constants, ``fill`` where all elements are one number, whatever the shape;
    ``turned`` says that ``node`` has the first two axes exchanged; ``narrow`` is what was expanded
    to it, all rows alike; ``layer`` says that it is a layer's outputs; ``state_of_one`` that it is
    the only row of a layer's final state, [1, N, H]; ``stacked`` are such rows that it is made of;
    ``product`` says that it is a linear layer that still may get a bias; ``lifted`` is the state
    whose row it is; ``counts`` says that it is 0, 1, 2, …, and ``until`` is what such numbers are
    compared with, where they are below it. ``refused`` is why there is no node.
    """

    node: fx.Node | None = None
    array: np.ndarray | None = None
    fill: float | None = None
    turned: bool = False
    narrow: "Value | None" = None
    layer: Separated | None = None
    state_of_one: bool = False
    stacked: "tuple[Value, ...]" = ()
    product: nn.Linear | None = None
    lifted: "Value | None" = None
    counts: bool = False
    until: fx.Node | None = None
    refused: str | None = None


class Builder:
    """Holds the graph that is made, its modules and constants, and the values by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, Value] = {}
        self.opset = max(
            (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1
        )
        self.reads = Counter(name for node in model.graph.node for name in node.input)
        self.reads.update(one.name for one in model.graph.output)
        self.shapes = Shapes()
        self.budget = Budget(model.ByteSize())
        self._constants: dict[int, tuple[str, np.ndarray]] = {}
        self._made: Counter[str] = Counter()

    def dims(self, name: str) -> Dims | None:
        """The shape of a value: numbers, names, "" for what is not known; None: no rank."""
        return self.shapes.dims.get(name)

    def is_whole(self, name: str) -> bool:
        """Whether a value is known to hold whole numbers of 32 or 64 bits."""
        return name in self.shapes.whole

    def note(self, values: Mapping[str, Value]) -> None:
        """What names stand for."""
        self.values |= values
        for name, value in values.items():
            if value.array is not None:
                self.shapes.of_constant(name, value.array)

    def fresh(self, kind: str) -> str:
        """A name for a module or a constant."""
        self._made[kind] += 1
        number = self._made[kind]
        return kind if number == 1 else f"{kind}_{number}"

    def module(self, kind: str, module: nn.Module, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a new module."""
        name = self.fresh(kind)
        self.root.add_module(name, module)
        return self.graph.call_module(name, args, kwargs)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a function."""
        return self.graph.call_function(function, args, kwargs)

    def constant(self, array: np.ndarray) -> fx.Node:
        """A buffer with these numbers."""
        if id(array) not in self._constants:
            self.take(array.size, "constant")
            name = self.fresh("constant")
            self.root.register_buffer(name, torch.from_numpy(np.array(array)))
            self._constants[id(array)] = (name, array)  # held, so that the number stays its own
        return self.graph.get_attr(self._constants[id(array)][0])

    def node(self, value: Value) -> fx.Node:
        """The node of a value as it is in the graph of ONNX.

        Raises:
            RefusedError: there is none.
        """
        if value.refused is not None:
            raise RefusedError(value.refused)
        if value.node is None:
            if value.array is None:
                raise RefusedError("a value of no kind")
            return self.constant(value.array)
        return self.call(torch.transpose, value.node, 0, 1) if value.turned else value.node

    def raw(self, value: Value) -> fx.Node:
        """The node as it stands: of a turned value, with the first two axes exchanged."""
        return self.node(replace(value, turned=False))

    def is_rows(self, name: str, value: Value) -> bool:
        """Whether what is done to the last axis does not mind how the first two stand."""
        dims = self.dims(name)
        return not value.turned or (dims is not None and len(dims) > 2)

    def finish(self, outputs: Sequence[str]) -> fx.GraphModule:
        """The module that gives these values; what nothing needs is gone.

        Raises:
            RefusedError: a value has no node.
        """
        found = [self.node(self.values[name]) for name in outputs]
        self.graph.output(found[0] if len(found) == 1 else tuple(found))
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "Imported")

    def take(self, numbers: int, where: str) -> None:
        """Count so many numbers of the file's budget, before they are made.

        Raises:
            ValueError: the file has asked for more than it may.
        """
        self.budget.take(max(0, int(numbers)), where)

    def parameter(self, array: np.ndarray, where: str) -> nn.Parameter:
        """A copy of a constant."""
        self.take(array.size, where)
        return nn.Parameter(torch.from_numpy(np.array(array)))

    def fold(
        self,
        n: "Node",
        function: Callable[..., Any],
        size: Callable[..., int] | None = None,
        inputs: Sequence[Value | None] | None = None,
    ) -> Any:
        """What a function gives of a node's inputs (or of those named) where all are constant, else
        None. What it reads and makes is counted before it runs: ``size`` says of the arrays how
        many numbers it makes, by default as many as it reads.
        """
        values = n.inputs if inputs is None else inputs
        arrays = [None if one is None else one.array for one in values]
        given = [array for array in arrays if array is not None]
        if not given or len(given) < sum(one is not None for one in values):
            return None
        read = sum(array.size for array in given)
        self.take(read + (read if size is None else size(*arrays)), n.where)
        made = function(
            *(None if array is None else torch.from_numpy(np.array(array)) for array in arrays)
        )
        if isinstance(made, Tensor):
            return Value(array=made.numpy())
        return [Value(array=one.numpy()) for one in made]


@dataclass(frozen=True)
class Node:
    """A node, its attributes, and its inputs as values (None: left out)."""

    proto: onnx.NodeProto
    told: dict[str, Any]
    inputs: list[Any]

    @property
    def where(self) -> str:
        """As messages name it."""
        return where_of(self.proto)


Rule = Callable[[Builder, Node], list[Value]]
"""Gives the outputs of a node as values."""


class Rules(dict[str, Rule]):
    """Rules by the operators that they are of."""

    def of(self, *names: str) -> Callable[[Rule], Rule]:
        """Note a function as the rule of these operators."""

        def keep(rule: Rule) -> Rule:
            self.update(dict.fromkeys(names, rule))
            return rule

        return keep


def numbers(value: Value | None) -> list[int] | None:
    """A constant list of whole numbers; None where it is none.

    Raises:
        RefusedError: it is longer than any operator's.
    """
    if value is None or value.array is None:
        return None
    if value.array.size > LONGEST_ROW:
        raise RefusedError(f"a row of at most {LONGEST_ROW} numbers, got {value.array.size}")
    return [int(one) for one in np.asarray(value.array).reshape(-1)]


def axes_of(n: Node) -> list[int] | None:
    """The axes of an operator that has them as an attribute, or as its second input."""
    if "axes" in n.told:
        return [int(one) for one in n.told["axes"]]
    if len(n.inputs) < 2 or n.inputs[1] is None:
        return None
    found = numbers(n.inputs[1])
    if found is None:
        raise RefusedError("axes that are not constant")
    return found
