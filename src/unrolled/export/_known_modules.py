"""Describes layers, models of this library and known modules of torch as blocks of a file."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from unrolled.models import EncoderDecoder, SequenceModel, Tagger
from unrolled.models._initial_state import LearnedInitialState
from unrolled.models._pooling import Pooling
from unrolled.models._sequence_model import OneHot
from unrolled.nn import Recurrent, RecurrentCell
from unrolled.nn._snapshot import ExportError, array_of, describe_layer
from unrolled.runtime._schema import (
    ActivationBlock,
    AttentionBlock,
    Block,
    EmbeddingBlock,
    ForecastBlock,
    InitialStates,
    LastBlock,
    LinearBlock,
    PoolingBlock,
    RecurrentBlock,
    TranslatorModel,
    WordsBlock,
)
from unrolled.tasks._forecasting import Forecaster

B = TypeVar("B", bound=Block)
Describe = Callable[[nn.Module, str, torch.dtype], list[Block]]
"""Takes a module, its path and the dtype of its parameters; returns its blocks."""


def is_known(module: nn.Module) -> bool:
    """Whether a module is described by its type, without tracing its forward."""
    if isinstance(module, nn.Sequential) and any(map(_needs_tracing, module)):
        return False
    has_known_type = isinstance(module, (nn.Sequential, *_DESCRIBERS))
    package = (type(module).forward.__module__ or "").partition(".")[0]  # None with torch.fx
    return has_known_type and package in ("torch", "unrolled") and "forward" not in vars(module)


def _needs_tracing(child: nn.Module) -> bool:
    """Whether a child of a Sequential is a class of the user's."""
    if isinstance(child, nn.Sequential):
        return not is_known(child)
    package = type(child).__module__.partition(".")[0]
    return package not in ("torch", "unrolled") and not isinstance(child, tuple(_DESCRIBERS))


