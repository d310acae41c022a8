"""Imports ONNX models as modules: whole models, or only their recurrent layers."""

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
from unrolled.onnx._importer.attributes import Attributes
from unrolled.onnx._importer.fixed_sizes import Sizes, guard_inputs
from unrolled.onnx._importer.graph_builder import GraphBuilder
from unrolled.onnx._importer.model_file import Source, read_model
from unrolled.onnx._importer.node_rules import convert_node
from unrolled.onnx._importer.recurrent_node import INPUTS, check_state, from_node, is_recurrent
from unrolled.onnx._importer.values import Value


@dataclass(frozen=True)
class ImportedLayer:
    """One node RNN, LSTM or GRU of a model.

    ``name`` is the name of the node, or of its first output; ``module`` is the result of
    ``from_node``; ``hx`` holds the initial states if they are constants in the file, else None:
    [D, N, H] as the module takes them, or [D, 1, H] if all sequences start with the same state,
    which has to be expanded to the batch.
    """

    name: str
    module: nn.Module
    hx: Tensor | tuple[Tensor, ...] | None


def load(source: Source, *, optional: bool = False) -> fx.GraphModule:
    """Import an ONNX model as a module of layers of this library and of torch.

    The module takes the graph's inputs and returns its outputs, in the order of the graph; a graph
    with several outputs returns a tuple. RNN, LSTM and GRU nodes become layers, as by ``from_node``
    (with ``batch_first`` if the graph transposes before and after them), lookups in a table become
    ``nn.Embedding``, products with weights ``nn.Linear``, and constant initial states a
    ``LearnedInitialState``; all else becomes functions of torch. The module can be trained, printed
    (``.code``) and, if it is a chain, exported for the runtime.

    If the graph depends on sizes that the file fixes (torch's newer exporter writes ``nn.RNN`` as
    single steps), the module raises ValueError for inputs of another shape.

    Args:
        source: a file, or the result of ``onnx.load``. External weights are read only from the
            folder of the file.
        optional: whether inputs with a default value in the file are inputs of the module; by
            default they are constants.

    Raises:
        unrolled.io.FileError: the file is missing or damaged.
        RefusedError: a node is not supported; the message names it.
        ValueError: the model is damaged, or attributes or weights of a node are inconsistent.
    """
    return build_module(read_model(source), {}, optional)


def build_module(
    model: onnx.ModelProto, weights: Mapping[str, np.ndarray], optional: bool = False
) -> fx.GraphModule:
    """As ``load``, from a model in memory and with constants ``weights`` for some inputs."""
    with _contradictions_as_value_errors():
        b = converted_graph(model, weights, optional)
        module = b.finish([output.name for output in model.graph.output])
        guard_inputs(module, _input_sizes(b, model))
        return module


def layers_of(source: Source) -> list[ImportedLayer]:
    """Import the RNN, LSTM and GRU nodes of any model, in their order, except those in subgraphs.

    Raises:
        unrolled.io.FileError: the file is missing or damaged.
        ValueError: the model is damaged, attributes or weights of a node are inconsistent, or its
            weights are not constant.
    """
    model = read_model(source)
    with _contradictions_as_value_errors():
        b = converted_graph(model)
        return [_imported_layer(b, node) for node in model.graph.node if is_recurrent(node)]


def _imported_layer(b: GraphBuilder, node: onnx.NodeProto) -> ImportedLayer:
    names = dict(zip(INPUTS[node.op_type], node.input, strict=False))
    arrays: dict[str, np.ndarray] = {}
    for name in names.values():
        array = b.values[name].array if name else None
        if array is not None:
            arrays[name] = array
    module = from_node(node, arrays)
    D, _, H = arrays[names["R"]].shape
    h = _initial_state(b, node, names.get("initial_h", ""), "initial_h", D, H)
    c = _initial_state(b, node, names.get("initial_c", ""), "initial_c", D, H)
    hx: Tensor | tuple[Tensor, ...] | None = h
    if node.op_type == "LSTM" and h is not None:
        hx = (h, torch.zeros_like(h) if c is None else c)
    elif node.op_type == "LSTM" and c is not None:
        hx = (torch.zeros_like(c), c)
    return ImportedLayer(node.name or node.output[0], module, hx)


def _initial_state(
    b: GraphBuilder, node: onnx.NodeProto, name: str, input_name: str, D: int, H: int
) -> Tensor | None:
    """An initial state [D, N, H], if it is constant."""
    value = b.values[name] if name else Value()
    array = value.array if value.unexpanded is None else value.unexpanded.array
    if array is None:
        return None
    check_state(node, input_name, array.shape, D, H)
    state = torch.from_numpy(np.array(array))
    return state.transpose(0, 1) if Attributes(node).get("layout", 0) == 1 else state


def converted_graph(
    model: onnx.ModelProto,
    weights: Mapping[str, np.ndarray] | None = None,
    optional: bool = False,
) -> GraphBuilder:
    """Convert all nodes of a graph; ``weights`` are constants for some of its inputs."""
    b = GraphBuilder(model)
    graph = model.graph
    with_default = optional and model.ir_version >= 4
    optional_inputs = {info.name for info in graph.input} if with_default else set()
    for tensor in graph.initializer:
        if tensor.name not in optional_inputs:
            b.define({tensor.name: Value(array=numpy_helper.to_array(tensor))})
    b.define({name: Value(array=array) for name, array in (weights or {}).items()})
    for info in graph.input:
        if info.name not in b.values:
            b.shapes.add_input(info)
            b.values[info.name] = Value(b.graph.placeholder(_argument_name(info.name, b)))
    for node in graph.node:
        convert_node(b, node)
    return b


def _input_sizes(b: GraphBuilder, model: onnx.ModelProto) -> dict[str, tuple[str, Sizes]]:
    """Name and sizes of each input of the module, by its placeholder; None for a free size."""
    inputs: dict[str, tuple[str, Sizes]] = {}
    for info in model.graph.input:
        node, tensor_type = b.values[info.name].node, info.type.tensor_type
        if node is not None:
            sizes = [d.dim_value if d.dim_value > 0 else None for d in tensor_type.shape.dim]
            inputs[str(node.target)] = (info.name, sizes if tensor_type.HasField("shape") else [])
    return inputs


def _argument_name(name: str, b: GraphBuilder) -> str:
    """A valid and unique argument name for an input."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    is_valid = cleaned[:1].isalpha() and cleaned != "self" and not keyword.iskeyword(cleaned)
    return b.unique_name(cleaned if is_valid else f"input_{cleaned}")


@contextmanager
def _contradictions_as_value_errors() -> Iterator[None]:
    """Raise ValueError for the errors that an inconsistent model causes."""
    try:
        yield
    except ValueError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        raise ValueError(f"unrolled.onnx: model must not contradict itself, got {error}") from error
