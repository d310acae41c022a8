"""A model of ONNX from a file, or given, and checked before anything of it is used."""

import os
from pathlib import Path

import onnx
import onnx.inliner
from onnx import external_data_helper

from unrolled.io import FileError

__all__ = ["Source", "read"]

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
        # Looks only into files of this folder, and into no links.
        external_data_helper.load_external_data_for_model(model, str(Path(source).parent))
        return _checked(model, "model")
    except Exception as error:  # the checker's own class among them
        raise FileError(source, f"no valid model of ONNX ({error})".replace("\n", " ")) from None


def _checked(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    outside = [
        tensor.name
        for tensor in model.graph.initializer
        if external_data_helper.uses_external_data(tensor)
    ]
    if outside:
        raise ValueError(
            f"{name}: {outside[0]!r} is in a file beside the model's; give its path, or what "
            "onnx.load gives"
        )
    if model.graph.sparse_initializer:
        raise ValueError(f"{name}: wanted no sparse initializers")
    try:
        onnx.checker.check_model(model)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{name}: no valid model of ONNX ({error})") from error
