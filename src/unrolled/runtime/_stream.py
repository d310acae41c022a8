"""Streams run a model one step at a time."""

import operator
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled import _core
from unrolled.runtime._blocks import (
    Activation,
    Embedding,
    Float32Array,
    Float64Array,
    IntArray,
    Last,
    LayerStates,
    Linear,
    Pooling,
    Recurrent,
    Scale,
)
from unrolled.runtime._task_blocks import Forecast, RunnableBlock, WordArrays, Words


class StreamedModel(Protocol):
    """The attributes of ``Model`` that a stream reads."""

    blocks: list[RunnableBlock]

    @property
    def inputs(self) -> int | None: ...


class Stream(_core.Stream):
    """Runs a model on N sequences, one step at a time. All streams of a model share its weights.

    ``step(x, out=None)`` takes N tokens (an int64 or int32 array, or one integer if N = 1) or
    float32 numbers [N, I], and returns float32 [N, width]. With ``out``, a float32 array of this
    shape that may also be x, it allocates no memory. Arrays must be contiguous
    (``numpy.ascontiguousarray``). Only one thread at a time may call ``step``.
    """

    _scales_in_core = True

    def __init__(self, model: StreamedModel, batch: int, threads: int = 1) -> None:
        batch, threads = _integer("batch", batch), _integer("threads", threads)
        stages = _stages_of(model)
        table, scale = stages.table, stages.scale if self._scales_in_core else None
        super().__init__(
            table,
            0 if table is None else len(table),
            scale,
            stages.width,
            stages.stages,
            stages.starts,
            batch,
            _empty,
            threads,
        )
        self._model, self._state_widths = model, stages.state_widths
        self.batch, self.threads = batch, threads

    @property
    def state(self) -> LayerStates:
        """The states before the next step: for each layer, in the order of the model, a tuple of
        its states, [N, width] each. A pooling (mean, maximum or attention over the steps) has one
        more entry: the sum so far [N, 2·width] and its weight [N, 2], each as two floats that add
        up to it, and the highest score [N, 1]. Reading and setting copy the arrays. A stream that
        is set to a state continues bit for bit.

        Raises:
            TypeError: the value is not a list of tuples of real arrays.
            ValueError: a shape is wrong.
        """
        states = [tuple(_empty((self.batch, w)) for w in widths) for widths in self._state_widths]
        for k, array in enumerate(chain.from_iterable(states)):
            self.copy_state(k, array, False)
        return states

    @state.setter
    def state(self, states: LayerStates) -> None:
        if not isinstance(states, list | tuple) or not all(
            isinstance(layer, list | tuple) for layer in states
        ):
            raise TypeError(
                "Stream: state must be a list of a tuple of arrays for each layer, "
                f"got {type(states).__name__}"
            )
        if len(states) != len(self._state_widths):
            raise ValueError(
                f"Stream: state must be that of {len(self._state_widths)} layers, got {len(states)}"
            )
        for widths, arrays in zip(self._state_widths, states, strict=True):
            shapes = [np.shape(array) for array in arrays]
            expected = [(self.batch, width) for width in widths]
            if shapes != expected:
                raise ValueError(
                    f"Stream: state of a layer must have shapes {expected}, got {shapes}"
                )
        for dtype in (np.asarray(array).dtype for array in chain.from_iterable(states)):
            if dtype.kind not in "fiu":
                raise TypeError(f"Stream: state must be real numbers, got {dtype}")
        for k, array in enumerate(chain.from_iterable(states)):
            self.copy_state(k, np.ascontiguousarray(array, np.float32), True)

    def reset(self, rows: "Iterable[int] | NDArray[np.generic] | None" = None) -> None:
        """Reset sequences to their initial states: all, or those selected by ``rows``.

        Args:
            rows: indices of sequences, or a mask with a boolean for each sequence.

        Raises:
            IndexError: an index is negative or not below N.
            TypeError: rows is neither a list of integers nor a mask.
        """
        self.begin(np.ascontiguousarray(self._row_numbers(rows), np.int64))

    def _row_numbers(self, rows: "Iterable[int] | NDArray[np.generic] | None") -> IntArray:
        every = np.arange(self.batch)
        if rows is None:
            return every
        array = np.asarray(rows if isinstance(rows, np.ndarray) else _list_of_rows(rows))
        if array.dtype == bool and array.shape == every.shape:
            return np.flatnonzero(array)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise TypeError(f"Stream: rows must be a list of whole numbers, got {rows!r:.60}")
        invalid = array[(array < 0) | (array >= self.batch)]
        if invalid.size:
            raise IndexError(f"Stream: rows must be from 0 to {self.batch - 1}, got {invalid[0]}")
        numbers: IntArray = array.astype(np.int64)
        return numbers

    def copy(self) -> Self:
        """A new stream in the same state."""
        stream = type(self)(self._model, self.batch, self.threads)
        stream.state = self.state
        return stream


