"""Modules of the user's own, followed from the input to the output by ``torch.fx``."""

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from typing_extensions import override

from unrolled.export.parts import Blocks, describe, hint_at, is_known, of_rows, rows_of
from unrolled.models.start import LearnedStart
from unrolled.nn import Recurrent, RecurrentCell
from unrolled.nn.snapshot import ExportError

__all__ = ["blocks_of"]

_FUNCTIONS: dict[Callable[..., Any], str] = {
    torch.relu: "relu", F.relu: "relu", torch.tanh: "tanh", F.tanh: "tanh",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", torch.softmax: "softmax",
    F.softmax: "softmax", torch.log_softmax: "log_softmax", F.log_softmax: "log_softmax",
}  # fmt: skip
_POOLS: dict[Any, str] = {
    torch.mean: "mean", "mean": "mean", torch.amax: "max", "amax": "max",
}  # fmt: skip
_OF_STATES = (operator.getitem, torch.transpose, torch.zeros_like)
"""What may be done to states that a module is given, before a layer has them."""


def blocks_of(module: nn.Module) -> Blocks:
    """The parts of a module, as it is in evaluation, as the file has them.

    Raises:
        ExportError: a part is not known, reads something else than the one before it gives, or is
            not in float32.
    """
    name = type(module).__name__
    with torch.no_grad():
        if is_known(module) or not any(isinstance(one, Recurrent) for one in module.modules()):
            return describe(module, name)
        try:
            with _evaluating(module):
                if isinstance(module, fx.GraphModule):
                    graph = module.graph
                else:
                    graph = _Tracer().trace(module)
        except Exception as error:  # whatever the module's own code raises on a recorder
            hint = hint_at(module)
            raise ExportError(f"{name}: cannot be followed ({error}){hint}") from error
        found = _Chain(module, graph).blocks
        if not any(one["block"] in ("recurrent", "words") for one in found):
            layers = [k for k, one in module.named_modules() if isinstance(one, Recurrent)]
            raise ExportError(
                f"{name}: wanted an output that is made of a layer's, got one that does not read "
                f"{', '.join(layers)}"
            )
        return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation, and its parts; each in its own mode afterwards."""
    modes = {one: one.training for one in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for one, mode in modes.items():
            one.training = mode


class _Tracer(fx.Tracer):
    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, RecurrentCell)
            or is_known(m)
            or super().is_leaf_module(m, module_qualified_name)
        )


class _Chain:
    """Walks along a graph in which each node reads what the one before it gave."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self.blocks: Blocks = []
        self.at: fx.Node | None = None  # whose value the next part reads
        self.layer: Recurrent | None = None  # whose results are at hand
        self.results: dict[fx.Node, str] = {}  # of a layer: "all", "outputs", "state", "states"
        self.ragged = False  # whether the layer is told lengths
        way = self._way(graph)
        for node in way:
            # Named before what is done with its results, which says less.
            if node.op == "call_module":
                part = module.get_submodule(str(node.target))
                if not is_known(part):
                    describe(part, str(node.target))
        for node in graph.nodes:
            if node in way:
                getattr(self, f"_{node.op}")(node)

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
            elif self._is_layer(node):
                open_ += [one for one in node.args[:1] if isinstance(one, fx.Node)]
            else:
                open_ += node.all_input_nodes
        return way

    def _is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(
            self.module.get_submodule(str(node.target)), Recurrent
        )

    def _fault(self, node: fx.Node, wanted: str) -> ExportError:
        return ExportError(f"{node.name}: wanted {wanted}, got {node.format_node()}")

    def _placeholder(self, node: fx.Node) -> None:
        if self.at is not None:
            raise self._fault(node, "one input")
        self.at = node

    def _get_attr(self, node: fx.Node) -> None:
        raise self._fault(node, "parts that read what the one before them gives")

    def _call_module(self, node: fx.Node) -> None:
        if node.args[:1] != (self.at,) or not self._alone(node):
            raise self._fault(node, "a part that reads what the one before it gives, alone")
        part = self.module.get_submodule(str(node.target))
        if isinstance(part, nn.Softmax | nn.LogSoftmax) and part.dim == self._rank() - 1:
            part = copy.copy(part)
            part.dim = -1
        self.blocks += describe(part, str(node.target))
        if (start := self._start(node)) is not None:
            self.blocks[-1]["start"] = rows_of(start)
        if isinstance(part, Recurrent):
            self.layer, self.results = part, {node: "all"}
            self.ragged = "lengths" in node.kwargs
            self.at = None
        else:
            self.at = node

    def _start(self, node: fx.Node) -> LearnedStart | None:
        """The states that a layer begins with, where they are a part of the module."""
        hx = node.kwargs.get("hx")
        if not isinstance(hx, fx.Node) or hx.op != "call_module":
            return None
        part = self.module.get_submodule(str(hx.target))
        return part if isinstance(part, LearnedStart) else None

    def _alone(self, node: fx.Node) -> bool:
        """Whether a part reads nothing more; a layer may be given states and lengths that are
        inputs of the module, or are made of them."""
        rest = {one for one in node.all_input_nodes if one is not self.at}
        if not self._is_layer(node):
            return not rest and len(node.args) == 1 and not node.kwargs
        known: set[fx.Node] = set()
        if self._start(node) is not None:
            rest -= {node.kwargs["hx"]}
        while rest:
            one = rest.pop()
            known.add(one)
            if one.op != "placeholder" and one.target not in _OF_STATES:
                return False
            rest |= set(one.all_input_nodes) - known
        return len(node.args) <= 2 and set(node.kwargs) <= {"hx", "lengths"}

    def _call_function(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            self._item(node)
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
            raise self._fault(node, said)
        self.blocks += of_rows(name)(nn.Identity(), node.name)
        self.at = node

    def _rank(self) -> int:
        """How many dimensions the value at hand has."""
        return 2 if any(one["block"] in ("last", "pooling") for one in self.blocks) else 3

    def _pool(self, node: fx.Node) -> None:
        """The mean or maximum over the steps, right behind a layer."""
        rest = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
        dim = rest.pop("dim", None)
        steps = int(self._batch_first())
        read = self._read(node)
        behind = read is not None and self.results.get(read) == "outputs"
        if dim not in (steps, (steps,), [steps]) or any(rest.values()) or not behind or self.ragged:
            raise self._fault(node, f"a layer's outputs, without lengths, over dim={steps}")
        assert self.layer is not None
        width = self.layer.spec.output_size
        told = {"block": "pooling", "name": _POOLS[node.target], "width": width}
        self.blocks.append({**told, "keys": None, "query": None})
        self.at = node

    def _dropout(self, node: fx.Node) -> None:
        given = {**dict(zip(("p", "training"), node.args[1:], strict=False)), **node.kwargs}
        if given.get("training", True) is not False or self._read(node) is None:
            raise self._fault(node, "dropout with training=self.training")
        self.at = node

    def _call_method(self, node: fx.Node) -> None:
        name = str(node.target)
        if name in _POOLS:
            self._pool(node)
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
            self.results[node] = "outputs" if key == 0 else "states" if several else "state"
            if key == 0:
                self.at = node
            return
        if found == "states" and key == 0:
            self.results[node] = "state"
            return
        fresh = self.at is None or self.results.get(self.at) == "outputs"
        ends: dict[str | None, Any] = {"state": (-1,)}
        if not self.ragged:
            ends["outputs"] = (slice(None), -1) if self._batch_first() else (-1,)
        if found in ends and _short(key) == ends[found] and fresh and not self._both():
            self.blocks.append({"block": "last"})
            self.at = node
            return
        last = "[:, -1]" if self._batch_first() else "[-1]"
        wanted = f"a layer's outputs, or {last} of them in one direction"
        if self.ragged:
            wanted = "a layer's outputs, or [-1] of its state, where sequences have lengths"
        raise self._fault(node, wanted)

    def _both(self) -> bool:
        return self.layer is not None and self.layer.bidirectional

    def _batch_first(self) -> bool:
        return self.layer is not None and self.layer.batch_first

    def _output(self, node: fx.Node) -> None:
        given = node.args[0]
        if isinstance(given, tuple | list):
            given = given[0]  # a state that is given beside has its place in the runtime
        if given is not self.at and self.results.get(given) != "all":  # type: ignore[arg-type]
            raise self._fault(node, "what the last part gives")


def _short(key: Any) -> tuple[Any, ...]:
    """An index without the whole dimensions at its end."""
    found = list(key) if isinstance(key, tuple) else [key]
    while found and found[-1] in (slice(None), Ellipsis):
        found.pop()
    return tuple(found)
