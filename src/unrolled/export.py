"""A trained module, or a run, as a file for ``unrolled.runtime``: weights, programs, vocabulary.

What the file holds is described once, in ``runtime.description``.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled import io
from unrolled.models import SequenceModel
from unrolled.models.sequence import OneHot
from unrolled.models.start import LearnedStart
from unrolled.nn import Recurrent
from unrolled.nn.snapshot import ExportError, array_of, describe_layer
from unrolled.runtime.description import KIND, VERSION

__all__ = ["ExportError", "describe", "export"]

Blocks = list[dict[str, Any]]


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
        module: one of our layers, a ``SequenceModel``, or an ``nn.Sequential`` of layers,
            embeddings, linear layers, activations and dropout.
        task, codec: what a user of the file may want to know: kept as they are, tensors as arrays.
            The scale of a codec of numbers (mean, deviation) is applied before the module.
        weights: how the runtime keeps them unless it is told otherwise: "float32", "bfloat16" or
            "int8".

    Raises:
        ExportError: a part of the module is not one of those, or not in float32.
        ValueError: weights is none of these.
        OSError: the file cannot be written.
    """
    if weights not in ("float32", "bfloat16", "int8"):
        raise ValueError(f"weights: wanted float32, bfloat16 or int8, got {weights!r}")
    tree = {
        "kind": KIND,
        "version": VERSION,
        "weights": weights,
        "task": task,
        "codec": _plain(codec),
        "blocks": _scale(codec) + describe(module),
    }
    io.save(path, tree)


def _scale(codec: Any) -> Blocks:
    """The scale of a codec, by which numbers come to standard units before the module."""
    if not isinstance(codec, dict) or codec.get("mean") is None:
        return []
    return [{"block": "scale"} | {k: codec[k].numpy() for k in ("mean", "deviation")}]


def describe(module: nn.Module) -> Blocks:
    """The parts of a module, as the file has them.

    Raises:
        ExportError: a part is not known, or not in float32.
    """
    with torch.no_grad():
        return _blocks(module, type(module).__name__)


def _blocks(module: nn.Module, where: str) -> Blocks:
    if isinstance(module, nn.Sequential):
        return [one for name, part in module.named_children() for one in _blocks(part, name)]
    if isinstance(module, SequenceModel):
        return _sequence_model(module)
    for kind, told in _KNOWN.items():
        if isinstance(module, kind):
            return told(module, where)
    raise ExportError(
        f"{where}: wanted layers of unrolled.nn, embeddings, linear layers, activations or "
        f"dropout, got {type(module).__name__}"
    )


def _sequence_model(model: SequenceModel) -> Blocks:
    found = _blocks(model.encoder, "encoder") + _recurrent(
        model.recurrent, "recurrent", model.start
    )
    if model.pooling is not None:
        if model.pooling.name != "last":
            raise ExportError(f"pooling: wanted none or last, got {model.pooling.name}")
        found.append({"block": "last"})
    return found + _blocks(model.head, "head")


def _nothing(module: nn.Module, where: str) -> Blocks:
    return []


def _embedding(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, nn.Embedding)
    if module.max_norm is not None:
        raise ExportError(
            f"{where}: wanted an embedding without max_norm, which changes its weight"
        )
    return [{"block": "embedding", "weight": array_of(module.weight, where)}]


def _one_hot(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, OneHot)
    return [{"block": "embedding", "weight": np.eye(module.num_classes, dtype=np.float32)}]


def _linear(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, nn.Linear)
    bias = None if module.bias is None else array_of(module.bias, where)
    return [{"block": "linear", "weight": array_of(module.weight, where), "bias": bias}]


def _of_rows(name: str) -> Callable[[nn.Module, str], Blocks]:
    def told(module: nn.Module, where: str) -> Blocks:
        if getattr(module, "dim", -1) != -1:
            raise ExportError(f"{where}: wanted {name} over the last dimension, dim=-1")
        return [{"block": name}]

    return told


def _recurrent(module: nn.Module, where: str, start: LearnedStart | None = None) -> Blocks:
    assert isinstance(module, Recurrent)
    told = describe_layer(module, where)
    if start is not None:
        states = [array_of(state, "start") for state in start.states]
        told["start"] = [tuple(state[row] for state in states) for row in range(len(states[0]))]
    return [told]


def _plain(codec: Any) -> Any:
    if isinstance(codec, Tensor):
        return codec.cpu().numpy()
    if isinstance(codec, dict):
        return {key: _plain(value) for key, value in codec.items()}
    if isinstance(codec, list | tuple):
        return type(codec)(_plain(value) for value in codec)
    return codec


_KNOWN: dict[type, Callable[[nn.Module, str], Blocks]] = {
    Recurrent: _recurrent,
    nn.Embedding: _embedding,
    OneHot: _one_hot,
    nn.Linear: _linear,
    nn.Dropout: _nothing,
    nn.Identity: _nothing,
    nn.ReLU: _of_rows("relu"),
    nn.Tanh: _of_rows("tanh"),
    nn.Sigmoid: _of_rows("sigmoid"),
    nn.Softmax: _of_rows("softmax"),
    nn.LogSoftmax: _of_rows("log_softmax"),
}
