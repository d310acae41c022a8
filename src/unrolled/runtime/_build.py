"""Builds blocks that run, with packed weights, from the schema."""

import numpy as np

from unrolled import _core
from unrolled.runtime._blocks import (
    Activation,
    Direction,
    Embedding,
    Last,
    Linear,
    Pooling,
    Recurrent,
    Scale,
)
from unrolled.runtime._schema import (
    ActivationBlock,
    Block,
    EmbeddingBlock,
    FloatArray,
    ForecastBlock,
    LastBlock,
    LayerDirection,
    LinearBlock,
    PoolingBlock,
    RecurrentBlock,
    ScaleBlock,
    WordsBlock,
)
from unrolled.runtime._task_blocks import Forecast, RunnableBlock, Words


def build_block(block: Block, weights: str) -> RunnableBlock:
    """Build a block of the runtime, with its matrices packed in the format ``weights``.

    The description has been checked by ``_validate``.
    """
    match block:
        case EmbeddingBlock():
            return build_embedding(block)
        case ScaleBlock():
            return Scale(block.mean, block.deviation)
        case LinearBlock():
            return build_linear(block, weights)
        case ActivationBlock():
            return Activation(block.function)
        case LastBlock():
            return Last()
        case PoolingBlock():
            keys, query = (
                None if linear is None else build_linear(linear, weights)
                for linear in (block.keys, block.query)
            )
            return Pooling(block.name, block.width, keys, query)
        case RecurrentBlock():
            return build_recurrent(block, weights)
        case WordsBlock():
            words, characters = (Embedding(_float32(k)) for k in (block.words, block.characters))
            return Words(words, characters, build_recurrent(block.spelling, weights))
        case ForecastBlock():
            return Forecast(block.horizon, block.targets, block.mean, block.deviation)


def build_embedding(block: EmbeddingBlock) -> Embedding:
    return Embedding(_float32(block.weight))


def build_linear(block: LinearBlock, weights: str) -> Linear:
    bias = None if block.bias is None else _float32(block.bias)
    return Linear(_float32(block.weight), bias, weights)


def build_recurrent(block: RecurrentBlock, weights: str) -> Recurrent:
    layers = [[_build_direction(one, weights) for one in layer] for layer in block.layers]
    start = None
    if block.start is not None:
        start = [tuple(_float32(state) for state in states) for states in block.start]
    return Recurrent(layers, start, block.merge)


def _build_direction(direction: LayerDirection, weights: str) -> Direction:
    arrays = [None if array is None else _float32(array) for array in direction.arrays]
    layer = _core.Layer(direction.core_program, direction.inputs, arrays, weights, "")
    return Direction(layer, direction.inputs, direction.state_widths)


def _float32(array: FloatArray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
