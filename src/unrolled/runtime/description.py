"""What a file says of a model, and the parts that it makes."""

from itertools import pairwise
from typing import Any

import numpy as np

from unrolled import _core
from unrolled.limits import Budget, brief
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

__all__ = ["KIND", "VERSION", "Reader", "blocks_of", "check_chain", "check_tree", "check_weights"]

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
        raise ValueError(f"kind: wanted an exported model, got {brief(tree['kind'])}")
    version, task = tree["version"], tree["task"]
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"version {brief(version)}, this library reads {VERSION}")
    if task is not None and not isinstance(task, str):
        raise TypeError(f"task: wanted a name, got {brief(task)}")
    if task is not None:
        task.encode()  # a name in UTF-8, as the reader in C has it
    tree["codec"]


class Reader:
    """Makes the parts that a description names.

    Args:
        weights: how they are kept, by name.
        size: bytes of the file, from which follows what it may ask for; None of a description that
            is in no file.
    """

    def __init__(self, weights: str, size: int | None = None) -> None:
        self.weights = weights
        self.budget = None if size is None else Budget(size)
        self._arrays: dict[int, np.ndarray] = {}

    def chain(self, described: Any, name: str) -> list[Block]:
        """The parts of a chain, each held to the width of what the one before makes.

        Raises:
            one of ``unrolled.io.DAMAGE``: it is none.
        """
        blocks = [self.part(block) for block in items_of(described, name)]
        for width in check_chain(blocks):
            self._take(width, name)
        return blocks

    def part(self, described: Any) -> Block:
        """A part of a chain.

        Raises:
            one of ``unrolled.io.DAMAGE``: it is none.
        """
        if not isinstance(described, dict) or not all(isinstance(key, str) for key in described):
            got = type(described).__name__
            raise TypeError(f"block: wanted what describes one, got {got}")
        match described["block"]:
            case "embedding":
                table = self._floats(described["weight"], "weight", 2)
                if table.size == 0:
                    raise ValueError("embedding: wanted at least one number")
                return Embedding(table)
            case "scale":
                names = ("mean", "deviation")
                return Scale(*(self._array(described[k], k, np.float64, 1) for k in names))
            case "linear":
                bias = described["bias"]
                weight = self._floats(described["weight"], "weight", 2)
                bias = None if bias is None else self._floats(bias, "bias", 1)
                return Linear(weight, bias, self.weights)
            case "last":
                return Last()
            case "pooling":
                parts = [described[name] for name in ("keys", "query")]
                keys, query = (None if one is None else self._linear(one) for one in parts)
                return Pooling(described["name"], _whole(described["width"], "width"), keys, query)
            case "recurrent":
                return self._recurrent(described)
            case "words":
                return self._words(described)
            case "forecast":
                return self._forecast(described)
            case str(name) if name in ACTIVATIONS:
                return Activation(name)
        raise ValueError(f"block: unknown, {brief(described['block'])}")

    def _recurrent(self, described: dict[str, Any]) -> Recurrent:
        layers = [
            [self._direction(direction) for direction in items_of(layer, "layers")]
            for layer in items_of(described["layers"], "layers")
        ]
        start = described["start"]
        if start is not None:
            start = [
                tuple(self._floats(state, "start", 2) for state in items_of(states, "start"))
                for states in items_of(start, "start")
            ]
        return Recurrent(layers, start, described.get("merge", "concat"))

    def _direction(self, described: Any) -> Direction:
        text = described["program"]
        if not isinstance(text, str):
            raise TypeError(f"program: wanted text, got {type(text).__name__}")
        sizes = [_whole(size, "sizes") for size in items_of(described["sizes"], "sizes")]
        if len(sizes) != 3:
            raise ValueError(f"sizes: wanted three, got {len(sizes)}")
        I, H, P = sizes  # noqa: E741
        program = _core.Program(text, H, P, I)
        if program.state_widths[0] != P:
            raise ValueError(
                f"sizes: the program's output has {program.state_widths[0]} units, not {P}"
            )
        self._take(program.room, "program")
        arrays = [
            None if array is None else self._floats(array, "arrays")
            for array in items_of(described["arrays"], "arrays")
        ]
        core = _core.Layer(program, I, arrays, self.weights, "")
        return Direction(core, I, tuple(program.state_widths))

    def _words(self, described: dict[str, Any]) -> Words:
        words, characters = (
            Embedding(self._floats(described[name], name, 2)) for name in ("words", "characters")
        )
        spelling = self.part(described["spelling"])
        if not isinstance(spelling, Recurrent):
            raise TypeError("words: spelling is no layer")
        _check_layers(spelling)
        return Words(words, characters, spelling)

    def _linear(self, described: Any) -> Linear:
        part = self.part(described)
        if not isinstance(part, Linear):
            raise TypeError(f"wanted a linear layer, got {brief(described['block'])}")
        return part

    def _forecast(self, described: dict[str, Any]) -> Forecast:
        horizon, targets = described["horizon"], described["targets"]
        if not all(type(size) is int and size > 0 for size in (horizon, targets)):
            got = f"{brief(horizon)}, {brief(targets)}"
            raise ValueError(f"forecast: wanted horizon and targets above 0, got {got}")
        scale: list[np.ndarray | None] = [None, None]
        if described["mean"] is not None:
            scale = [self._array(described[k], k, np.float64, 1) for k in ("mean", "deviation")]
            if any(len(one) != targets for one in scale if one is not None):
                raise ValueError("forecast: wanted mean and deviation of each target")
        return Forecast(horizon, targets, *scale)

    def _floats(self, array: Any, name: str, ndim: int | None = None) -> np.ndarray:
        if isinstance(array, dict):
            for values in array.values():
                self._use(values)
            array = widened(array)
        return self._array(array, name, np.float32, ndim)

    def _array(self, array: Any, name: str, dtype: Any, ndim: int | None) -> np.ndarray:
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name}: wanted an array of {np.dtype(dtype)}, got {got}")
        if ndim is not None and array.ndim != ndim:
            raise ValueError(f"{name}: wanted {ndim} dimensions, got {array.ndim}")
        self._use(array)
        return np.ascontiguousarray(array)

    def _use(self, array: Any) -> None:
        """Hold a file to one use of an array: what is packed is then no larger than the file."""
        if self.budget is None or not isinstance(array, np.ndarray):
            return
        if id(array) in self._arrays:
            raise ValueError("an array that two parts have")
        self._arrays[id(array)] = array

    def _take(self, numbers: int, name: str) -> None:
        if self.budget is not None:
            self.budget.take(numbers, name)


