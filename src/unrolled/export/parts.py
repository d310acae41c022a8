"""Modules as blocks of ``runtime.schema``: those that are known, and chains of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from torch import nn

from unrolled.models import EncoderDecoder, SequenceModel, Tagger
from unrolled.models.initial_state import LearnedInitialState
from unrolled.models.pooling import Pooling
from unrolled.models.sequence_model import OneHot
from unrolled.nn import Recurrent, RecurrentCell
from unrolled.nn.snapshot import ExportError, array_of, describe_layer
from unrolled.runtime.schema import (
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
from unrolled.tasks.forecasting import Forecaster

__all__ = ["Blocks", "describe", "describe_translator", "hint_at", "is_known", "of_rows", "rows_of"]

Blocks = list[Block]


def is_known(module: nn.Module) -> bool:
    """Whether a module is described by itself, without a look at what it calls."""
    if isinstance(module, nn.Sequential) and any(map(_is_own, module)):
        return False
    known = isinstance(module, (nn.Sequential, *_KNOWN))
    home = (type(module).forward.__module__ or "").partition(".")[0]  # of fx: none
    return known and home in ("torch", "unrolled") and "forward" not in vars(module)


def _is_own(part: nn.Module) -> bool:
    """Whether a part of a Sequential is a module of the user's own, whose forward says more."""
    if isinstance(part, nn.Sequential):
        return not is_known(part)
    home = type(part).__module__.partition(".")[0]
    return home not in ("torch", "unrolled") and not isinstance(part, tuple(_KNOWN))