def describe(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    """The blocks of a known module. A layer in a Sequential passes on its outputs.

    Args:
        path: the path of the module, for messages.
        dtype: the dtype of all parameters.

    Raises:
        ExportError: the module is not known, or has another dtype.
    """
    if not is_known(module):
        raise ExportError(
            f"{path}: must be a layer of unrolled.nn, an embedding, a linear layer, an activation "
            f"or dropout, got {type(module).__name__}{unknown_module_hint(module)}"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise ExportError(f"{path}: must have no hooks, which change what it computes, got some")
    if isinstance(module, nn.Sequential):
        children = module._modules.items()  # named_children skips repeated modules
        prefix = "" if path == type(module).__name__ else f"{path}."
        return [
            block
            for name, child in children
            if child is not None
            for block in describe(child, prefix + name, dtype)
        ]
    describe_type = next(f for base, f in _DESCRIBERS.items() if isinstance(module, base))
    return describe_type(module, path, dtype)


def unknown_module_hint(module: nn.Module) -> str:
    """Advice on a module that is not known, if it contains torch's layers or single steps."""
    named = [
        (type(child).__name__ + (f" ({name})" if name else ""), child)
        for name, child in module.named_modules()
    ]
    torch_layers = [name for name, child in named if isinstance(child, nn.RNNBase)]
    if torch_layers:
        return (
            f"; unrolled.nn.convert replaces torch's layers by those of unrolled.nn: "
            f"{', '.join(torch_layers)}"
        )
    cells = [name for name, child in named if isinstance(child, RecurrentCell | nn.RNNCellBase)]
    if cells:
        return (
            f"; single steps are not exported: {', '.join(cells)}; use a layer, such as Recurrent, "
            "which contains the loop"
        )
    return ""


def describe_translator(model: EncoderDecoder, dtype: torch.dtype) -> TranslatorModel:
    """Describe an encoder and a decoder; the last two tokens of the target are begin and end.

    Raises:
        ExportError: a submodule is not known, or has another dtype.
    """
    if type(model).forward is not EncoderDecoder.forward or "forward" in vars(model):
        raise ExportError(
            f"{type(model).__name__}: forward must be that of EncoderDecoder, got another one"
        )
    attention = None
    if model.attention is not None:
        combine = describe_one(model.attention.combine, "attention", LinearBlock, dtype)
        attention = AttentionBlock(combine)
    encoder = (
        describe_one(model.source, "source", EmbeddingBlock, dtype),
        describe_one(model.encoder, "encoder", RecurrentBlock, dtype),
    )
    decoder = (
        describe_one(model.target, "target", EmbeddingBlock, dtype),
        describe_one(model.decoder, "decoder", RecurrentBlock, dtype),
        attention,
        describe_one(model.head, "head", LinearBlock, dtype),
    )
    size = model.target.num_embeddings
    return TranslatorModel(encoder, decoder, begin=size - 2, end=size - 1)


def describe_one(module: nn.Module, path: str, block_type: type[B], dtype: torch.dtype) -> B:
    """The only block of a module, which must have this type."""
    blocks = describe(module, path, dtype)
    if len(blocks) != 1 or not isinstance(blocks[0], block_type):
        expected = block_type.__name__.removesuffix("Block").lower()
        got = ", ".join(block.block for block in blocks) or "none"
        raise ExportError(f"{path}: must be one {expected} block, got {got}")
    return blocks[0]


def initial_rows(initial: LearnedInitialState, dtype: torch.dtype) -> InitialStates:
    """The initial states of each layer and direction."""
    states = [array_of(state, "start", dtype) for state in initial.states]
    return tuple(tuple(state[row] for state in states) for row in range(len(states[0])))


def _sequence_model(model: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(model, SequenceModel)
    layers = describe_one(model.recurrent, "recurrent", RecurrentBlock, dtype)
    if model.start is not None:
        layers = replace(layers, start=initial_rows(model.start, dtype))
    blocks = [*describe(model.encoder, "encoder", dtype), layers]
    if model.pooling is not None:
        blocks.append(_pooling(model.pooling, model.recurrent.spec.output_size, dtype))
    return blocks + describe(model.head, "head", dtype)


def _pooling(pooling: Pooling, width: int, dtype: torch.dtype) -> Block:
    if pooling.name == "last":
        return LastBlock()
    if pooling.name != "attention":
        return PoolingBlock(pooling.name, width)
    keys, query = (
        describe_one(linear, "pooling", LinearBlock, dtype)
        for linear in (pooling.keys, pooling.query)
    )
    return PoolingBlock(pooling.name, width, keys, query)


def _forecaster(model: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(model, Forecaster)
    forecast = ForecastBlock(model.horizon, model.targets)
    return [*describe(model.sequence, "sequence", dtype), forecast]


def _tagger(model: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(model, Tagger)
    embedding = describe_one(model.words, "words", EmbeddingBlock, dtype)
    words: Block = embedding
    if model.characters is not None:
        characters = describe_one(model.characters, "characters", EmbeddingBlock, dtype)
        spelling = describe_one(model.spelling, "spelling", RecurrentBlock, dtype)
        words = WordsBlock(embedding.weight, characters.weight, spelling)
    layers = describe(model.recurrent, "recurrent", dtype)
    return [words, *layers, *describe(model.head, "head", dtype)]


def _identity(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    return []


def _embedding(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(module, nn.Embedding)
    if module.max_norm is not None:
        raise ExportError(
            f"{path}: max_norm must be None, since it changes the weight, got {module.max_norm}"
        )
    return [EmbeddingBlock(array_of(module.weight, path, dtype))]


def _one_hot(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(module, OneHot)
    return [EmbeddingBlock(np.eye(module.num_classes, dtype=np.float32))]


def _linear(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(module, nn.Linear)
    bias = None if module.bias is None else array_of(module.bias, path, dtype)
    return [LinearBlock(array_of(module.weight, path, dtype), bias)]


def _recurrent(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
    assert isinstance(module, Recurrent)
    return [describe_layer(module, path, dtype)]


def _activation(function: str) -> Describe:
    def describe_activation(module: nn.Module, path: str, dtype: torch.dtype) -> list[Block]:
        dim = getattr(module, "dim", -1)
        if dim != -1:
            raise ExportError(f"{path}: dim of {function} must be -1, the last one, got {dim}")
        return [ActivationBlock(function)]

    return describe_activation


_DESCRIBERS: dict[type[nn.Module], Describe] = {
    SequenceModel: _sequence_model,
    Forecaster: _forecaster,
    Tagger: _tagger,
    Recurrent: _recurrent,
    nn.Embedding: _embedding,
    OneHot: _one_hot,
    nn.Linear: _linear,
    nn.Dropout: _identity,
    nn.Identity: _identity,
    nn.ReLU: _activation("relu"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Softmax: _activation("softmax"),
    nn.LogSoftmax: _activation("log_softmax"),
}
