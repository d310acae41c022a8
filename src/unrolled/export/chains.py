"""Modules of the user's own, followed from the input to the output by ``torch.fx``."""

import copy
import inspect
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled.export.changes import check_changes
from unrolled.export.faults import fault_at, unknown_part
from unrolled.export.parts import Blocks, describe, is_known, of_rows
from unrolled.export.states import Start
from unrolled.export.tracing import trace, unchanged
from unrolled.nn import Recurrent
from unrolled.nn.snapshot import ExportError
from unrolled.runtime.schema import LastBlock, PoolingBlock, RecurrentBlock, WordsBlock

__all__ = ["describe_chain"]

_FUNCTIONS: dict[Callable[..., Any], str] = {
    torch.relu: "relu", F.relu: "relu", torch.tanh: "tanh", F.tanh: "tanh",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", torch.softmax: "softmax",
    F.softmax: "softmax", torch.log_softmax: "log_softmax", F.log_softmax: "log_softmax",
}  # fmt: skip
_POOLS: dict[Any, str] = {
    torch.mean: "mean", "mean": "mean", torch.amax: "max", "amax": "max",
}  # fmt: skip
_OF_LENGTHS = ("cpu", "to", "long", "int", "tolist")
"""Methods that leave lengths what they are."""


def describe_chain(module: nn.Module) -> Blocks:
    """The blocks of a module, as it is in evaluation.

    Raises:
        ExportError: a part is not known, reads something else than the one before it gives, or is
            not in float32.
    """
    name = type(module).__name__
    with torch.no_grad():
        if is_known(module) or not any(isinstance(one, Recurrent) for one in module.modules()):
            return describe(module, name)
        with unchanged(module):
            found = _followed(module).blocks
        if not any(isinstance(block, RecurrentBlock | WordsBlock) for block in found):
            layers = [k for k, one in module.named_modules() if isinstance(one, Recurrent)]
            raise ExportError(
                f"{name}: wanted an output that is made of a layer's, got one that does not read "
                f"{', '.join(layers)}"
            )
        return found


def _followed(module: nn.Module) -> "_Chain":
    """The chain of a module. States that it may be given are left out, as far as its code allows:
    what it makes in their place is what the file begins with."""
    chain = _Chain(module, trace(module))
    left_out = _optional(module) & chain.given
    if not left_out:
        return chain
    try:
        graph = trace(module, dict.fromkeys(left_out))
    except ExportError:  # the code does not run without them
        return chain
    return _Chain(module, graph)


def _optional(module: nn.Module) -> set[str]:
    """Inputs of a module that are None unless they are given."""
    if isinstance(module, fx.GraphModule):
        return set()
    told = inspect.signature(module.forward).parameters
    return {name for name, one in told.items() if one.default is None}