def describe(module: nn.Module, where: str) -> Blocks:
    """The parts of a module that is known. In a chain a layer passes its outputs on.

    Raises:
        ExportError: it is not known, or not in float32.
    """
    if not is_known(module):
        raise ExportError(
            f"{where}: wanted layers of unrolled.nn, embeddings, linear layers, activations or "
            f"dropout, got {type(module).__name__}{hint_at(module)}"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise ExportError(f"{where}: wanted no hooks, which change what it computes")
    if isinstance(module, nn.Sequential):
        parts = module._modules.items()  # named_children leaves out what stands there twice
        path = "" if where == type(module).__name__ else f"{where}."  # of the whole: its class
        return [
            one for name, part in parts if part is not None for one in describe(part, path + name)
        ]
    told = next(told for kind, told in _KNOWN.items() if isinstance(module, kind))
    return told(module, where)


def hint_at(module: nn.Module) -> str:
    """Which parts of a module that is not known are torch's layers, or single steps."""
    named = [
        (type(one).__name__ + (f" ({name})" if name else ""), one)
        for name, one in module.named_modules()
    ]
    theirs = [name for name, one in named if isinstance(one, nn.RNNBase)]
    if theirs:
        return f"; unrolled.nn.convert puts ours in the place of torch's {', '.join(theirs)}"
    steps = [name for name, one in named if isinstance(one, RecurrentCell | nn.RNNCellBase)]
    if steps:
        return f"; steps of {', '.join(steps)} are not followed: a layer, Recurrent, has the loop"
    return ""


def _sequence_model(model: nn.Module, where: str) -> Blocks:
    assert isinstance(model, SequenceModel)
    layers = _layers(model.recurrent, "recurrent", model.start)
    found: Blocks = [*describe(model.encoder, "encoder"), layers]
    if model.pooling is not None:
        found.append(_pooling(model.pooling, model.recurrent.spec.output_size))
    return found + describe(model.head, "head")


def _pooling(pooling: Pooling, width: int) -> Block:
    if pooling.name == "last":
        return LastBlock()
    if pooling.name != "attention":
        return PoolingBlock(pooling.name, width)
    keys, query = (
        _single(linear, "pooling", LinearBlock) for linear in (pooling.keys, pooling.query)
    )
    return PoolingBlock(pooling.name, width, keys, query)


def _forecaster(model: nn.Module, where: str) -> Blocks:
    assert isinstance(model, Forecaster)
    return [
        *describe(model.sequence, "sequence"), ForecastBlock(model.horizon, model.targets)
    ]  # fmt: skip


def _tagger(model: nn.Module, where: str) -> Blocks:
    assert isinstance(model, Tagger)
    table = _single(model.words, "words", EmbeddingBlock)
    words: Block = table
    if model.characters is not None:
        characters = _single(model.characters, "characters", EmbeddingBlock)
        spelling = _single(model.spelling, "spelling", RecurrentBlock)
        words = WordsBlock(table.weight, characters.weight, spelling)
    return [words, *describe(model.recurrent, "recurrent"), *describe(model.head, "head")]


def describe_translator(model: EncoderDecoder) -> TranslatorModel:
    """An encoder and a decoder as two chains: each an embedding and layers; the decoder goes on to
    attention, if it has some, and a head. Begin and end are the last two tokens of the target.

    Raises:
        ExportError: a part is not known, or not in float32.
    """
    if type(model).forward is not EncoderDecoder.forward or "forward" in vars(model):
        raise ExportError(f"wanted the forward of EncoderDecoder, got {type(model).__name__}'s own")
    attention = None
    if model.attention is not None:
        attention = AttentionBlock(_single(model.attention.combine, "attention", LinearBlock))
    encoder = (
        _single(model.source, "source", EmbeddingBlock),
        _single(model.encoder, "encoder", RecurrentBlock),
    )
    decoder = (
        _single(model.target, "target", EmbeddingBlock),
        _single(model.decoder, "decoder", RecurrentBlock),
        attention,
        _single(model.head, "head", LinearBlock),
    )
    size = model.target.num_embeddings
    return TranslatorModel(encoder, decoder, begin=size - 2, end=size - 1)


B = TypeVar("B", bound=Block)


def _single(module: nn.Module, where: str, kind: type[B]) -> B:
    """The only block of a module, which must be of a kind."""
    blocks = describe(module, where)
    if len(blocks) != 1 or not isinstance(blocks[0], kind):
        expected = kind.__name__.removesuffix("Block").lower()
        raise ExportError(f"{where}: must be one {expected} block, got {type(module).__name__}")
    return blocks[0]


def _nothing(module: nn.Module, where: str) -> Blocks:
    return []


def _embedding(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, nn.Embedding)
    if module.max_norm is not None:
        raise ExportError(
            f"{where}: wanted an embedding without max_norm, which changes its weight"
        )
    return [EmbeddingBlock(array_of(module.weight, where))]


def _one_hot(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, OneHot)
    return [EmbeddingBlock(np.eye(module.num_classes, dtype=np.float32))]


def _linear(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, nn.Linear)
    bias = None if module.bias is None else array_of(module.bias, where)
    return [LinearBlock(array_of(module.weight, where), bias)]


def of_rows(name: str) -> Callable[[nn.Module, str], Blocks]:
    def told(module: nn.Module, where: str) -> Blocks:
        if getattr(module, "dim", -1) != -1:
            raise ExportError(f"{where}: wanted {name} over the last dimension, dim=-1")
        return [ActivationBlock(name)]

    return told


def _recurrent(module: nn.Module, where: str) -> Blocks:
    assert isinstance(module, Recurrent)
    return [_layers(module, where)]


def _layers(
    module: Recurrent, where: str, start: LearnedInitialState | None = None
) -> RecurrentBlock:
    block = describe_layer(module, where)
    return block if start is None else replace(block, start=rows_of(start))


def rows_of(start: LearnedInitialState) -> InitialStates:
    """The states of each layer and direction that sequences begin with, [1, width] each."""
    states = [array_of(state, "start") for state in start.states]
    return tuple(tuple(state[row] for state in states) for row in range(len(states[0])))


_KNOWN: dict[type, Callable[[nn.Module, str], Blocks]] = {
    SequenceModel: _sequence_model,
    Forecaster: _forecaster,
    Tagger: _tagger,
    Recurrent: _recurrent,
    nn.Embedding: _embedding,
    OneHot: _one_hot,
    nn.Linear: _linear,
    nn.Dropout: _nothing,
    nn.Identity: _nothing,
    nn.ReLU: of_rows("relu"),
    nn.Tanh: of_rows("tanh"),
    nn.Sigmoid: of_rows("sigmoid"),
    nn.Softmax: of_rows("softmax"),
    nn.LogSoftmax: of_rows("log_softmax"),
}