class WordStream(Stream):
    """Runs a tagger that reads characters, one word at a time: (words [N], characters [C, N],
    spellings [N]), as ``Model.encode`` returns them for sentences of one word."""

    def step(
        self, x: WordArrays | Sequence[ArrayLike], out: Float32Array | None = None
    ) -> Float32Array:
        """The scores [N, labels] of the next word of each sentence."""
        words = self._model.blocks[0]
        assert isinstance(words, Words)
        if isinstance(x, tuple | list) and len(x) == 3:
            x = (np.atleast_2d(x[0]), *x[1:])
        arrays = words.check(x)
        if arrays[0].shape != (1, self.batch):
            raise ValueError(
                f"WordStream: x must have {self.batch} words, got shape {list(arrays[0].shape)}"
            )
        scores: Float32Array = super().step(words.run(arrays, 1)[0], out)
        return scores


class ForecastStream(Stream):
    """Runs a forecaster: each step takes the next values and returns the forecast after them.

    The state covers all steps since the last ``reset``, whereas training used windows of fixed
    length.
    """

    _scales_in_core = False

    def step(self, x: ArrayLike, out: Float64Array | None = None) -> Float64Array:
        """Values [N, F] (or [F] if N = 1), float32 or float64 in the units of the data, to float64
        forecasts [N, K, targets]."""
        scale, forecast = self._model.blocks[0], self._model.blocks[-1]
        assert isinstance(forecast, Forecast)
        shape = (self.batch, self._model.inputs or 0)
        values = np.asarray(x)
        if values.dtype.kind not in "fiu":
            raise TypeError(f"ForecastStream: x must be numbers, got {values.dtype}")
        if values.shape not in (shape, shape[1:] if self.batch == 1 else shape):
            raise ValueError(
                f"ForecastStream: x must have shape {list(shape)}, got {list(values.shape)}"
            )
        out_shape = (self.batch, forecast.horizon, forecast.targets)
        if out is not None and not (
            isinstance(out, np.ndarray) and out.dtype == np.float64 and out.shape == out_shape
        ):
            raise TypeError(
                f"ForecastStream: out must be float64 of shape {list(out_shape)}, "
                f"got {_type_name(out)}"
            )
        values = values.reshape(shape)
        if isinstance(scale, Scale):
            row = scale.run(values)
        else:
            row = np.ascontiguousarray(values, np.float32)
        result = forecast.run(super().step(row), row)
        if out is None:
            return result
        out[...] = result
        return out


class _Stages:
    """The stages of one step in the core, from the blocks of a model."""

    def __init__(self, width: int | None) -> None:
        self.table: Float32Array | None = None
        self.scale: Float64Array | None = None
        self.width = width or 0
        self.stages: list[_core.Layer | _core.Linear | _core.Pooling | str] = []
        self.starts: list[tuple[Float32Array, ...] | None] = []
        self.state_widths: list[tuple[int, ...]] = []

    def add_layers(self, block: Recurrent) -> None:
        if block.num_directions > 1:
            raise ValueError(
                "Model: stream needs one direction, got two: the backward direction begins at the "
                "end of a sequence, which a stream has not read yet"
            )
        self.state_widths += [direction.widths for (direction,) in block.layers]
        self.stages += [direction.core for (direction,) in block.layers]
        self.starts += block.start or [None] * len(block.layers)


def _stages_of(model: StreamedModel) -> _Stages:
    stages = _Stages(model.inputs)
    for block in model.blocks:
        if isinstance(block, Embedding):
            stages.table, stages.width = np.ascontiguousarray(block.table), block.width
        elif isinstance(block, Scale):
            stages.scale = np.stack([block.mean, block.deviation])
        elif isinstance(block, Recurrent):
            stages.add_layers(block)
        elif isinstance(block, Linear):
            stages.stages.append(block.core)
        elif isinstance(block, Activation):
            stages.stages.append(block.name)
        elif isinstance(block, Pooling):
            stages.state_widths.append((2 * block.width, 2, 1))  # see `Stream.state`
            stages.stages.append(block.core)
        elif isinstance(block, Words):
            stages.width = block.width
        elif not isinstance(block, Last | Forecast):  # each step may be the last one
            raise ValueError(f"Model: stream cannot run the block {type(block).__name__}")
        stages.starts += [None] * (len(stages.stages) - len(stages.starts))
    return stages


def _integer(name: str, number: object) -> int:
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"Stream: {name} must be a whole number, got {number!r:.60}") from None


def _list_of_rows(rows: Iterable[int]) -> list[int]:
    try:
        return list(rows)
    except TypeError:
        raise TypeError(f"Stream: rows must be a list of whole numbers, got {rows!r:.60}") from None


def _empty(shape: tuple[int, int]) -> Float32Array:
    return np.empty(shape, np.float32)


def _type_name(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {list(value.shape)}"
    return type(value).__name__
