"""A model, run over whole sequences."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled.runtime.blocks import (
    Activation,
    Last,
    Linear,
    Plan,
    Pooling,
    Recurrent,
    Scale,
    States,
)
from unrolled.runtime.build import build_block
from unrolled.runtime.schema import ChainModel
from unrolled.runtime.stream import ForecastStream, Stream, WordStream
from unrolled.runtime.task_blocks import Forecast, RunnableBlock, Words
from unrolled.runtime.validate import check_format, check_model

if TYPE_CHECKING:
    from unrolled.runtime.codec import Codec

__all__ = ["Model", "checked_lengths", "names_of"]


class Model:
    """A chain of parts: tokens or numbers in, the last part's numbers out.

    Attributes:
        task: what it was trained on ("lm", "classify", …), or None.
        codec: vocabulary, labels and scales of the task as plain values; ``encode`` and ``decode``
            use them.
        batch_first: sequences are [N, T, …], as in the module that was exported.
        threads: of a call of ``run``; a stream is told its own.
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
            model: in the values of ``runtime.schema``; ``load`` reads them from a file.
            weights: the format in which the core keeps them: "float32", "bfloat16" or "int8".
            size: bytes of the file, which bound what it may ask for; None where there is no file.

        Raises:
            ValueError, TypeError: the values do not fit together, or there is no such format.
        """
        check_format("Model", weights)
        check_model(model, size)
        self.blocks: list[RunnableBlock] = [build_block(block, weights) for block in model.blocks]
        self.batch_first = model.batch_first
        self._set_task(task, codec)

    def _set_task(self, task: str | None, codec: object) -> None:
        self.task, self.codec = task, codec
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self._codec: Codec | None = None

    def encode(self, items: Any) -> tuple[Any, np.ndarray]:
        """What the task reads, as ``run`` wants it: x and the lengths [N] of its sequences.

        Args:
            items: a list; of "lm", "classify" and "seq2seq" texts (numbers [T, F] of a classifier
                of numbers), of "tag" sentences as lists of words, of "forecast" values [T, F] in
                their own units, of which the last window is taken.

        Raises:
            ImportError: the vocabulary is one of pieces, which needs the package tokenizers.
            TypeError: items is no list of such.
            ValueError: an item is not what the task reads, or the model was exported without task.
        """
        x, lengths = self._coded().encode(items)
        return (x.swapaxes(0, 1) if self.batch_first else x), lengths

    def decode(self, y: Any, lengths: Any = None) -> Any:
        """What a result means: of "classify" the likeliest label of each sequence, of "tag" those
        of each step (``lengths``: of the sentences), or of one step of a stream; of "forecast"
        values [N, K] by column; of "lm" and "seq2seq" the text of tokens (of "lm" not of the
        outputs of ``run``, which are a score of each token that may come next).

        Raises:
            IndexError, TypeError, ValueError: y is no such result, or the model was exported
                without task.
        """
        if self.batch_first and np.ndim(y) == (2 if self.task == "lm" else 3):
            y = np.asarray(y).swapaxes(0, 1)
        return self._coded().decode(y, lengths)

    def _coded(self) -> "Codec":
        if self._codec is None:
            from unrolled.runtime.codec import codec_of

            self._codec = codec_of(self.task, self.codec)
        return self._codec

    def run(
        self,
        x: Any,
        lengths: Any = None,
        state: list[States | None] | None = None,
        return_state: bool = False,
    ) -> Any:
        """Whole sequences: tokens [T, N] or numbers [T, N, I] to outputs [T, N, …], or to [N, …] of
        a model that tells one thing of a sequence; [N, T, …] with ``batch_first``.

        Each step is, to the bit, that of a stream. A tagger that reads characters takes the three
        arrays of ``encode``; a forecaster gives [N, K, targets] in float64, in the data's units.

        Args:
            lengths: [N], of the sequences; outputs beyond are zeros before the head.
            state: that of an earlier call to go on from: of each part that is recurrent, of each
                of its layers (and directions), a tuple of arrays [N, width]. A mean, maximum or
                attention over the steps is of this call's alone. ``state[0]`` is what a stream's
                ``state`` takes where one part is recurrent and nothing is pooled; in a stream all
                layers stand in one list, and a pooling is one of them, with three arrays.
            return_state: give (outputs, state).

        Raises:
            TypeError: x is of another kind of numbers.
            ValueError: a shape or a length is not what was wanted.
        """
        x = known = self._entered(x)
        T, N = (x[0] if isinstance(x, tuple) else x).shape[:2]
        plan = Plan(T, N, checked_lengths(lengths, T, N))
        if state is not None:
            self._check_state(state, N)
        after: list[States | None] = []
        ended = False
        for block in self.blocks:
            if isinstance(block, Recurrent):
                given = None if state is None else state[len(after)]
                states = block.begin(N) if given is None else given
                x, last = block.run(x, plan, states, self.threads)
                layer = block
                after.append(last)
            elif isinstance(block, Last):
                x, ended = layer.ends(last), True
            elif isinstance(block, Pooling):
                x, ended = block.run(x, plan.lengths), True
            elif isinstance(block, Words):
                x = block.run(x, self.threads)
            elif isinstance(block, Forecast):
                x = block.run(x, _ends(known, plan.lengths))
            elif isinstance(block, Scale):
                x = known = block.run(x)
            else:
                x = block.run(x)
        x = x.swapaxes(0, 1) if self.batch_first and not ended else x
        return (x, after) if return_state else x

    def stream(self, batch: int = 1, threads: int = 1) -> Stream:
        """So many sequences that take one step at a time.

        Args:
            threads: that share the work of a step, where it is long enough to pay: the caller's,
                and others that it wakes. The numbers are the same.

        Raises:
            TypeError: batch or threads is no whole number.
            ValueError: the model reads in both directions, or batch or threads is below 1.
        """
        kinds = {Words: WordStream, Forecast: ForecastStream}
        own = [kinds[type(block)] for block in self.blocks if type(block) in kinds]
        return (own[0] if own else Stream)(self, batch, threads)

    def _check_state(self, state: list[States | None], N: int) -> None:
        layers = [block for block in self.blocks if isinstance(block, Recurrent)]
        wanted = [
            [[(N, width) for width in one.widths] for layer in block.layers for one in layer]
            for block in layers
        ]
        found = [None if one is None else [[np.shape(s) for s in k] for k in one] for one in state]
        if len(found) != len(wanted) or any(
            one not in (None, other) for one, other in zip(found, wanted, strict=True)
        ):
            raise ValueError(f"state: wanted arrays of shapes {wanted}, got {found}")

    @property
    def inputs(self) -> int | None:
        """Width of the numbers that it reads; None of one that reads tokens."""
        first = next(block for block in self.blocks if not isinstance(block, Activation))
        return first.inputs if isinstance(first, Scale | Linear | Recurrent) else None

    def _entered(self, x: Any) -> Any:
        if isinstance(self.blocks[0], Words):
            return self.blocks[0].check(x)
        x = np.asarray(x)
        shape = "[N, T{}]" if self.batch_first else "[T, N{}]"
        if self.inputs is None:
            if x.ndim != 2 or 0 in x.shape:
                wanted = shape.format("")
                raise ValueError(f"x: wanted tokens {wanted}, got shape {list(x.shape)}")
        elif x.dtype.kind not in "fiu":
            raise TypeError(f"x: wanted numbers, got {x.dtype}")
        elif x.ndim != 3 or 0 in x.shape or x.shape[2] != self.inputs:
            wanted = shape.format(f", {self.inputs}")
            raise ValueError(f"x: wanted {wanted}, got shape {list(x.shape)}")
        x = x.swapaxes(0, 1) if self.batch_first else x
        if self.inputs is None or isinstance(self.blocks[0], Scale):
            return x  # a scale reads float64 as well, which may hold more of large numbers
        return np.ascontiguousarray(x, np.float32)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({names_of(self.blocks)})"


def names_of(blocks: list[RunnableBlock]) -> str:
    """A chain in a line."""
    return " → ".join(
        block.name if isinstance(block, Activation) else type(block).__name__ for block in blocks
    )


def _ends(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The last step of each sequence, [N, …]."""
    if lengths is None:
        found: np.ndarray = x[-1]
        return found
    if lengths.min() < 1:
        raise ValueError(f"lengths: wanted 1 or more before a forecast, got {lengths.tolist()}")
    return x[lengths - 1, np.arange(len(lengths))]


def checked_lengths(lengths: Any, T: int, N: int) -> np.ndarray | None:
    """Lengths [N], refused if they are none of sequences of T steps."""
    if lengths is None:
        return None
    found = np.asarray(lengths)
    if found.shape != (N,) or found.dtype.kind not in "iu":
        got = f"{found.dtype} of shape {list(found.shape)}"
        raise ValueError(f"lengths: wanted {N} whole numbers, got {got}")
    if found.min() < 0 or found.max() > T:
        raise ValueError(f"lengths: wanted 0 to {T}, got {found.tolist()}")
    return found.astype(np.int64)
