"""Describes a user's module as a chain of blocks, by tracing it with ``torch.fx``."""

import copy
import inspect
import operator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled.export._errors import error_at, unknown_module_error
from unrolled.export._initial_states import InitialStateReader
from unrolled.export._inplace import check_inplace_operations
from unrolled.export._known_modules import describe, is_known
from unrolled.export._layer_results import LayerResults, arguments_of
from unrolled.export._tracing import trace, unchanged
from unrolled.nn import Recurrent
from unrolled.nn._snapshot import ExportError
from unrolled.runtime._schema import (
    ActivationBlock,
    Block,
    LastBlock,
    PoolingBlock,
    RecurrentBlock,
    WordsBlock,
)

_ACTIVATIONS: dict[object, str] = {
    torch.relu: "relu", F.relu: "relu", torch.tanh: "tanh", F.tanh: "tanh",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", torch.softmax: "softmax",
    F.softmax: "softmax", torch.log_softmax: "log_softmax", F.log_softmax: "log_softmax",
}  # fmt: skip
_POOLINGS: dict[object, str] = {
    torch.mean: "mean", "mean": "mean", torch.amax: "max", "amax": "max",
}  # fmt: skip
_MATRIX_PRODUCTS = (torch.bmm, torch.matmul, torch.einsum, operator.matmul, "bmm")
_LENGTH_METHODS = ("cpu", "to", "long", "int", "tolist")
"""Methods that may be applied to lengths before a layer reads them."""


def describe_chain(module: nn.Module, dtype: torch.dtype) -> list[Block]:
    """The blocks of a module in evaluation mode.

    Args:
        dtype: the dtype of all parameters.

    Raises:
        ExportError: a submodule is not known, has another dtype, or reads something other than the
            result of the one before it.
    """
    name = type(module).__name__
    with torch.no_grad():
        layers = [path for path, child in module.named_modules() if isinstance(child, Recurrent)]
        if is_known(module) or not layers:
            return describe(module, name, dtype)
        with unchanged(module):
            blocks = _trace_chain(module, dtype).blocks
        if not any(isinstance(block, RecurrentBlock | WordsBlock) for block in blocks):
            raise ExportError(
                f"{name}: output must be computed from a layer's, got one that does not read "
                f"{', '.join(layers)}"
            )
        return blocks


def _trace_chain(module: nn.Module, dtype: torch.dtype) -> "_Chain":
    """The chain of a module.

    It is traced without the optional inputs that are states, if possible: the states that forward
    then creates become the initial states of the file.
    """
    chain = _Chain(module, trace(module), dtype)
    omitted = _optional_inputs(module) & chain.state_inputs
    if not omitted:
        return chain
    try:
        graph = trace(module, dict.fromkeys(omitted))
    except ExportError:  # the code does not run without them
        return chain
    return _Chain(module, graph, dtype)


def _optional_inputs(module: nn.Module) -> set[str]:
    """Inputs of a module whose default is None."""
    if isinstance(module, fx.GraphModule):
        return set()
    parameters = inspect.signature(module.forward).parameters
    return {name for name, parameter in parameters.items() if parameter.default is None}


