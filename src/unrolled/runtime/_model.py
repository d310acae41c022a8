"""``Model`` runs an exported model over whole sequences."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled import _core
from unrolled._token_rows import layout_of_lengths
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
    TokenArray,
    dense_layout,
)
from unrolled.runtime._build import build_block
from unrolled.runtime._schema import ChainModel
from unrolled.runtime._stream import ForecastStream, Stream, WordStream
from unrolled.runtime._task_blocks import Forecast, RunnableBlock, WordArrays, Words
from unrolled.runtime._validate import check_format, check_model

if TYPE_CHECKING:
    from unrolled.runtime._codec import Codec, Decoded

Outputs = NDArray[np.floating]
ModelStates = Sequence[LayerStates | None]
"""The states of each recurrent block; None means its initial states."""


class Model:
    """A chain of blocks, which maps tokens or numbers to the output of the last block.

    Attributes:
        task: the task that it was trained on ("lm", "classify", …), or None.
        codec: vocabulary, labels and scales of the task as plain values, for ``encode`` and
            ``decode``.
        batch_first: sequences are [N, T, …], as in the module that was exported.
        threads: the number of threads of ``run``; ``stream`` has an argument for its number.
        arithmetic: how products of matrices are computed on this processor, in words.
    """

    def __init__(
        self,
        model: ChainModel,
        weights: str = "float32",
        task: str | None = None,
        codec: object = None,
        size: int | None = None,
    ) -> None:
        """
        Args:
            model: the blocks (``_schema``), which ``load`` reads from a file.
            weights: the format of weights in the core: "float32", "bfloat16" or "int8".
            size: the size of the file in bytes, which limits the size of the model; None if the
                model is not from a file.

        Raises:
            ValueError, TypeError: the model is inconsistent, or there is no such format.
        """
        check_format("Model", weights)
        check_model(model, size)
        blocks = [build_block(block, weights) for block in model.blocks]
        self._set_up(blocks, weights, model.batch_first, task, codec)

    def _set_up(
        self,
        blocks: list[RunnableBlock],
        weights: str,
        batch_first: bool,
        task: str | None,
        codec: object,
    ) -> None:
        self.blocks, self.batch_first = blocks, batch_first
        self.arithmetic = arithmetic_of(weights)
        self.task, self.codec = task, codec
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self._codec: Codec | None = None

    def encode(self, items: object) -> tuple[TokenArray | Outputs | WordArrays, IntArray]:
        """Convert texts or numbers of the task to the input of ``run``: x, and the lengths [N] of
        its sequences.

        Args:
            items: a list. Tasks "lm", "classify" and "seq2seq" take texts (a classifier of numbers
                takes arrays [T, F]), "tag" takes sentences as lists of words, "forecast" takes
                values [T, F] in the units of the data, of which it reads the last window.

        Raises:
            ImportError: the vocabulary has subword pieces, and the package tokenizers is missing.
            TypeError: items is not a list of such items.
            ValueError: the task cannot read an item, or the model was exported without a task.
        """
        x, lengths = self._loaded_codec().encode(items)
        return (x.swapaxes(0, 1) if self.batch_first and not isinstance(x, tuple) else x), lengths

    def decode(self, y: object, lengths: ArrayLike | None = None) -> "Decoded":
        """Convert a result of ``run``, or of one step of a stream, to labels, texts or values.

        The result is the most likely label of each sequence for "classify", the most likely label
        of each step for "tag" (with the ``lengths`` of the sentences), values [N, K] by column for
        "forecast", and texts for "seq2seq". For "lm" it is the text of tokens y; the outputs of
        ``run`` are scores of the next token, not tokens.

        Raises:
            IndexError, TypeError, ValueError: y is not such a result, or the model was exported
                without a task.
        """
        if self.batch_first and np.asarray(y).ndim == (2 if self.task == "lm" else 3):
            y = np.asarray(y).swapaxes(0, 1)
        return self._loaded_codec().decode(y, lengths)

    def _loaded_codec(self) -> "Codec":
        if self._codec is None:
            from unrolled.runtime._codec import codec_of

            self._codec = codec_of(self.task, self.codec)
        return self._codec

    @overload
    def run(
        self,
        x: ArrayLike | WordArrays,
        lengths: ArrayLike | None = ...,
        state: ModelStates | None = ...,
        return_state: Literal[False] = ...,
    ) -> Outputs: ...

    @overload
    def run(
        self,
        x: ArrayLike | WordArrays,
        lengths: ArrayLike | None = ...,
        state: ModelStates | None = ...,
        *,
        return_state: Literal[True],
    ) -> tuple[Outputs, list[LayerStates | None]]: ...

    def run(
        self,
        x: ArrayLike | WordArrays,
        lengths: ArrayLike | None = None,
        state: ModelStates | None = None,
        return_state: bool = False,
    ) -> Outputs | tuple[Outputs, list[LayerStates | None]]:
        """Run whole sequences: tokens [T, N] or numbers [T, N, I] to outputs [T, N, …], or to
        [N, …] if the model pools over the steps. With ``batch_first`` inputs and outputs are
        [N, T, …].

        Each step is bit-identical to that of a stream. A tagger that reads characters takes the
        three arrays of ``encode``; a forecaster returns float64 [N, K, targets], in the units of
        the data.

        Args:
            lengths: [N], those of the sequences; the head reads zeros after the end of a sequence.
            state: the state that an earlier call returned, to continue from: for each recurrent
                block a list with, for each of its layers (and directions), a tuple of arrays
                [N, width]. A pooling covers only this call. A stream has one list for the layers
                of all blocks, with three arrays for a pooling: its ``state`` is ``state[0]`` if the
                model has one recurrent block and no pooling.
            return_state: return (outputs, state).

        Raises:
            TypeError: x has the wrong kind of numbers.
            ValueError: a shape or a length is wrong.
        """
        rows, blocks = self._read(x)
        outputs, final = self._run_blocks(rows, blocks, lengths, state)
        return (outputs, final) if return_state else outputs

    def _read(self, x: ArrayLike | WordArrays) -> tuple[Float32Array, list[RunnableBlock]]:
        """The result [T, N, width] of the first block, and the other blocks."""
        head, tail = self.blocks[0], self.blocks[1:]
        if isinstance(head, Words):
            return head.run(head.check(x), self.threads), tail
        if isinstance(head, Embedding):
            return head.run(self._check_tokens(x)), tail
        numbers = self._check_numbers(x)
        if isinstance(head, Scale):  # accepts float64, which resolves large numbers better
            return head.run(numbers), tail
        return np.ascontiguousarray(numbers, np.float32), self.blocks

    def _run_blocks(
        self,
        rows: Float32Array,
        blocks: list[RunnableBlock],
        lengths: ArrayLike | None,
        state: ModelStates | None,
    ) -> tuple[Outputs, list[LayerStates | None]]:
        T, N = rows.shape[:2]
        checked = checked_lengths(lengths, T, N)
        layout = dense_layout(T, N) if checked is None else layout_of_lengths(T, N, "time", checked)
        if state is not None:
            self._check_state(state, N)
        y: Float32Array = rows
        forecasts: Float64Array | None = None
        final: list[LayerStates | None] = []
        pooled = False
        for block in blocks:
            if isinstance(block, Recurrent):
                initial = None if state is None else state[len(final)]
                initial = block.initial_states(N) if initial is None else initial
                y, states = block.run(y, layout, initial, self.threads)
                recurrent = block
                final.append(states)
            elif isinstance(block, Last):
                y, pooled = recurrent.last_outputs(states), True
            elif isinstance(block, Pooling):
                y, pooled = block.run(y, checked), True
            elif isinstance(block, Forecast):
                forecasts = block.run(y, _last_values(rows, checked))
            elif isinstance(block, Linear | Activation):
                y = block.run(y)
        if forecasts is not None:
            return forecasts, final
        return (y.swapaxes(0, 1) if self.batch_first and not pooled else y), final

    def stream(self, batch: int = 1, threads: int = 1) -> Stream:
        """A stream of ``batch`` sequences, which runs one step at a time.

        Args:
            threads: the number of threads for a step, the caller's included; short steps use only
                the caller's. Results do not depend on it.

        Raises:
            TypeError: batch or threads is not an integer.
            ValueError: the model is bidirectional, or batch or threads is below 1.
        """
        if any(isinstance(block, Words) for block in self.blocks):
            return WordStream(self, batch, threads)
        if any(isinstance(block, Forecast) for block in self.blocks):
            return ForecastStream(self, batch, threads)
        return Stream(self, batch, threads)

    def _check_state(self, state: ModelStates, N: int) -> None:
        expected = [
            [
                [(N, width) for width in direction.widths]
                for layer in block.layers
                for direction in layer
            ]
            for block in self.blocks
            if isinstance(block, Recurrent)
        ]
        shapes = [
            None if states is None else [[np.shape(array) for array in layer] for layer in states]
            for states in state
        ]
        if len(shapes) != len(expected) or any(
            shape not in (None, target) for shape, target in zip(shapes, expected, strict=True)
        ):
            raise ValueError(f"Model: state must have arrays of shapes {expected}, got {shapes}")

    @property
    def inputs(self) -> int | None:
        """The width of the numbers that the model reads; None if it reads tokens."""
        head = next(block for block in self.blocks if not isinstance(block, Activation))
        return head.inputs if isinstance(head, Scale | Linear | Recurrent) else None

    def _check_tokens(self, x: ArrayLike) -> TokenArray:
        """Tokens [T, N]; their values are checked when the table is read."""
        tokens = np.asarray(x)
        if tokens.ndim != 2 or 0 in tokens.shape:
            axes = "N, T" if self.batch_first else "T, N"
            raise ValueError(
                f"Model: x must be tokens of shape [{axes}], got shape {list(tokens.shape)}"
            )
        return tokens.swapaxes(0, 1) if self.batch_first else tokens

    def _check_numbers(self, x: ArrayLike) -> NDArray[np.number]:
        """Numbers [T, N, I]."""
        numbers = np.asarray(x)
        if numbers.dtype.kind not in "fiu":
            raise TypeError(f"Model: x must be numbers, got {numbers.dtype}")
        if numbers.ndim != 3 or 0 in numbers.shape or numbers.shape[2] != self.inputs:
            axes = "N, T" if self.batch_first else "T, N"
            raise ValueError(
                f"Model: x must have shape [{axes}, {self.inputs}], got {list(numbers.shape)}"
            )
        return numbers.swapaxes(0, 1) if self.batch_first else numbers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({names_of(self.blocks)}; {self.arithmetic})"


def arithmetic_of(weights: str) -> str:
    """How products with weights of a format are computed on this processor."""
    if weights == "float32":
        return "float32"
    if weights == "int8":
        return "weights in int8, their rows in 16 bits"
    if _core.multiplies_bfloat16(""):
        return "products of bfloat16, sums in float32"
    return "weights in bfloat16, products in float32"


def names_of(blocks: Sequence[RunnableBlock]) -> str:
    """The names of a chain's blocks on one line."""
    return " → ".join(
        block.name if isinstance(block, Activation) else type(block).__name__ for block in blocks
    )


def _last_values(values: Float32Array, lengths: IntArray | None) -> Float32Array:
    """The last values of each sequence, [N, F], from [T, N, F]."""
    if lengths is None:
        last_step: Float32Array = values[-1]
        return last_step
    if lengths.min() < 1:
        raise ValueError(
            f"Model: lengths must be at least 1 before a forecast, got {lengths.tolist()}"
        )
    last_steps: Float32Array = values[lengths - 1, np.arange(len(lengths))]
    return last_steps


def checked_lengths(lengths: ArrayLike | None, T: int, N: int) -> IntArray | None:
    """Check the lengths [N] of sequences of at most T steps.

    Raises:
        ValueError: the shape or a length is wrong.
    """
    if lengths is None:
        return None
    array = np.asarray(lengths)
    if array.shape != (N,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"Model: lengths must be {N} whole numbers, "
            f"got {array.dtype} of shape {list(array.shape)}"
        )
    if array.min() < 0 or array.max() > T:
        raise ValueError(f"Model: lengths must be from 0 to {T}, got {array.tolist()}")
    return array.astype(np.int64)
