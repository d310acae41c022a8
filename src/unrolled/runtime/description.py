"""What a file says of a model, and the parts that it makes."""

from itertools import pairwise
from typing import Any

import numpy as np

from unrolled.runtime.blocks import (
    ACTIVATIONS,
    Activation,
    Direction,
    Embedding,
    Last,
    Linear,
    Pooling,
    Recurrent,
    Scale,
)
from unrolled.runtime.ends import Block, Forecast, Words
from unrolled.runtime.short import widened

__all__ = ["KIND", "VERSION", "blocks_of", "check_chain", "check_tree", "check_weights", "part_of"]

WEIGHTS = ("float32", "bfloat16", "int8")
"""How they may be kept, by the core's names."""
KIND = "unrolled model"
VERSION = 2
"""Of the description; a file of a higher one is refused. Since 2 there are words, forecasts,
encoders with decoders, added directions, batch_first and short weights; a file without these says
1, and libraries that read 1 read it.
"""


def check_weights(weights: str) -> None:
    """Refuse a way to keep weights that is none."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights: wanted one of {', '.join(WEIGHTS)}, got {weights!r}")


def check_tree(tree: dict[str, Any]) -> None:
    """Refuse what is no exported model, or a newer one.

    Raises:
        one of ``unrolled.io.DAMAGE``: it is.
    """
    if tree["kind"] != KIND:
        raise ValueError(f"kind: wanted an exported model, got {tree['kind']!r}")
    if type(tree["version"]) is not int or not 1 <= tree["version"] <= VERSION:
        raise ValueError(f"version {tree['version']!r}, this library reads {VERSION}")


def blocks_of(tree: dict[str, Any], weights: str | None) -> list[Block]:
    """The parts of a model, with weights kept as said, or as the file says.

    Raises:
        one of ``unrolled.io.DAMAGE``: the description is no model's.
    """
    check_tree(tree)
    blocks = [part_of(one, weights or tree["weights"]) for one in tree["blocks"]]
    check_chain(blocks)
    return blocks


def check_chain(blocks: list[Block]) -> None:
    """Hold each part to the width of what the one before makes.

    Raises:
        ValueError: one does not fit.
    """
    width: int | None = None
    recurrent = ended = False
    before: Block | None = None
    for block in blocks:
        _check_place(block, before, ended)
        if isinstance(block, Recurrent):
            _check_layers(block)
            recurrent = True
        wanted = _read_by(block, width)
        if width not in (None, wanted):
            raise ValueError(f"blocks: {type(block).__name__} reads {wanted} numbers, gets {width}")
        width = getattr(block, "width", wanted)
        ended = ended or isinstance(block, Last | Pooling)
        before = block
    if not recurrent:
        raise ValueError("blocks: wanted a layer among them")
    _check_forecast(blocks)


def _check_place(block: Block, before: Block | None, ended: bool) -> None:
    name = type(block).__name__
    if isinstance(block, Embedding | Scale | Words) and before is not None:
        raise ValueError(f"blocks: {name} is not the first one")
    if isinstance(block, Last | Pooling) and not isinstance(before, Recurrent):
        raise ValueError("blocks: the end of sequences not behind a layer")
    if isinstance(block, Recurrent) and ended:
        raise ValueError("blocks: a layer behind the end of sequences")
    if isinstance(block, Scale) and block.mean.shape != block.deviation.shape:
        raise ValueError("blocks: mean and deviation of different lengths")
    if isinstance(before, Forecast):
        raise ValueError(f"blocks: {name} behind a forecast")
    if isinstance(block, Forecast) and not ended:
        raise ValueError("blocks: a forecast not behind the end of sequences")


def _check_forecast(blocks: list[Block]) -> None:
    """Hold a forecast to the numbers that are read."""
    if not isinstance(blocks[-1], Forecast):
        return
    first, targets = blocks[0], blocks[-1].targets
    inputs = first.inputs if isinstance(first, Scale | Linear | Recurrent) else 0
    if targets > inputs:
        raise ValueError(f"forecast: wanted at most {inputs} targets, got {targets}")


def _read_by(block: Block, width: int | None) -> int | None:
    """How many numbers of a row a part reads; any where that is not its own."""
    if isinstance(block, Linear | Recurrent | Scale):
        return block.inputs
    if isinstance(block, Forecast):
        return block.horizon * block.targets
    return block.width if isinstance(block, Pooling) else width


def _check_layers(block: Recurrent) -> None:
    """Hold layers to one another, and to the state that they begin with."""
    directions = block.directions if block.layers else 0
    if directions not in (1, 2) or any(len(layer) != directions for layer in block.layers):
        raise ValueError("layers: wanted one direction, or two, in each")
    if block.merge not in ("concat", "sum"):
        raise ValueError(f"merge: wanted concat or sum, got {block.merge!r}")
    if block.merge == "sum" and any(
        len({one.widths[0] for one in layer}) > 1 for layer in block.layers
    ):
        raise ValueError("merge: wanted directions of one width to be added")
    for below, layer in pairwise(block.layers):
        width = block.width_of(below)
        if any(one.inputs != width for one in layer):
            raise ValueError(f"layers: one reads another number than {width}, which it gets")
    shapes = [[(1, width) for width in one.widths] for layer in block.layers for one in layer]
    if block.start is not None and [[s.shape for s in one] for one in block.start] != shapes:
        raise ValueError("start: wanted a row for each state of each layer")


def part_of(told: dict[str, Any], weights: str) -> Block:
    """A part of a chain.

    Raises:
        one of ``unrolled.io.DAMAGE``: it is none.
    """
    if not isinstance(told, dict):
        raise TypeError(f"block: wanted what describes one, got {type(told).__name__}")
    match told["block"]:
        case "embedding":
            return Embedding(_floats(told["weight"], "weight", 2))
        case "scale":
            return Scale(
                *(_array(told[name], name, np.float64, 1) for name in ("mean", "deviation"))
            )
        case "linear":
            bias = told["bias"]
            weight = _floats(told["weight"], "weight", 2)
            return Linear(weight, None if bias is None else _floats(bias, "bias", 1), weights)
        case "last":
            return Last()
        case "pooling":
            parts = [told[name] for name in ("keys", "query")]
            keys, query = (None if one is None else _line(one, weights) for one in parts)
            return Pooling(told["name"], told["width"], keys, query)
        case "recurrent":
            layers = [[_direction(one, weights) for one in layer] for layer in told["layers"]]
            start = told["start"]
            if start is not None:
                start = [tuple(_floats(state, "start", 2) for state in states) for states in start]
            return Recurrent(layers, start, told.get("merge", "concat"))
        case "words":
            words, characters = (Embedding(_floats(told[k], k, 2)) for k in ("words", "characters"))
            spelling = part_of(told["spelling"], weights)
            if not isinstance(spelling, Recurrent):
                raise TypeError("words: spelling is no layer")
            _check_layers(spelling)
            return Words(words, characters, spelling)
        case "forecast":
            return _forecast(told)
        case name if name in ACTIVATIONS:
            return Activation(name)
    raise ValueError(f"block: unknown, {told['block']!r}")


def _direction(told: dict[str, Any], weights: str) -> Direction:
    arrays = [None if one is None else _floats(one, "arrays") for one in told["arrays"]]
    if not isinstance(told["program"], str):
        raise TypeError(f"program: wanted text, got {type(told['program']).__name__}")
    return Direction.of(told["program"], told["sizes"], arrays, weights)


def _line(told: dict[str, Any], weights: str) -> Linear:
    found = part_of(told, weights)
    if not isinstance(found, Linear):
        raise TypeError(f"wanted a linear layer, got {told['block']!r}")
    return found


def _forecast(told: dict[str, Any]) -> Forecast:
    horizon, targets = told["horizon"], told["targets"]
    if not all(type(size) is int and size > 0 for size in (horizon, targets)):
        raise ValueError(f"forecast: wanted horizon and targets above 0, got {horizon}, {targets}")
    scale: list[np.ndarray | None] = [None, None]
    if told["mean"] is not None:
        scale = [_array(told[name], name, np.float64, 1) for name in ("mean", "deviation")]
        if any(len(one) != targets for one in scale if one is not None):
            raise ValueError("forecast: wanted mean and deviation of each target")
    return Forecast(horizon, targets, *scale)


def _floats(array: Any, name: str, ndim: int | None = None) -> np.ndarray:
    return _array(widened(array) if isinstance(array, dict) else array, name, np.float32, ndim)


def _array(array: Any, name: str, dtype: Any, ndim: int | None) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name}: wanted an array of {np.dtype(dtype)}, got {got}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: wanted {ndim} dimensions, got {array.ndim}")
    return np.ascontiguousarray(array)