def blocks_of(tree: dict[str, Any], weights: str | None, size: int | None = None) -> list[Block]:
    """The parts of a model, with weights kept as said, or as the file (of so many bytes) says.

    Raises:
        one of ``unrolled.io.DAMAGE``: the description is no model's.
    """
    check_tree(tree)
    return Reader(weights or tree["weights"], size).chain(tree["blocks"], "blocks")


def items_of(value: Any, name: str) -> list[Any] | tuple[Any, ...]:
    """The value, refused if it is no list or tuple."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}: wanted a list, got {type(value).__name__}")
    return value


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or abs(value) >= 10**15:
        raise TypeError(f"{name}: wanted a whole number of at most 15 digits, got {brief(value)}")
    return value


def check_chain(blocks: list[Block]) -> list[int]:
    """Hold each part to the width of what the one before makes.

    Returns:
        the width of what each part makes, 0 where nothing says it yet.

    Raises:
        ValueError: one does not fit.
    """
    width: int | None = None
    recurrent = ended = False
    before: Block | None = None
    widths = []
    for block in blocks:
        _check_place(block, before, ended)
        if isinstance(block, Recurrent):
            _check_layers(block)
            recurrent = True
        wanted = _read_by(block, width)
        if wanted is not None and wanted < 1:
            raise ValueError(f"blocks: {type(block).__name__} reads nothing")
        if width not in (None, wanted):
            raise ValueError(f"blocks: {type(block).__name__} reads {wanted} numbers, gets {width}")
        width = getattr(block, "width", wanted)
        widths.append(width or 0)
        ended = ended or isinstance(block, Last | Pooling)
        before = block
    if not recurrent:
        raise ValueError("blocks: wanted a layer among them")
    _check_forecast(blocks)
    return widths


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
        raise ValueError(f"merge: wanted concat or sum, got {brief(block.merge)}")
    if block.merge == "sum" and any(
        len({one.widths[0] for one in layer}) > 1 for layer in block.layers
    ):
        raise ValueError("merge: wanted directions of one width to be added")
    if any(one.inputs < 1 for layer in block.layers for one in layer):
        raise ValueError("layers: one reads nothing")
    for below, layer in pairwise(block.layers):
        width = block.width_of(below)
        if any(one.inputs != width for one in layer):
            raise ValueError(f"layers: one reads another number than {width}, which it gets")
    shapes = [[(1, width) for width in one.widths] for layer in block.layers for one in layer]
    if block.start is not None and [[s.shape for s in one] for one in block.start] != shapes:
        raise ValueError("start: wanted a row for each state of each layer")
