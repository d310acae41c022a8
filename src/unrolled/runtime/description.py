"""What a file says of a model, and the parts that it makes."""

from itertools import pairwise
from typing import Any

import numpy as np

from unrolled.runtime.blocks import (
    ACTIVATIONS,
    Activation,
    Block,
    Direction,
    Embedding,
    Last,
    Linear,
    Pooling,
    Recurrent,
    Scale,
)

__all__ = ["KIND", "VERSION", "blocks_of", "check_weights"]

WEIGHTS = ("float32", "bfloat16", "int8")
"""How they may be kept, by the core's names."""
KIND = "unrolled model"
VERSION = 1
"""Of the description; a file of a higher one is refused."""


def check_weights(weights: str) -> None:
    """Refuse a way to keep weights that is none."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights: wanted one of {', '.join(WEIGHTS)}, got {weights!r}")


def blocks_of(tree: dict[str, Any], weights: str | None) -> list[Block]:
    """The parts of a model, with weights kept as said, or as the file says.

    Raises:
        one of ``unrolled.io.DAMAGE``: the description is no model's.
    """
    if tree["kind"] != KIND:
        raise ValueError(f"kind: wanted an exported model, got {tree['kind']!r}")
    if type(tree["version"]) is not int or tree["version"] > VERSION:
        raise ValueError(f"version {tree['version']}, this library reads {VERSION}")
    kept = weights or tree["weights"]
    blocks = [_block(one, kept) for one in tree["blocks"]]
    _check_chain(blocks)
    return blocks


def _check_chain(blocks: list[Block]) -> None:
    """Hold each part to the width of what the one before makes."""
    width: int | None = None
    recurrent = ended = False
    before: Block | None = None
    for block in blocks:
        if isinstance(block, Embedding | Scale) and block is not blocks[0]:
            raise ValueError(f"blocks: {type(block).__name__} is not the first one")
        if isinstance(block, Last | Pooling) and not isinstance(before, Recurrent):
            raise ValueError("blocks: the end of sequences not behind a layer")
        if isinstance(block, Recurrent) and ended:
            raise ValueError("blocks: a layer behind the end of sequences")
        if isinstance(block, Scale) and block.mean.shape != block.deviation.shape:
            raise ValueError("blocks: mean and deviation of different lengths")
        if isinstance(block, Recurrent):
            _check_layers(block)
            recurrent = True
        wanted = _read_by(block, width)
        if width not in (None, wanted):
            raise ValueError(f"blocks: {type(block).__name__} reads {wanted} numbers, gets {width}")
        width = wanted if isinstance(block, Activation | Last | Scale) else block.width
        ended = ended or isinstance(block, Last | Pooling)
        before = block
    if not recurrent:
        raise ValueError("blocks: wanted a layer among them")


def _read_by(block: Block, width: int | None) -> int | None:
    """How many numbers of a row a part reads; any where that is not its own."""
    if isinstance(block, Linear | Recurrent | Scale):
        return block.inputs
    return block.width if isinstance(block, Pooling) else width


def _check_layers(block: Recurrent) -> None:
    """Hold layers to one another, and to the state that they begin with."""
    directions = block.directions
    if directions not in (1, 2) or any(len(layer) != directions for layer in block.layers):
        raise ValueError("layers: wanted one direction, or two, in each")
    for below, layer in pairwise(block.layers):
        width = sum(one.widths[0] for one in below)
        if any(one.inputs != width for one in layer):
            raise ValueError(f"layers: one reads another number than {width}, which it gets")
    shapes = [[(1, width) for width in one.widths] for layer in block.layers for one in layer]
    if block.start is not None and [[s.shape for s in one] for one in block.start] != shapes:
        raise ValueError("start: wanted a row for each state of each layer")


def _block(told: dict[str, Any], weights: str) -> Block:
    match told["block"]:
        case "embedding":
            return Embedding(_floats(told["weight"], 2))
        case "scale":
            return Scale(*(_array(told[name], np.float64, 1) for name in ("mean", "deviation")))
        case "linear":
            bias = told["bias"]
            return Linear(
                _floats(told["weight"], 2), None if bias is None else _floats(bias, 1), weights
            )
        case "last":
            return Last()
        case "pooling":
            parts = [told[name] for name in ("keys", "query")]
            keys, query = (None if one is None else _block(one, weights) for one in parts)
            if not all(one is None or isinstance(one, Linear) for one in (keys, query)):
                raise TypeError("pooling: keys and query are no linear layers")
            return Pooling(told["name"], told["width"], keys, query)  # type: ignore[arg-type]
        case "recurrent":
            layers = [[_direction(one, weights) for one in layer] for layer in told["layers"]]
            start = told["start"]
            if start is not None:
                start = [tuple(_floats(state, 2) for state in states) for states in start]
            return Recurrent(layers, start)
        case name if name in ACTIVATIONS:
            return Activation(name)
    raise ValueError(f"block: unknown, {told['block']!r}")


def _direction(told: dict[str, Any], weights: str) -> Direction:
    arrays = [None if one is None else _floats(one) for one in told["arrays"]]
    return Direction.of(told["program"], told["sizes"], arrays, weights)


def _floats(array: Any, ndim: int | None = None) -> np.ndarray:
    return _array(array, np.float32, ndim)


def _array(array: Any, dtype: Any, ndim: int | None) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"an array that is not of {np.dtype(dtype)}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"an array of {array.ndim} dimensions, wanted {ndim}")
    return np.ascontiguousarray(array)
