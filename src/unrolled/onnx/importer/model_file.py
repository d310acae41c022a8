"""A model of ONNX from a file, or given, and checked before anything of it is used."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx.inliner
from onnx import external_data_helper

from unrolled.io import FileError
from unrolled.limits import Budget

__all__ = ["Source", "read"]

NUMBERS_PER_NODE = 256
"""What a node costs while it is followed: about a thousand bytes."""
MOST_NODES = 1 << 48
"""Where the nodes that calls become are not counted further."""
Source = str | os.PathLike[str] | onnx.ModelProto


def read(source: Source) -> onnx.ModelProto:
    """A model with all its weights inside, valid as a model of ONNX, without functions.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged.
        ValueError: the model that was given is damaged, or its weights are elsewhere.
        TypeError: source is neither a path nor a model.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked(source, "model")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a path or an onnx.ModelProto, got {type(source).__name__}")
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise FileError(source, error.strerror or str(error)) from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class, of a package without types
        raise FileError(source, f"not a model of ONNX ({error})") from None
    try:
        _count_outside(model, Path(source).parent)
        # Looks only into files of this folder, and into no links.
        external_data_helper.load_external_data_for_model(model, str(Path(source).parent))
        return _checked(model, "model")
    except Exception as error:  # the checker's own class among them
        raise FileError(source, f"no valid model of ONNX ({error})".replace("\n", " ")) from None


def _count_outside(model: onnx.ModelProto, folder: Path) -> None:
    """Hold what many tensors read of files beside the model's to the size of those files.

    Raises:
        ValueError: they read far more.
    """
    read, sizes = 0, {"": model.ByteSize()}
    for tensor in _outside(model):
        told = {one.key: one.value for one in tensor.external_data}
        path = folder / told.get("location", "")
        if path.is_file():
            sizes[str(path)] = path.stat().st_size
            read += int(told.get("length") or sizes[str(path)])
    Budget(sum(sizes.values())).take(read // 4, "weights beside the file")


def _count_inlined(model: onnx.ModelProto) -> None:
    """Hold the nodes that calls of functions become to the file's budget.

    Raises:
        ValueError: they are too many, or a function calls itself.
    """
    functions = {(one.domain, one.name): one for one in model.functions}
    counts: dict[tuple[str, str], int] = {}
    open_: list[tuple[tuple[str, str], bool]] = [(key, False) for key in functions]
    above: set[tuple[str, str]] = set()
    while open_:
        key, done = open_.pop()
        if done:
            above.discard(key)
            calls = _calls(functions[key].node)
            counts[key] = min(1 + sum(counts.get(one, 1) for one in calls), MOST_NODES)
        elif key not in counts:
            above.add(key)
            called = {one for one in _calls(functions[key].node) if one in functions}
            if called & above:
                raise ValueError(f"function {key[1]!r} must not call itself")
            open_ += [(key, True), *((one, False) for one in called if one not in counts)]
    nodes = sum(counts.get(one, 1) for one in _calls(model.graph.node))
    Budget(model.ByteSize()).take(nodes * NUMBERS_PER_NODE, "functions")


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    """What nodes are calls of, those in the graphs of their attributes, too."""
    return ((node.domain, node.op_type) for node in _all_nodes(nodes))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in the graphs of their attributes."""
    remaining = list(nodes)
    while remaining:
        node = remaining.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                remaining += graph.node


def _outside(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors whose numbers are in files beside the model's."""
    tensors = list(model.graph.initializer)
    for node in _all_nodes([*model.graph.node, *(n for f in model.functions for n in f.node)]):
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for graph in (attribute.g, *attribute.graphs):
                tensors += graph.initializer
    return (one for one in tensors if external_data_helper.uses_external_data(one))


def _checked(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    outside = next(_outside(model), None)
    if outside is not None:
        raise ValueError(
            f"{name}: {outside.name!r} is in a file beside the model's; give its path, or what "
            "onnx.load gives"
        )
    if model.graph.sparse_initializer:
        raise ValueError(f"{name}: wanted no sparse initializers")
    try:
        onnx.checker.check_model(model)
        if not model.functions:
            return model
        _count_inlined(model)
        return onnx.inliner.inline_local_functions(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{name}: no valid model of ONNX ({error})") from error
