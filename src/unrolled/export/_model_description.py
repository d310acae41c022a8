"""Describes a module in the schema of exported files."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.export._known_modules import describe_translator
from unrolled.export._traced_chain import describe_chain
from unrolled.models import EncoderDecoder
from unrolled.nn import Recurrent
from unrolled.nn._snapshot import ExportError
from unrolled.runtime._blocks import Float64Array
from unrolled.runtime._schema import Block, ChainModel, ForecastBlock, ScaleBlock, TranslatorModel


def describe_model(
    module: nn.Module, codec: object, dtype: torch.dtype = torch.float32
) -> ChainModel | TranslatorModel:
    """A module in the schema of exported files, with the scale of a codec of numbers.

    Args:
        dtype: the dtype of all parameters: float32 in a file; float64 is possible for ONNX.

    Raises:
        ExportError: the module is not a chain, or has another dtype.
    """
    module = _unwrap(module)
    if isinstance(module, EncoderDecoder):
        return describe_translator(module, dtype)
    layers = [child for child in module.modules() if isinstance(child, Recurrent)]
    batch_first = {layer.batch_first for layer in layers}
    if len(batch_first) > 1:
        raise ExportError("export: batch_first must be the same in all layers, got both")
    blocks = _with_scale(describe_chain(module, dtype), codec)
    return ChainModel(tuple(blocks), True in batch_first)


def plain_values(codec: object) -> object:
    """A codec with arrays in place of tensors."""
    if isinstance(codec, Tensor):
        return codec.detach().cpu().numpy()
    if isinstance(codec, dict):
        return {key: plain_values(value) for key, value in codec.items()}
    if isinstance(codec, list | tuple):
        return type(codec)(plain_values(value) for value in codec)
    return codec


def _unwrap(module: nn.Module) -> nn.Module:
    """The module within a compiled or parallel one."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _with_scale(blocks: list[Block], codec: object) -> list[Block]:
    """Add the scale of a codec to blocks: it converts numbers to standard units, and forecasts back
    to the units of the data."""
    if not isinstance(codec, dict) or codec.get("mean") is None:
        return blocks
    mean, deviation = (_float64(codec[name]) for name in ("mean", "deviation"))
    forecast = blocks[-1]
    if isinstance(forecast, ForecastBlock):
        targets = slice(forecast.targets)
        forecast = replace(forecast, mean=mean[targets], deviation=deviation[targets])
        blocks = [*blocks[:-1], forecast]
    return [ScaleBlock(mean, deviation), *blocks]


def _float64(values: object) -> Float64Array:
    return np.asarray(plain_values(values)).astype(np.float64)
