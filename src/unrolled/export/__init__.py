"""A trained module, or a run, as a file for ``unrolled.runtime``: weights, programs, vocabulary.

``runtime.schema`` says what a file holds.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from unrolled import io
from unrolled.export.chains import describe_chain
from unrolled.export.parts import describe_translator
from unrolled.models import EncoderDecoder
from unrolled.nn import Recurrent
from unrolled.nn.snapshot import ExportError
from unrolled.runtime.encode import encode_file
from unrolled.runtime.schema import (
    Block,
    ChainModel,
    ExportedFile,
    ForecastBlock,
    ScaleBlock,
    TranslatorModel,
)
from unrolled.runtime.validate import check_format, check_model

__all__ = ["ExportError", "describe_model", "export"]


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    codec: Any = None,
    weights: str = "float32",
) -> None:
    """Write a module as a file that ``unrolled.runtime.load`` reads.

    Dropout does nothing, as in evaluation.

    Args:
        module: a layer of ``unrolled.nn``, a model of ``unrolled.models``, a ``Forecaster``, or any
            module that is a chain of layers, embeddings, linear layers, activations and dropout:
            each reads what the one before it gives. ``y[-1]`` of a layer's outputs (``y[:, -1]``
            with batch_first), or ``h[-1]`` of its final state, may follow it, and
            ``torch.cat((h[-2], h[-1]), 1)`` where it has two directions. States that the module's
            forward makes for a layer (zeros, or the same row for all sequences) are what the file
            begins with; packed sequences are sequences with lengths. The module is left as it was.
        task, codec: what a user of the file may want to know: kept as they are, tensors as arrays.
            The scale of a codec of numbers (mean, deviation) is applied before the module, and
            taken back from forecasts.
        weights: how the file has them, and the runtime keeps them: "float32", "bfloat16" or
            "int8".

    Raises:
        ExportError: the module is no such chain, or not in float32.
        TypeError: it is no module.
        ValueError: weights is none of these.
        OSError: the file cannot be written.
    """
    check_format("export", weights)
    _check_module(module)
    model = describe_model(module, codec)
    try:
        check_model(model)
    except io.CORRUPT_FILE_ERRORS as error:
        raise ExportError(f"{type(module).__name__}: {error}") from error
    io.save(path, encode_file(ExportedFile(weights, task, _plain(codec), model)))


def _check_module(module: Any) -> None:
    if isinstance(module, nn.Module):
        return
    hint = ""
    if isinstance(module, Mapping):
        hint = "; load a state_dict into the module that it is of first"
    elif isinstance(module, type):
        hint = f" {module.__name__}, not an instance of it"
    raise TypeError(f"module: wanted a torch.nn.Module, got {type(module).__name__}{hint}")


def describe_model(module: nn.Module, codec: Any) -> ChainModel | TranslatorModel:
    """A module in the schema of exported files, with the scale of a codec of numbers.

    Raises:
        ExportError: the module is no such chain.
    """
    module = _unwrapped(module)
    if isinstance(module, EncoderDecoder):
        return describe_translator(module)
    layers = [one for one in module.modules() if isinstance(one, Recurrent)]
    first = {one.batch_first for one in layers}
    if len(first) > 1:
        raise ExportError("batch_first: wanted the same in all layers, got both")
    return ChainModel(tuple(_scaled(describe_chain(module), codec)), True in first)


def _unwrapped(module: nn.Module) -> nn.Module:
    """What was compiled, or made parallel."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _scaled(blocks: list[Block], codec: Any) -> list[Block]:
    """With the scale of a codec, by which numbers come to standard units before the module, and
    forecasts back from them."""
    if not isinstance(codec, dict) or codec.get("mean") is None:
        return blocks
    mean, deviation = (np.asarray(_plain(codec[k]), np.float64) for k in ("mean", "deviation"))
    forecast = blocks[-1]
    if isinstance(forecast, ForecastBlock):
        targets = slice(forecast.targets)
        forecast = replace(forecast, mean=mean[targets], deviation=deviation[targets])
        blocks = [*blocks[:-1], forecast]
    return [ScaleBlock(mean, deviation), *blocks]


def _plain(codec: Any) -> Any:
    if isinstance(codec, Tensor):
        return codec.detach().cpu().numpy()
    if isinstance(codec, dict):
        return {key: _plain(value) for key, value in codec.items()}
    if isinstance(codec, list | tuple):
        return type(codec)(_plain(value) for value in codec)
    return codec