class _Chain:
    """Walks along a graph in which each node reads what the one before it gave."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self.blocks: Blocks = []
        self.at: fx.Node | None = None  # whose value the next part reads
        self.layer: Recurrent | None = None  # whose results are at hand
        # Of a layer: "all", "outputs", "state", "states"; of one that reads packed sequences
        # "packed", and "unpacked" the pair that pad_packed_sequence gives; a row of the state.
        self.results: dict[fx.Node, str | int] = {}
        self.ragged = False  # whether the layer is told lengths
        self.packing: bool | None = None  # batch_first of sequences that are packed
        self.source: fx.Node | None = None  # the input that the first part reads
        self.data: set[fx.Node] = set()  # it, and what the parts so far gave
        self.given: set[str] = set()  # inputs that are states
        check_changes(module, graph)
        needed = self._way(graph)
        way = [node for node in graph.nodes if node in needed]
        for node in way:
            # Named before what is done with its results, which says less.
            if node.op == "call_module":
                part = module.get_submodule(str(node.target))
                if not is_known(part):
                    raise unknown_part(node, part)
            if node.target in (torch.bmm, torch.matmul, torch.einsum, operator.matmul, "bmm"):
                raise fault_at(node, "a part of the chain")
        for node in way:
            self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        getattr(self, f"_{node.op}")(node)
        if self.at is not None:
            self.data.add(self.at)

    def _way(self, graph: fx.Graph) -> set[fx.Node]:
        """The nodes that the first output needs; a layer without the states and lengths that it may
        be given, which have their place in the runtime."""
        way: set[fx.Node] = set()
        open_ = [next(node for node in reversed(graph.nodes) if node.op == "output")]
        while open_:
            node = open_.pop()
            if node in way:
                continue
            way.add(node)
            if node.op == "output" and isinstance(node.args[0], tuple | list):
                open_ += [one for one in node.args[0][:1] if isinstance(one, fx.Node)]
            elif self._is_layer(node) or node.target is pack_padded_sequence:
                open_ += [one for one in node.args[:1] if isinstance(one, fx.Node)]
            else:
                open_ += node.all_input_nodes
        return way

    def _is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(
            self.module.get_submodule(str(node.target)), Recurrent
        )

    def _placeholder(self, node: fx.Node) -> None:
        if self.source is not None:
            raise fault_at(node, "one input")
        self.at = self.source = node

    def _get_attr(self, node: fx.Node) -> None:
        raise fault_at(node, "parts that read what the one before them gives")

    def _call_module(self, node: fx.Node) -> None:
        part = self.module.get_submodule(str(node.target))
        packed = self.at is not None and self._is_packed(self.at)
        if packed and not isinstance(part, Recurrent):
            raise fault_at(node, "a layer, or pad_packed_sequence, behind packed sequences")
        if node.args[:1] != (self.at,) or not self._alone(node):
            raise fault_at(node, "a part that reads what the one before it gives, alone")
        if isinstance(part, nn.Softmax | nn.LogSoftmax) and part.dim == self._rank() - 1:
            part = copy.copy(part)
            part.dim = -1
        self.blocks += describe(part, str(node.target))
        if not isinstance(part, Recurrent):
            self.at = node
            return
        if packed and part.batch_first != self.packing:
            raise fault_at(
                node, f"a layer with batch_first={self.packing}, as pack_padded_sequence has it"
            )
        start = Start(self.module, self.data, self.source, part)
        if (rows := start.rows(node)) is not None:
            layers = self.blocks.pop()
            assert isinstance(layers, RecurrentBlock)
            self.blocks.append(replace(layers, start=rows))
        self.given |= start.given
        self.layer, self.results = part, {node: "all"}
        self.ragged = "lengths" in node.kwargs or packed
        self.packing = self.packing if packed else None
        self.at = None

    def _is_packed(self, node: fx.Node) -> bool:
        return node.target is pack_padded_sequence or self.results.get(node) == "packed"

    def _alone(self, node: fx.Node) -> bool:
        """Whether a part reads nothing more; a layer may be given states and lengths."""
        if not self._is_layer(node):
            return len(node.args) == 1 and not node.kwargs
        lengths = node.kwargs.get("lengths")
        known = lengths is None or self._are_lengths(lengths)
        return known and len(node.args) <= 2 and set(node.kwargs) <= {"hx", "lengths"}

    def _are_lengths(self, node: Any) -> bool:
        """Whether lengths are an input of the module."""
        while isinstance(node, fx.Node) and node.target in _OF_LENGTHS:
            node = node.args[0]
        return isinstance(node, fx.Node) and node.op == "placeholder"

    def _call_function(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            self._item(node)
            return
        if node.target in (torch.cat, torch.concat):
            self._both_directions(node)
            return
        if node.target is pack_padded_sequence:
            self._pack(node)
            return
        if node.target is pad_packed_sequence:
            self._unpack(node)
            return
        if node.target is F.dropout:
            self._dropout(node)
            return
        if node.target in _POOLS:
            self._pool(node)
            return
        self._function(node, _FUNCTIONS.get(node.target))  # type: ignore[arg-type]

    def _function(self, node: fx.Node, name: str | None) -> None:
        """Of each number, or of each row."""
        rest = {**dict(zip(("dim",), node.args[1:], strict=False)), **node.kwargs}
        rest = {k: v for k, v in rest.items() if k not in ("_stacklevel", "dtype", "inplace")}
        wanted: tuple[dict[str, int], ...] = ({},)
        if name in ("softmax", "log_softmax"):
            wanted = ({"dim": -1}, {"dim": self._rank() - 1})
        if name is None or rest not in wanted or self._read(node) is None:
            said = "relu, tanh, sigmoid, or softmax over the last dimension"
            if name is None and node.target in (torch.max, "max"):
                said = f"a maximum over the steps as amax({int(self._batch_first())})"
            raise fault_at(node, said)
        self.blocks += of_rows(name)(nn.Identity(), node.name)
        self.at = node

    def _rank(self) -> int:
        """How many dimensions the value at hand has."""
        return 2 if any(isinstance(one, LastBlock | PoolingBlock) for one in self.blocks) else 3

    def _pool(self, node: fx.Node) -> None:
        """The mean or maximum over the steps, right behind a layer."""
        rest = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
        dim = rest.pop("dim", None)
        steps = int(self._batch_first())
        read = self._read(node)
        behind = read is not None and self.results.get(read) == "outputs"
        if dim not in (steps, (steps,), [steps]) or any(rest.values()) or not behind or self.ragged:
            raise fault_at(node, f"a layer's outputs, without lengths, over dim={steps}")
        assert self.layer is not None
        width = self.layer.spec.output_size
        self.blocks.append(PoolingBlock(_POOLS[node.target], width))
        self.at = node

    def _dropout(self, node: fx.Node) -> None:
        given = {**dict(zip(("p", "training"), node.args[1:], strict=False)), **node.kwargs}
        if given.get("training", True) is not False or self._read(node) is None:
            raise fault_at(node, "dropout with training=self.training")
        self.at = node

    def _call_method(self, node: fx.Node) -> None:
        name = str(node.target)
        if name in _POOLS:
            self._pool(node)
            return
        if name == "squeeze" and node.args[1:] == (0,) and self._only_row(node.args[0]):
            self._end(node)
            return
        if name in ("contiguous", "clone") and self._read(node) is not None:
            if (kind := self.results.get(self.at)) is not None:  # type: ignore[arg-type]
                self.results[node] = kind
            self.at = node
            return
        self._function(node, name if name in _FUNCTIONS.values() else None)

    def _read(self, node: fx.Node) -> fx.Node | None:
        """The node before, if that is what this one reads."""
        return self.at if self.at is not None and node.args[0] is self.at else None

    def _item(self, node: fx.Node) -> None:
        """Parts of a layer's results: (outputs, state), the state's own, and the last step."""
        of, key = node.args
        assert isinstance(of, fx.Node)
        found = self.results.get(of)
        if found == "all" and key in (0, 1):
            several = self.layer is not None and len(self.layer.cell.states) > 1
            outputs = "outputs" if self.packing is None else "packed"
            self.results[node] = outputs if key == 0 else "states" if several else "state"
            if key == 0:
                self.at = node
            return
        if found == "unpacked" and key == 0:
            self.results[node] = "outputs"
            self.at = node
            return
        if found == "states" and key == 0:
            self.results[node] = "state"
            return
        short = _short(key)
        if found == "state" and len(short) == 1 and isinstance(short[0], int):
            rows = self._rows()
            row = short[0] if short[0] < 0 else short[0] - rows
            if self._both() and row in (-2, -1):
                self.results[node] = row
                return
            if row == -1 and self._fresh() and not self._both():
                self._end(node)
                return
        steps = (slice(None), -1) if self._batch_first() else (-1,)
        plain = not self.ragged and not self._both() and self._fresh()
        if found == "outputs" and short == steps and plain:
            self._end(node)
            return
        raise self._no_item(node)

    def _no_item(self, node: fx.Node) -> ExportError:
        last = "[:, -1]" if self._batch_first() else "[-1]"
        if self.ragged:
            wanted = "a layer's outputs, or [-1] of its state, where sequences have lengths"
            return fault_at(node, wanted)
        cure = None
        if self._both():
            cure = (
                "the backward direction ends at the first step: torch.cat((h[-2], h[-1]), 1) of "
                "the final state has the ends of both"
            )
        return fault_at(node, f"a layer's outputs, or {last} of them in one direction", cure)

    def _rows(self) -> int:
        """L·D of the layer at hand."""
        assert self.layer is not None
        return self.layer.num_layers * self.layer.spec.num_directions

    def _only_row(self, node: Any) -> bool:
        return self.results.get(node) == "state" and self._rows() == 1 and self._fresh()

    def _fresh(self) -> bool:
        """Whether nothing was done with a layer's outputs yet."""
        behind = ("outputs", "packed")
        return self.at is None or self.results.get(self.at) in behind

    def _end(self, node: fx.Node) -> None:
        """The final state of the last layer, in all its directions."""
        self.blocks.append(LastBlock())
        self.at = node

    def _both_directions(self, node: fx.Node) -> None:
        """The final states of both directions of the last layer, one beside the other."""
        whole = dict(zip(("tensors", "dim"), node.args, strict=False)) | node.kwargs
        parts = whole["tensors"]
        rows = [self.results.get(one) for one in parts] if isinstance(parts, tuple | list) else []
        dim = whole.get("dim", whole.get("axis", 0))
        merged = self.layer is not None and self.layer.merge == "concat"
        if rows != [-2, -1] or dim not in (1, -1) or not merged or not self._fresh():
            raise fault_at(node, "parts that read what the one before them gives")
        self._end(node)

    def _pack(self, node: fx.Node) -> None:
        """Sequences with lengths, for a layer to read."""
        names = ("input", "lengths", "batch_first", "enforce_sorted")
        told = dict(zip(names, node.args, strict=False)) | node.kwargs
        if told["input"] is not self.at or not self._are_lengths(told["lengths"]):
            raise fault_at(node, "what the part before gives, and lengths that are an input")
        self.packing = bool(told.get("batch_first", False))
        self.at = node

    def _unpack(self, node: fx.Node) -> None:
        """Outputs of a layer that read packed sequences."""
        names = ("sequence", "batch_first", "padding_value", "total_length")
        told = dict(zip(names, node.args, strict=False)) | node.kwargs
        same = bool(told.get("batch_first", False)) == self.packing
        plain = not told.get("padding_value", 0) and told.get("total_length") is None
        read = told["sequence"] is self.at and self.results.get(self.at) == "packed"  # type: ignore[arg-type]
        if not (same and plain and read):
            wanted = f"a layer's outputs with batch_first={self.packing}, filled up with zeros"
            raise fault_at(node, wanted)
        self.results[node] = "unpacked"

    def _both(self) -> bool:
        return self.layer is not None and bool(self.layer.bidirectional)

    def _batch_first(self) -> bool:
        return self.layer is not None and self.layer.batch_first

    def _output(self, node: fx.Node) -> None:
        given = node.args[0]
        if isinstance(given, tuple | list):
            given = given[0]  # a state that is given beside has its place in the runtime
        if self.at is not None and self._is_packed(self.at):
            raise fault_at(self.at, "pad_packed_sequence behind packed sequences")
        if given is not self.at and self.results.get(given) != "all":  # type: ignore[arg-type]
            last = given if isinstance(given, fx.Node) else node
            raise fault_at(last, "an output that is what the last part gives")


def _short(key: Any) -> tuple[Any, ...]:
    """An index without the whole dimensions at its end."""
    found = list(key) if isinstance(key, tuple) else [key]
    while found and found[-1] in (slice(None), Ellipsis):
        found.pop()
    return tuple(found)
