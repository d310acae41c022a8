"""ONNX models read from files and checked before anything in them is used."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx.inliner
from onnx import external_data_helper

from unrolled._limits import Budget
from unrolled.io import FileError

NUMBERS_PER_NODE = 256
"""The cost of converting a node: about a thousand bytes."""
MAX_NODES = 1 << 48
"""Above this the nodes of inlined functions are not counted further."""
Source = str | os.PathLike[str] | onnx.ModelProto
FunctionKey = tuple[str, str]
"""Domain and name of a function."""


def read_model(source: Source) -> onnx.ModelProto:
    """Read and check an ONNX model, load its external weights, and inline its functions.

    Raises:
        unrolled.io.FileError: the file is missing or damaged.
        ValueError: the given model is damaged, or its weights are in another file.
        TypeError: source is neither a path nor a model.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "unrolled.onnx: source must be a path or an onnx.ModelProto, got "
            f"{type(source).__name__}"
        )
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise FileError(source, error.strerror or str(error)) from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class, of a package without types
        raise FileError(source, f"not an ONNX model ({error})") from None
    try:
        _check_external_size(model, Path(source).parent)
        # Reads only files of this folder, and does not follow links.
        external_data_helper.load_external_data_for_model(model, str(Path(source).parent))
        return _checked(model)
    except Exception as error:  # the checker's own class among them
        raise FileError(source, f"not a valid ONNX model ({error})".replace("\n", " ")) from None


def _check_external_size(model: onnx.ModelProto, folder: Path) -> None:
    """Check that tensors read no more from external files than the size of these files.

    Raises:
        ValueError: they read far more.
    """
    bytes_read, sizes = 0, {"": model.ByteSize()}
    for tensor in _external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = folder / entries.get("location", "")
        if path.is_file():
            sizes[str(path)] = path.stat().st_size
            bytes_read += int(entries.get("length") or sizes[str(path)])
    Budget(sum(sizes.values())).take(bytes_read // 4, "weights beside the file")


def _check_inlined_size(model: onnx.ModelProto) -> None:
    """Count the nodes of inlined functions against the file's budget.

    Raises:
        ValueError: there are too many, or a function calls itself.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    counts: dict[FunctionKey, int] = {}
    pending: list[tuple[FunctionKey, bool]] = [(key, False) for key in functions]
    callers: set[FunctionKey] = set()
    while pending:
        key, callees_are_counted = pending.pop()
        if callees_are_counted:
            callers.discard(key)
            nodes = _calls(functions[key].node)
            counts[key] = min(1 + sum(counts.get(call, 1) for call in nodes), MAX_NODES)
        elif key not in counts:
            callers.add(key)
            callees = {call for call in _calls(functions[key].node) if call in functions}
            if callees & callers:
                raise ValueError(
                    f"unrolled.onnx: function {key[1]!r} must not call itself, got a recursion"
                )
            pending.append((key, True))
            pending += [(callee, False) for callee in callees if callee not in counts]
    total = sum(counts.get(call, 1) for call in _calls(model.graph.node))
    Budget(model.ByteSize()).take(total * NUMBERS_PER_NODE, "functions")


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[FunctionKey]:
    """The operators or functions of nodes, with those in the graphs of their attributes."""
    return ((node.domain, node.op_type) for node in _nested_nodes(nodes))


def _nested_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in the graphs of their attributes."""
    remaining = list(nodes)
    while remaining:
        node = remaining.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                remaining += graph.node


def _external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors whose values are in external files."""
    tensors = list(model.graph.initializer)
    function_nodes = (node for function in model.functions for node in function.node)
    for node in _nested_nodes([*model.graph.node, *function_nodes]):
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for graph in (attribute.g, *attribute.graphs):
                tensors += graph.initializer
    return (tensor for tensor in tensors if external_data_helper.uses_external_data(tensor))


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    external = next(_external_tensors(model), None)
    if external is not None:
        raise ValueError(
            f"unrolled.onnx: model must contain its weights, got {external.name!r} in another "
            "file; pass the path of the model, or the result of onnx.load"
        )
    if model.graph.sparse_initializer:
        raise ValueError(
            "unrolled.onnx: model must have dense initializers, got "
            f"{len(model.graph.sparse_initializer)} sparse ones"
        )
    try:
        onnx.checker.check_model(model)
        if not model.functions:
            return model
        _check_inlined_size(model)
        return onnx.inliner.inline_local_functions(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"unrolled.onnx: model must be a valid ONNX model, got {error}") from error
