"""Sequences that take one step at a time."""

import operator
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled import _core
from unrolled.runtime.blocks import (
    Activation,
    Embedding,
    Last,
    Linear,
    Pooling,
    Recurrent,
    Scale,
    States,
)
from unrolled.runtime.task_blocks import Forecast, Words

if TYPE_CHECKING:
    from unrolled.runtime.model import Model

__all__ = ["ForecastStream", "Stream", "WordStream"]


def _whole(name: str, number: Any) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: wanted a whole number, got {number!r:.60}") from None


def _several(rows: Any) -> list[Any]:
    try:
        return list(rows)
    except TypeError:
        raise TypeError(f"rows: wanted a list of whole numbers, got {rows!r:.60}") from None


def _empty(shape: tuple[int, int]) -> np.ndarray:
    return np.empty(shape, np.float32)


class Stream(_core.Stream):
    """N sequences that take one step at a time; the weights are the model's, shared by all.

    ``step(x, out=None)`` takes N tokens (one whole number where N = 1, or an array of int64 or
    int32) or float32 numbers [N, I], and gives float32 [N, width]; with ``out``, such an array,
    which may be x, it takes no memory. Arrays are contiguous (``numpy.ascontiguousarray``). One
    thread at a time may be in a step.
    """

    _scaled = True
    """Whether the core brings numbers to standard units."""

    def __init__(self, model: "Model", batch: int, threads: int = 1) -> None:
        batch, threads = _whole("batch", batch), _whole("threads", threads)
        table, scale = None, None
        stages: list[Any] = []
        starts: list[Any] = []
        layers: list[tuple[int, ...]] = []
        width = model.inputs
        for block in model.blocks:
            if isinstance(block, Embedding):
                table, width = np.ascontiguousarray(block.table), block.width
            elif isinstance(block, Scale):
                scale = np.stack([block.mean, block.deviation]) if self._scaled else None
            elif isinstance(block, Recurrent):
                if block.directions > 1:
                    raise ValueError(
                        "stream: wanted a model of one direction, got two: the second begins at "
                        "the end of a sequence, which is not there yet"
                    )
                layers += [one.widths for (one,) in block.layers]
                stages += [one.core for (one,) in block.layers]
                starts += block.start or [None] * len(block.layers)
            elif isinstance(block, Linear):
                stages.append(block.core)
            elif isinstance(block, Activation):
                stages.append(block.name)
            elif isinstance(block, Pooling):
                layers.append((2 * block.width, 2, 1))  # sums and weights in two floats each
                stages.append(block.core)
            elif isinstance(block, Words):
                width = block.width
            elif not isinstance(block, Last | Forecast):  # each step may be the last one
                raise ValueError(f"stream: no steps of {type(block).__name__}")
            starts += [None] * (len(stages) - len(starts))
        tokens = 0 if table is None else len(table)
        super().__init__(table, tokens, scale, width or 0, stages, starts, batch, _empty, threads)
        self._model, self._layers, self.batch, self.threads = model, layers, batch, threads

    @property
    def state(self) -> States:
        """The states before the next step: of each layer, in the order of the model, a tuple of
        each of its states [N, width]; a mean, maximum or attention over the steps is one more:
        what is gathered [N, 2·width] and its weight [N, 2], each in two floats that add up to it,
        and the highest score [N, 1]. What is read is a copy; what is set is copied, and a stream
        goes on from it to the bit.

        Raises:
            TypeError: what is set is no list of tuples of real arrays.
            ValueError: a shape is not what was wanted.
        """
        found = [tuple(_empty((self.batch, w)) for w in widths) for widths in self._layers]
        for k, array in enumerate(chain.from_iterable(found)):
            self.copy_state(k, array, False)
        return found

    @state.setter
    def state(self, states: States) -> None:
        if not isinstance(states, list | tuple) or not all(
            isinstance(one, list | tuple) for one in states
        ):
            got = type(states).__name__
            raise TypeError(f"state: wanted a list of a tuple of arrays for each layer, got {got}")
        if len(states) != len(self._layers):
            wanted = len(self._layers)
            raise ValueError(f"state: wanted those of {wanted} layers, got {len(states)}")
        for widths, arrays in zip(self._layers, states, strict=True):
            shapes = [np.shape(array) for array in arrays]
            if shapes != [(self.batch, width) for width in widths]:
                raise ValueError(f"state: wanted [{self.batch}, {widths}] of a layer, got {shapes}")
        for kind in (np.asarray(array).dtype for array in chain.from_iterable(states)):
            if kind.kind not in "fiu":
                raise TypeError(f"state: wanted real numbers, got {kind}")
        for k, array in enumerate(chain.from_iterable(states)):
            self.copy_state(k, np.ascontiguousarray(array, np.float32), True)

    def reset(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Begin anew, all sequences or those of these numbers (or a mask, a boolean for each).

        Raises:
            IndexError: a number is negative or not below N.
            TypeError: rows is no list of whole numbers.
        """
        self.begin(np.ascontiguousarray(self._chosen(rows), np.int64))

    def _chosen(self, rows: Any) -> np.ndarray:
        every = np.arange(self.batch)
        if rows is None:
            return every
        found = np.asarray(rows if isinstance(rows, np.ndarray) else _several(rows))
        if found.dtype == bool and found.shape == every.shape:
            return every[found]
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise TypeError(f"rows: wanted a list of whole numbers, got {rows!r:.60}")
        outside = found[(found < 0) | (found >= self.batch)]
        if outside.size:
            raise IndexError(f"rows: wanted 0 to {self.batch - 1}, got {outside[0]}")
        return found

    def copy(self) -> "Stream":
        """Another stream that stands where this one does."""
        made = type(self)(self._model, self.batch, self.threads)
        made.state = self.state
        return made


class WordStream(Stream):
    """Sentences of which each step takes the next word, (words [N], characters [C, N], spellings
    [N]), as ``Model.encode`` gives them of sentences of one word."""

    def step(self, x: Any, out: Any = None) -> Any:
        """The labels' numbers [N, labels] of a word in each sentence."""
        first = self._model.blocks[0]
        assert isinstance(first, Words)
        if isinstance(x, tuple | list) and len(x) == 3:
            x = (np.atleast_2d(x[0]), *x[1:])
        x = first.check(x)
        if x[0].shape != (1, self.batch):
            raise ValueError(f"x: wanted {self.batch} words, got shape {list(x[0].shape)}")
        return super().step(first.run(x, 1)[0], out)


class ForecastStream(Stream):
    """Series of which each step takes the next values and gives the forecast from there.

    It remembers all since it began, where training saw windows of one length; ``reset`` begins
    anew.
    """

    _scaled = False

    def step(self, x: Any, out: Any = None) -> Any:
        """Values [N, F] (or [F] where N = 1), float32 or float64 in their own units, to forecasts
        [N, K, targets] in float64."""
        first, last = self._model.blocks[0], self._model.blocks[-1]
        assert isinstance(last, Forecast)
        shape = (self.batch, self._model.inputs)
        x = np.asarray(x)
        if x.dtype.kind not in "fiu":
            raise TypeError(f"x: wanted numbers, got {x.dtype}")
        if x.shape not in (shape, shape[1:] if self.batch == 1 else shape):
            raise ValueError(f"x: wanted {list(shape)}, got shape {list(x.shape)}")
        wanted = (self.batch, last.horizon, last.targets)
        fits = isinstance(out, np.ndarray) and (out.dtype, out.shape) == (np.float64, wanted)
        if out is not None and not fits:
            raise TypeError(f"out: wanted float64 of shape {list(wanted)}")
        x = x.reshape(shape)
        x = first.run(x) if isinstance(first, Scale) else np.ascontiguousarray(x, np.float32)
        found = last.run(super().step(x), x)
        if out is None:
            return found
        out[...] = found
        return out
