"""The blocks of a model, which the core runs on NumPy arrays; ``_schema`` describes them in a file.

Shapes: T time, N batch, I input. A block reads float32 [T, N, width], an embedding reads integer
tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unrolled import _core
from unrolled._token_rows import BatchLayout

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
TokenArray = NDArray[np.integer]

LayerStates = list[tuple[Float32Array, ...]]
"""For each layer and direction, in the order of torch.nn, a tuple of its states, [N, width]
each."""


@lru_cache(maxsize=64)
def dense_layout(T: int, N: int) -> BatchLayout:
    """The layout of N sequences of T steps, cached since the same sizes are often used again."""
    return BatchLayout(T, N)


@dataclass(frozen=True)
class Embedding:
    """Rows of a table [V, width], looked up by token."""

    table: Float32Array

    @property
    def width(self) -> int:
        return int(self.table.shape[1])

    def run(self, tokens: TokenArray) -> Float32Array:
        """Tokens [...] to rows [..., width].

        Raises:
            TypeError: the tokens are not integers.
            IndexError: a token is negative or not below V.
        """
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"Embedding: x must be tokens, whole numbers, got {tokens.dtype}")
        invalid = tokens[(tokens < 0) | (tokens >= len(self.table))]
        if invalid.size:
            raise IndexError(
                f"Embedding: x must have tokens from 0 to {len(self.table) - 1}, "
                f"got {invalid.flat[0]}"
            )
        rows: Float32Array = self.table[tokens]
        return rows


@dataclass(frozen=True)
class Scale:
    """(x - mean) / deviation, [width] each, in float64."""

    mean: Float64Array
    deviation: Float64Array

    @property
    def inputs(self) -> int:
        return len(self.mean)

    def run(self, x: NDArray[np.number]) -> Float32Array:
        scaled = (x.astype(np.float64) - self.mean) / self.deviation
        return scaled.astype(np.float32)


class Linear:
    """W x + b: W [width, inputs], b [width] or None."""

    def __init__(self, weight: Float32Array, bias: Float32Array | None, weights: str) -> None:
        self.width, self.inputs = weight.shape
        self.core = _core.Linear(weight, bias, self.width, self.inputs, weights, "")

    def run(self, x: Float32Array) -> Float32Array:
        y = np.empty((*x.shape[:-1], self.width), np.float32)
        x = np.ascontiguousarray(x, np.float32)
        self.core.run(x, y, x.size // self.inputs)
        return y


@dataclass(frozen=True)
class Activation:
    """A function of each number, or of each row."""

    name: str

    def run(self, x: Float32Array) -> Float32Array:
        y = np.array(x, np.float32, order="C")
        _core.activate(self.name, y, y.size // y.shape[-1], y.shape[-1])
        return y


@dataclass(frozen=True)
class Last:
    """The final output of each sequence; with two directions, that of both."""


class Pooling:
    """Mean, maximum or attention over the steps of each sequence: [T, N, width] to [N, width].

    ``keys`` and ``query`` belong to attention: the score of a step y is query(tanh(keys(y))).
    """

    def __init__(
        self, name: str, width: int, keys: Linear | None = None, query: Linear | None = None
    ) -> None:
        self.width = width
        linears = (None if linear is None else linear.core for linear in (keys, query))
        self.core = _core.Pooling(name, width, *linears)

    def run(self, x: Float32Array, lengths: IntArray | None) -> Float32Array:
        T, N, _ = x.shape
        y = np.empty((N, self.width), np.float32)
        self.core.run(np.ascontiguousarray(x), lengths, T, N, y)
        return y


@dataclass(frozen=True)
class Direction:
    """One layer in one direction."""

    core: _core.Layer
    inputs: int
    widths: tuple[int, ...]

    def run(
        self,
        x: Float32Array,
        layout: BatchLayout,
        reverse: bool,
        initial: tuple[Float32Array, ...] | None,
        threads: int,
    ) -> tuple[Float32Array, tuple[Float32Array, ...]]:
        """Outputs [T, N, width], zero where padded, and final states [N, width]."""
        T, N, _ = x.shape
        rows = layout.token_rows(reverse)
        allocate = np.empty if layout.lengths is None else np.zeros
        output = allocate((T, N, self.widths[0]), np.float32)
        final = tuple(np.empty((N, width), np.float32) for width in self.widths)
        starts: list[Float32Array | None] = [None] * len(final)
        if initial is not None:
            starts = [_sort_rows(state, layout.order) for state in initial]
        shape = [rows.T, N, self.inputs, rows.rows, rows.start, rows.stride_t, rows.stride_n]
        arrays = (rows.counts, rows.table, x, output, *starts, *final)
        addresses = [number for array in arrays for number in _address_and_size(array)]
        self.core.run([*shape, threads], addresses)
        return output, tuple(_unsort_rows(state, layout.order) for state in final)


def _address_and_size(array: NDArray[np.generic] | None) -> tuple[int, int]:
    if array is None:
        return 0, 0
    return array.__array_interface__["data"][0], array.size


def _sort_rows(state: Float32Array, order: IntArray | None) -> Float32Array:
    """The caller's states, sorted so that the longest sequence is first."""
    return np.ascontiguousarray(state if order is None else state[order], np.float32)


def _unsort_rows(state: Float32Array, order: IntArray | None) -> Float32Array:
    if order is None:
        return state
    unsorted = np.empty_like(state)
    unsorted[order] = state
    return unsorted


class Recurrent:
    """Layers in one or two directions, whose outputs are concatenated ("concat") or added ("sum").

    ``start`` holds the initial states, with N = 1; None means zeros.
    """

    def __init__(
        self, layers: list[list[Direction]], start: LayerStates | None, merge: str = "concat"
    ) -> None:
        self.layers = layers
        self.start = start
        self.merge = merge

    @property
    def num_directions(self) -> int:
        return len(self.layers[0])

    @property
    def inputs(self) -> int:
        return self.layers[0][0].inputs

    def merge_directions(self, outputs: list[Float32Array]) -> Float32Array:
        """The outputs [..., width] of a layer's directions as one array."""
        if len(outputs) == 1:
            return outputs[0]
        if self.merge == "concat":
            return np.concatenate(outputs, -1)
        added: Float32Array = outputs[0] + outputs[1]
        return added

    def last_outputs(self, states: LayerStates) -> Float32Array:
        """The final output of each sequence, of both directions: [N, width]."""
        return self.merge_directions([layer[0] for layer in states[-self.num_directions :]])

    def initial_states(self, N: int) -> LayerStates | None:
        """The initial states of N sequences; None means zeros."""
        if self.start is None:
            return None
        return [tuple(np.repeat(state, N, 0) for state in states) for states in self.start]

    def run(
        self, x: Float32Array, layout: BatchLayout, initial: LayerStates | None, threads: int
    ) -> tuple[Float32Array, LayerStates]:
        """Outputs [T, N, width] and final states."""
        final: LayerStates = []
        x = np.ascontiguousarray(x, np.float32)
        for layer in self.layers:
            outputs = []
            for reverse, direction in enumerate(layer):
                start = None if initial is None else initial[len(final)]
                output, states = direction.run(x, layout, bool(reverse), start, threads)
                outputs.append(output)
                final.append(states)
            x = self.merge_directions(outputs)
        return x, final
