"""A model read from a file, and run over whole sequences."""

import os
from typing import Any

import numpy as np

from unrolled import io
from unrolled.runtime.blocks import (
    Activation,
    Block,
    Embedding,
    Last,
    Linear,
    Plan,
    Pooling,
    Recurrent,
    Scale,
    States,
)
from unrolled.runtime.description import KIND, VERSION, blocks_of, check_weights
from unrolled.runtime.stream import Stream

__all__ = ["Model", "load", "model_of"]


def load(path: str | os.PathLike[str], weights: str | None = None) -> "Model":
    """Read a model that ``unrolled export`` wrote.

    Args:
        weights: how they are kept: "float32", "bfloat16" or "int8" (a scale for each row); by
            default as the file says.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, newer, or no exported model.
        ValueError: weights is none of these.
    """
    if weights is not None:
        check_weights(weights)
    tree = io.load(path)
    try:
        return Model(tree, weights)
    except io.DAMAGE as error:
        fault = f"holds no model that this version reads ({error})".replace("\n", " ")
        raise io.FileError(path, fault) from None


def model_of(blocks: list[dict[str, Any]], weights: str = "float32") -> "Model":
    """A model from a description that is in no file.

    Raises:
        ValueError: weights is not "float32", "bfloat16" or "int8".
    """
    check_weights(weights)
    tree = {"kind": KIND, "version": VERSION, "weights": weights, "blocks": blocks}
    return Model({**tree, "task": None, "codec": None})


class Model:
    """A chain of parts: tokens or numbers in, the last part's numbers out.

    Attributes:
        task: what it was trained on ("lm", "classify", …), or None.
        codec: vocabulary, labels and scales of the task as plain values.
        threads: of a call of ``run``; streams use the caller's.
    """

    def __init__(self, tree: dict[str, Any], weights: str | None = None) -> None:
        self.blocks: list[Block] = blocks_of(tree, weights)
        self.task: str | None = tree["task"]
        self.codec: Any = tree["codec"]
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

    def run(
        self,
        x: Any,
        lengths: Any = None,
        state: list[States | None] | None = None,
        return_state: bool = False,
    ) -> Any:
        """Whole sequences: tokens [T, N] or numbers [T, N, I] to outputs [T, N, …], or to [N, …] of
        a model that tells one thing of a sequence.

        Each step is, to the bit, that of a stream.

        Args:
            lengths: [N], of the sequences; outputs beyond are zeros before the head.
            state: that of an earlier call to go on from; a mean, maximum or attention over the
                steps is of this call's alone. ``state[0]`` is what a stream's ``state`` takes.
            return_state: give (outputs, state).

        Raises:
            TypeError: x is of another kind of numbers.
            ValueError: a shape or a length is not what was wanted.
        """
        x = self._entered(x)
        T, N = x.shape[:2]
        plan = Plan(T, N, _lengths(lengths, T, N))
        if state is not None:
            self._check_state(state, N)
        after: list[States | None] = []
        last: States = []
        for block in self.blocks:
            if isinstance(block, Recurrent):
                given = None if state is None else state[len(after)]
                states = block.begin(N) if given is None else given
                x, last = block.run(x, plan, states, self.threads)
                after.append(last)
            elif isinstance(block, Last):
                ends = last[-self._directions() :]
                x = np.concatenate([end[0] for end in ends], -1)
            elif isinstance(block, Pooling):
                x = block.run(x, plan.lengths)
            else:
                x = block.run(x)
        return (x, after) if return_state else x

    def stream(self, batch: int = 1) -> Stream:
        """So many sequences that take one step at a time.

        Raises:
            ValueError: the model reads in both directions, or batch is below 1.
        """
        return Stream(self, batch)

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

    def _directions(self) -> int:
        found = [block for block in self.blocks if isinstance(block, Recurrent)]
        return found[-1].directions

    @property
    def inputs(self) -> int | None:
        """Width of the numbers that it reads; None of one that reads tokens."""
        for block in self.blocks:
            if isinstance(block, Embedding):
                return None
            if isinstance(block, Scale | Linear | Recurrent):
                return block.inputs
        return None

    def _entered(self, x: Any) -> np.ndarray:
        x = np.asarray(x)
        if self.inputs is None:
            if x.ndim != 2 or 0 in x.shape:
                raise ValueError(f"x: wanted tokens [T, N], got shape {list(x.shape)}")
            return x
        if x.dtype.kind not in "fiu":
            raise TypeError(f"x: wanted numbers, got {x.dtype}")
        if x.ndim != 3 or 0 in x.shape or x.shape[2] != self.inputs:
            raise ValueError(f"x: wanted [T, N, {self.inputs}], got shape {list(x.shape)}")
        return np.ascontiguousarray(x, np.float32)

    def __repr__(self) -> str:
        names = [
            block.name if isinstance(block, Activation) else type(block).__name__
            for block in self.blocks
        ]
        return f"Model({' → '.join(names)})"


def _lengths(lengths: Any, T: int, N: int) -> np.ndarray | None:
    if lengths is None:
        return None
    found = np.asarray(lengths)
    if found.shape != (N,) or found.dtype.kind not in "iu":
        got = f"{found.dtype} of shape {list(found.shape)}"
        raise ValueError(f"lengths: wanted {N} whole numbers, got {got}")
    if found.min() < 0 or found.max() > T:
        raise ValueError(f"lengths: wanted 0 to {T}, got {found.tolist()}")
    return found.astype(np.int64)
