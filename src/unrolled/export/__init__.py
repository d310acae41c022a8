"""A trained module, or a run, as a file for ``unrolled.runtime``: weights, programs, vocabulary.

What a file holds is described once, in ``runtime.description``.
"""

import os
from typing import Any

import numpy as np
from torch import Tensor, nn

from unrolled import io
from unrolled.export.chains import blocks_of
from unrolled.export.parts import Blocks
from unrolled.nn.snapshot import ExportError
from unrolled.runtime import Model
from unrolled.runtime.description import KIND, VERSION, check_weights

__all__ = ["ExportError", "export"]


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    codec: Any = None,
    weights: str = "float32",
) -> None:
    """Write a module as a file that ``unrolled.runtime.load`` reads.

    Args:
        module: a layer of ``unrolled.nn``, a ``SequenceModel``, or any module that is a chain of
            layers, embeddings, linear layers, activations and dropout: each reads what the one
            before it gives. ``y[-1]`` of a layer's outputs, or ``h[-1]`` of its final state, may
            follow it.
        task, codec: what a user of the file may want to know: kept as they are, tensors as arrays.
            The scale of a codec of numbers (mean, deviation) is applied before the module.
        weights: how the runtime keeps them unless it is told otherwise: "float32", "bfloat16" or
            "int8".

    Raises:
        ExportError: the module is no such chain, or not in float32.
        ValueError: weights is none of these.
        OSError: the file cannot be written.
    """
    check_weights(weights)
    tree = {
        "kind": KIND,
        "version": VERSION,
        "weights": weights,
        "task": task,
        "codec": _plain(codec),
        "blocks": _scale(codec) + blocks_of(module),
    }
    try:
        Model(tree)
    except io.DAMAGE as error:
        raise ExportError(f"{type(module).__name__}: {error}") from error
    io.save(path, tree)


def _scale(codec: Any) -> Blocks:
    """The scale of a codec, by which numbers come to standard units before the module."""
    if not isinstance(codec, dict) or codec.get("mean") is None:
        return []
    scale = {k: np.asarray(_plain(codec[k]), np.float64) for k in ("mean", "deviation")}
    return [{"block": "scale", **scale}]


def _plain(codec: Any) -> Any:
    if isinstance(codec, Tensor):
        return codec.detach().cpu().numpy()
    if isinstance(codec, dict):
        return {key: _plain(value) for key, value in codec.items()}
    if isinstance(codec, list | tuple):
        return type(codec)(_plain(value) for value in codec)
    return codec