class _Chain:
    """Converts a graph, in which each node reads the result of the one before, to blocks.

    Attributes:
        current: the node that the next block reads; None directly after a layer, whose results are
            in ``results``.
        source: the input of the module.
        data: the input and the results of the blocks so far.
        state_inputs: inputs of the module that are states.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self.blocks: list[Block] = []
        self.current: fx.Node | None = None
        self.results = LayerResults()
        self.source: fx.Node | None = None
        self.data: set[fx.Node] = set()
        self.state_inputs: set[str] = set()
        check_inplace_operations(module, graph)
        needed = self._needed_nodes(graph)
        nodes = [node for node in graph.nodes if node in needed]
        for node in nodes:
            # First, since an error about an operation on its results would be less helpful.
            if node.op == "call_module":
                child = module.get_submodule(str(node.target))
                if not is_known(child):
                    raise unknown_module_error(node, child)
            if node.target in _MATRIX_PRODUCTS:
                raise error_at(node, "a block of the chain")
        for node in nodes:
            self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder":
                if self.source is not None:
                    raise error_at(node, "one input")
                self.current = self.source = node
            case "get_attr":
                raise error_at(node, "modules that read the result of the one before them")
            case "call_module":
                self._call_module(node)
            case "call_function":
                self._call_function(node)
            case "call_method":
                self._call_method(node)
            case "output":
                self._check_output(node)
        if self.current is not None:
            self.data.add(self.current)

    def _needed_nodes(self, graph: fx.Graph) -> set[fx.Node]:
        """The nodes that the first output needs, except states and lengths of layers, which the
        runtime passes itself."""
        needed: set[fx.Node] = set()
        pending = [next(node for node in reversed(graph.nodes) if node.op == "output")]
        while pending:
            node = pending.pop()
            if node in needed:
                continue
            needed.add(node)
            arguments: object = node.all_input_nodes
            if node.op == "output" and isinstance(node.args[0], tuple | list):
                arguments = node.args[0][:1]
            elif self._is_layer(node) or node.target is pack_padded_sequence:
                arguments = node.args[:1]
            assert isinstance(arguments, tuple | list)
            pending += [argument for argument in arguments if isinstance(argument, fx.Node)]
        return needed

    def _is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(
            self.module.get_submodule(str(node.target)), Recurrent
        )

    def _call_module(self, node: fx.Node) -> None:
        child = self.module.get_submodule(str(node.target))
        packed = self.current is not None and self._is_packed(self.current)
        if packed and not isinstance(child, Recurrent):
            raise error_at(node, "a layer, or pad_packed_sequence, after packed sequences")
        if node.args[:1] != (self.current,) or not self._reads_nothing_else(node):
            raise error_at(node, "a module that reads only the result of the one before it")
        if isinstance(child, nn.Softmax | nn.LogSoftmax) and child.dim == self._rank() - 1:
            child = copy.copy(child)
            child.dim = -1
        self.blocks += describe(child, str(node.target), self.dtype)
        self.current = node
        if isinstance(child, Recurrent):
            self._enter_layer(node, child, packed)

    def _enter_layer(self, node: fx.Node, layer: Recurrent, packed: bool) -> None:
        packing = self.results.packed_batch_first
        if packed and layer.batch_first != packing:
            raise error_at(node, f"a layer with batch_first={packing}, as in pack_padded_sequence")
        reader = InitialStateReader(self.module, self.data, self.source, layer, self.dtype)
        if (rows := reader.rows(node)) is not None:
            block = self.blocks.pop()
            assert isinstance(block, RecurrentBlock)
            self.blocks.append(replace(block, start=rows))
        self.state_inputs |= reader.state_inputs
        has_lengths = "lengths" in node.kwargs or packed
        self.results = LayerResults(layer, node, has_lengths, packing if packed else None)
        self.current = None

    def _is_packed(self, node: fx.Node) -> bool:
        return node.target is pack_padded_sequence or self.results.role(node) == "packed"

    def _reads_nothing_else(self, node: fx.Node) -> bool:
        """Whether a module has no further arguments, except states and lengths of a layer."""
        if not self._is_layer(node):
            return len(node.args) == 1 and not node.kwargs
        lengths = node.kwargs.get("lengths")
        valid = lengths is None or self._are_lengths(lengths)
        return valid and len(node.args) <= 2 and set(node.kwargs) <= {"hx", "lengths"}

    def _are_lengths(self, node: object) -> bool:
        """Whether lengths are an input of the module."""
        while isinstance(node, fx.Node) and node.target in _LENGTH_METHODS:
            node = node.args[0]
        return isinstance(node, fx.Node) and node.op == "placeholder"

    def _call_function(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            self._item(node)
        elif node.target in (torch.cat, torch.concat):
            self._concatenate_directions(node)
        elif node.target is pack_padded_sequence:
            self._pack(node)
        elif node.target is pad_packed_sequence:
            self._unpack(node)
        elif node.target is F.dropout:
            self._dropout(node)
        elif node.target in _POOLINGS:
            self._pool(node)
        else:
            self._activation(node, _ACTIVATIONS.get(node.target))

    def _call_method(self, node: fx.Node) -> None:
        name = str(node.target)
        if name in _POOLINGS:
            self._pool(node)
        elif (
            name == "squeeze"
            and node.args[1:] == (0,)
            and self.results.is_only_row(node.args[0], self.current)
        ):
            self._add_last(node)
        elif name in ("contiguous", "clone") and self._reads_current(node):
            self.results.copy_role(self.current, node)
            self.current = node
        else:
            self._activation(node, name if name in _ACTIVATIONS.values() else None)

    def _activation(self, node: fx.Node, name: str | None) -> None:
        arguments = arguments_of(node, ("dim",), 1)
        options = {
            key: value
            for key, value in arguments.items()
            if key not in ("_stacklevel", "dtype", "inplace")
        }
        valid: tuple[dict[str, int], ...] = ({},)
        if name in ("softmax", "log_softmax"):
            valid = ({"dim": -1}, {"dim": self._rank() - 1})
        if name is None or options not in valid or not self._reads_current(node):
            expected = "relu, tanh, sigmoid, or softmax over the last dimension"
            if name is None and node.target in (torch.max, "max"):
                expected = f"a maximum over the steps as amax({int(self.results.batch_first)})"
            raise error_at(node, expected)
        self.blocks.append(ActivationBlock(name))
        self.current = node

    def _rank(self) -> int:
        """The number of dimensions of the current result."""
        return 2 if any(isinstance(block, LastBlock | PoolingBlock) for block in self.blocks) else 3

    def _pool(self, node: fx.Node) -> None:
        """The mean or maximum over the steps, directly after a layer."""
        options = arguments_of(node, ("dim", "keepdim"), 1)
        dim = options.pop("dim", None)
        steps = int(self.results.batch_first)
        reads_outputs = self._reads_current(node) and self.results.role(self.current) == "outputs"
        layer = self.results.layer
        if (
            layer is None
            or dim not in (steps, (steps,), [steps])
            or any(options.values())
            or not reads_outputs
            or self.results.has_lengths
        ):
            raise error_at(node, f"a layer's outputs, without lengths, over dim={steps}")
        self.blocks.append(PoolingBlock(_POOLINGS[node.target], layer.spec.output_size))
        self.current = node

    def _dropout(self, node: fx.Node) -> None:
        options = arguments_of(node, ("p", "training"), 1)
        if options.get("training", True) is not False or not self._reads_current(node):
            raise error_at(node, "dropout with training=self.training")
        self.current = node

    def _reads_current(self, node: fx.Node) -> bool:
        return self.current is not None and node.args[0] is self.current

    def _item(self, node: fx.Node) -> None:
        """An item of a layer's results: of (outputs, state), of the state, or the last step."""
        role = self.results.item(node, self.current)
        if role is None:
            raise self.results.item_error(node)
        if role == "last":
            self._add_last(node)
            return
        self.results.set_role(node, role)
        if role in ("outputs", "packed"):
            self.current = node

    def _add_last(self, node: fx.Node) -> None:
        """The final state of the last layer, in all its directions."""
        self.blocks.append(LastBlock())
        self.current = node

    def _concatenate_directions(self, node: fx.Node) -> None:
        """The final states of both directions of the last layer, concatenated."""
        arguments = arguments_of(node, ("tensors", "dim"))
        dim = arguments.get("dim", arguments.get("axis", 0))
        tensors = arguments["tensors"]
        rows = [self.results.role(t) for t in tensors] if isinstance(tensors, tuple | list) else []
        layer = self.results.layer
        concatenates = layer is not None and layer.merge == "concat"
        fresh = self.results.are_fresh(self.current)
        if rows != [-2, -1] or dim not in (1, -1) or not concatenates or not fresh:
            raise error_at(node, "modules that read the result of the one before them")
        self._add_last(node)

    def _pack(self, node: fx.Node) -> None:
        """Sequences with lengths, for a layer to read."""
        arguments = arguments_of(node, ("input", "lengths", "batch_first", "enforce_sorted"))
        if arguments["input"] is not self.current or not self._are_lengths(arguments["lengths"]):
            raise error_at(node, "the result of the module before, and lengths that are an input")
        self.results.packed_batch_first = bool(arguments.get("batch_first", False))
        self.current = node

    def _unpack(self, node: fx.Node) -> None:
        """Outputs of a layer that read packed sequences."""
        names = ("sequence", "batch_first", "padding_value", "total_length")
        arguments = arguments_of(node, names)
        packing = self.results.packed_batch_first
        valid = (
            bool(arguments.get("batch_first", False)) == packing
            and not arguments.get("padding_value", 0)
            and arguments.get("total_length") is None
            and arguments["sequence"] is self.current
            and self.results.role(self.current) == "packed"
        )
        if not valid:
            raise error_at(node, f"a layer's outputs with batch_first={packing}, padded with zeros")
        self.results.set_role(node, "unpacked")

    def _check_output(self, node: fx.Node) -> None:
        output = node.args[0]
        if isinstance(output, tuple | list):
            output = output[0]  # the runtime returns the state by itself
        if self.current is not None and self._is_packed(self.current):
            raise error_at(self.current, "pad_packed_sequence after packed sequences")
        if output is not self.current and self.results.role(output) != "all":
            invalid = output if isinstance(output, fx.Node) else node
            raise error_at(invalid, "the result of the last module")
