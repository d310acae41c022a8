"""Files of ONNX as modules: whole models that are chains of known parts, or their layers alone."""

import keyword
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.onnx.importer.fixed_sizes import guard
from unrolled.onnx.importer.graph_builder import Builder, RefusedError, Value
from unrolled.onnx.importer.model_file import Source, read
from unrolled.onnx.importer.node_rules import follow
from unrolled.onnx.importer.recurrent_node import (
    INPUTS,
    check_state,
    from_node,
    is_recurrent,
    read_attributes,
)

__all__ = ["ImportedLayer", "RefusedError", "builder_of", "layers_of", "load", "module_of"]


@dataclass(frozen=True)
class ImportedLayer:
    """One node RNN, LSTM or GRU of a model.

    ``name`` is the node's, or its first output's; ``module`` as ``from_node`` makes it; ``hx`` the
    initial states where the file has them as constants, else None: [D, N, H] as the module takes
    them, but [D, 1, H] where all sequences begin alike, to be expanded to the batch.
    """

    name: str
    module: nn.Module
    hx: Tensor | tuple[Tensor, ...] | None


def load(source: Source, *, optional: bool = False) -> fx.GraphModule:
    """A model of ONNX as a module of ours and torch's.

    It takes the graph's inputs and gives its outputs, each in their order; a graph with several
    outputs gives a tuple. Nodes RNN, LSTM and GRU are layers as ``from_node`` makes them
    (``batch_first`` where the graph transposes before and behind them), looked-up tables
    ``nn.Embedding``, products with weights ``nn.Linear``, constant initial states
    ``LearnedInitialState``; the rest are functions of torch. It can be trained, printed
    (``.code``), and, if it is a chain, exported for the runtime.

    Where the graph is bound to sizes that the file fixes (it reads single steps, as torch's newer
    exporter writes ``nn.RNN``), the module raises ValueError for inputs of another shape.

    Args:
        source: a file, or what ``onnx.load`` gave. Weights beside the file are read from its
            folder, and from nowhere else.
        optional: whether inputs that may be left out, as they have a default in the file, are
            inputs of the module, too. Else they keep their default.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged.
        RefusedError: a node is none that can be followed; the message names it.
        ValueError: the model is damaged, or a node has attributes or weights that do not fit.
    """
    return module_of(read(source), {}, optional)


def module_of(
    model: onnx.ModelProto, weights: Mapping[str, np.ndarray], optional: bool = False
) -> fx.GraphModule:
    """As ``load``, with some of the graph's inputs given as constants.

    Raises:
        as ``load``.
    """
    with _damage_told():
        b = builder_of(model, weights, optional)
        module = b.finish([one.name for one in model.graph.output])
        guard(module, _sizes(b, model))
        return module


def layers_of(source: Source) -> list[ImportedLayer]:
    """The nodes RNN, LSTM and GRU of a model of any kind, in their order; not those inside of
    other nodes' graphs.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged.
        ValueError: the model is damaged, a node has attributes or weights that do not fit, or its
            weights are not constant.
    """
    model = read(source)
    with _damage_told():
        b = builder_of(model)
        return [_alone(b, node) for node in model.graph.node if is_recurrent(node)]


def _alone(b: Builder, node: onnx.NodeProto) -> ImportedLayer:
    given = dict(zip(INPUTS[node.op_type], node.input, strict=False))
    known = {name: b.values[name].array for name in given.values() if name}
    arrays = {name: array for name, array in known.items() if array is not None}
    module = from_node(node, arrays)
    D, _, H = known[given["R"]].shape  # type: ignore[union-attr]
    states = [_state(b, node, given.get(f"initial_{letter}", ""), letter, D, H) for letter in "hc"]
    found = [torch.from_numpy(np.array(one)) for one in states if one is not None]
    if read_attributes(node).get("layout", 0) == 1:
        found = [one.transpose(0, 1) for one in found]
    if node.op_type == "LSTM" and len(found) == 1:
        empty = torch.zeros_like(found[0])
        found = [empty, found[0]] if states[0] is None else [found[0], empty]
    hx = tuple(found) if len(found) > 1 else found[0] if found else None
    return ImportedLayer(node.name or node.output[0], module, hx)


def _state(
    b: Builder, node: onnx.NodeProto, name: str, letter: str, D: int, H: int
) -> np.ndarray | None:
    """An initial state, if it is constant."""
    value = b.values[name] if name else Value()
    array = value.array if value.narrow is None else value.narrow.array
    if array is not None:
        check_state(node, f"initial_{letter}", array.shape, D, H)
    return array


def builder_of(
    model: onnx.ModelProto,
    weights: Mapping[str, np.ndarray] | None = None,
    optional: bool = False,
) -> Builder:
    """All values of a graph, of which some inputs are given as constants."""
    b = Builder(model)
    graph = model.graph
    open_ = {one.name for one in graph.input} if optional and model.ir_version >= 4 else set()
    for tensor in graph.initializer:
        if tensor.name in open_:
            continue
        b.note({tensor.name: Value(array=numpy_helper.to_array(tensor))})
    b.note({name: Value(array=array) for name, array in (weights or {}).items()})
    for one in graph.input:
        if one.name not in b.values:
            b.shapes.of_input(one)
            b.values[one.name] = Value(b.graph.placeholder(_plain_name(one.name, b)))
    for node in graph.node:
        follow(b, node)
    return b


def _sizes(b: Builder, model: onnx.ModelProto) -> dict[str, tuple[str, list[int | None]]]:
    """Name and sizes of each input of the module, by its placeholder; None where one is free."""
    found = {}
    for one in model.graph.input:
        node, kind = b.values[one.name].node, one.type.tensor_type
        if node is not None:
            sizes = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
            found[str(node.target)] = (one.name, sizes if kind.HasField("shape") else [])
    return found


def _plain_name(name: str, b: Builder) -> str:
    """A name that can be an argument's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    plain = kept[:1].isalpha() and kept != "self" and not keyword.iskeyword(kept)
    return b.fresh(kept if plain else f"input_{kept}")


@contextmanager
def _damage_told() -> Iterator[None]:
    """What contradictions in a model bring about, as a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        raise ValueError(f"the model contradicts itself ({error})") from error
