"""Writes a trained module as a file for ``unrolled.runtime``."""

import os
from collections.abc import Mapping

from torch import nn

from unrolled import io
from unrolled.export._model_description import describe_model, plain_values
from unrolled.nn._snapshot import ExportError
from unrolled.runtime._encode import encode_file
from unrolled.runtime._schema import ExportedFile
from unrolled.runtime._validate import check_format, check_model


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    codec: object = None,
    weights: str = "float32",
) -> None:
    """Write a module as a file that ``unrolled.runtime.load`` reads.

    The module is exported in evaluation mode, without dropout, and is not changed.

    Args:
        module: a layer of ``unrolled.nn``, a model of ``unrolled.models``, a ``Forecaster``, or any
            module that is a chain of layers, embeddings, linear layers, activations and dropout, in
            which each reads the result of the one before. A layer may be followed by ``y[-1]`` of
            its outputs (``y[:, -1]`` with batch_first) or ``h[-1]`` of its final state, or, with
            two directions, by ``torch.cat((h[-2], h[-1]), 1)``. States that the module's forward
            creates for a layer (zeros, or the same row for all sequences) become the initial states
            of the file; packed sequences become sequences with lengths.
        task, codec: information for users of the file, stored unchanged, with tensors as arrays.
            The scale of a codec of numbers (mean, deviation) is applied before the module, and
            inverted after forecasts.
        weights: the format of matrices in the file and in the runtime: "float32", "bfloat16" or
            "int8".

    Raises:
        ExportError: the module is not such a chain, or not in float32.
        TypeError: ``module`` is not a module.
        ValueError: ``weights`` is not one of the formats.
        OSError: the file cannot be written.
    """
    check_format("export", weights)
    _check_module(module)
    model = describe_model(module, codec)
    try:
        check_model(model)
    except io.CORRUPT_FILE_ERRORS as error:
        raise ExportError(f"{type(module).__name__}: {error}") from error
    io.save(path, encode_file(ExportedFile(weights, task, plain_values(codec), model)))


def _check_module(module: object) -> None:
    if isinstance(module, nn.Module):
        return
    hint = ""
    if isinstance(module, Mapping):
        hint = "; load a state_dict into its module and pass the module"
    elif isinstance(module, type):
        hint = f" {module.__name__}, not an instance of it"
    raise TypeError(f"export: module must be a torch.nn.Module, got {type(module).__name__}{hint}")
