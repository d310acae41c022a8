"""A trained module, or a run, as a file for ``unrolled.runtime``: weights, programs, vocabulary.

What a file holds is described once, in ``runtime.description``.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from unrolled import io
from unrolled.export.chains import blocks_of
from unrolled.export.parts import Blocks, describe_translator
from unrolled.export.short import kept_short
from unrolled.models import EncoderDecoder
from unrolled.nn import Recurrent
from unrolled.nn.snapshot import ExportError
from unrolled.runtime import Model, Translator
from unrolled.runtime.description import KIND, VERSION, check_weights

__all__ = ["ExportError", "export", "parts_of"]


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
    check_weights(weights)
    _check_module(module)
    tree = {"kind": KIND, "version": 1, "weights": weights, "task": task, "codec": _plain(codec)}
    tree |= kept_short(parts_of(module, codec), weights)
    if _is_new(tree):
        tree["version"] = VERSION
    try:
        (Translator if "encoder" in tree else Model)(tree)
    except io.DAMAGE as error:
        raise ExportError(f"{type(module).__name__}: {error}") from error
    io.save(path, tree)


def _check_module(module: Any) -> None:
    if isinstance(module, nn.Module):
        return
    hint = ""
    if isinstance(module, Mapping):
        hint = "; load a state_dict into the module that it is of first"
    elif isinstance(module, type):
        hint = f" {module.__name__}, not an instance of it"
    raise TypeError(f"module: wanted a torch.nn.Module, got {type(module).__name__}{hint}")


def parts_of(module: nn.Module, codec: Any) -> dict[str, Any]:
    """The chain of a module, or the two of an encoder and decoder, as ``runtime.description`` has
    them.

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
    blocks = _scaled(blocks_of(module), codec)
    return {"blocks": blocks} | ({"batch_first": True} if True in first else {})


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


def _scaled(blocks: Blocks, codec: Any) -> Blocks:
    """With the scale of a codec, by which numbers come to standard units before the module, and
    forecasts back from them."""
    if not isinstance(codec, dict) or codec.get("mean") is None:
        return blocks
    scale = {k: np.asarray(_plain(codec[k]), np.float64) for k in ("mean", "deviation")}
    if blocks[-1]["block"] == "forecast":
        own = {name: value[: blocks[-1]["targets"]] for name, value in scale.items()}
        blocks = [*blocks[:-1], {**blocks[-1], **own}]
    return [{"block": "scale", **scale}, *blocks]


def _is_new(told: Any) -> bool:
    """Whether a description has what version 1 had not."""
    if isinstance(told, dict):
        new = ("batch_first", "encoder", "kept", "merge")
        if any(key in told for key in new) or told.get("block") in ("words", "forecast"):
            return True
        return any(_is_new(value) for key, value in told.items() if key != "codec")
    return isinstance(told, list | tuple) and any(map(_is_new, told))


def _plain(codec: Any) -> Any:
    if isinstance(codec, Tensor):
        return codec.detach().cpu().numpy()
    if isinstance(codec, dict):
        return {key: _plain(value) for key, value in codec.items()}
    if isinstance(codec, list | tuple):
        return type(codec)(_plain(value) for value in codec)
    return codec
