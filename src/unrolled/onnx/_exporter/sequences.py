"""Nodes for the sizes of sequences: T, N, lengths and masks."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from unrolled.onnx._exporter.graph import INTEGERS, Graph, Value


def sizes_of(g: Graph, x: Value, axis: int, count: int = 1) -> Value:
    """Sizes of a value from an axis on, [count]: T or N of x [T, N, I]."""
    return g.op("Shape", x, start=axis, end=axis + count)


def zeros(g: Graph, x: Value, width: int, directions: int | None = None) -> Value:
    """Zeros [N, width] for x [T, N, I]; [D, N, width] with ``directions`` D."""
    leading = [] if directions is None else [np.array([directions], INTEGERS)]
    shape = g.op("Concat", *leading, sizes_of(g, x, 1), np.array([width], INTEGERS), axis=0)
    return g.op("Expand", np.zeros((1,) * (len(leading) + 2), g.dtype), shape)


def reversed_steps(g: Graph, x: Value) -> Value:
    """[T]: T - 1 to 0, for x [T, …]."""
    zero, one = np.array(0, INTEGERS), np.array(1, INTEGERS)
    T = g.op("Squeeze", sizes_of(g, x, 0))
    return g.op("Sub", g.op("Sub", T, one), g.op("Range", zero, T, one))


@dataclass
class Lengths:
    """The lengths [N] of the sequences of x [T, N, ·], in int64, and values computed from them.

    The nodes of each value are created once, when it is first needed.
    """

    g: Graph
    x: Value
    lengths: Value
    _values: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def full(cls, g: Graph, x: Value) -> "Lengths":
        """Every sequence has all T steps."""
        return cls(g, x, g.op("Expand", sizes_of(g, x, 0), sizes_of(g, x, 1)))

    def sequence_lens(self) -> Value:
        """[N] in the type that the standard operators require."""
        return self._cached(
            "sequence_lens", lambda: self.g.op("Cast", self.lengths, to=TensorProto.INT32)
        )

    def inside(self) -> Value:
        """[T, N, 1]: whether a step is before the end of its sequence."""

        def make() -> Value:
            is_inside = self.g.op("Less", self._steps(), self.lengths)
            return self.g.op("Unsqueeze", is_inside, np.array([-1], INTEGERS))

        return self._cached("inside", make)

    def empty(self) -> Value:
        """[N, 1]: whether a sequence has no step."""

        def make() -> Value:
            is_empty = self.g.op("LessOrEqual", self.lengths, np.array([0], INTEGERS))
            return self.g.op("Unsqueeze", is_empty, np.array([1], INTEGERS))

        return self._cached("empty", make)

    def final_step(self) -> Value:
        """[T, N, 1]: whether a step is the final one of its sequence."""

        def make() -> Value:
            final_steps = self.g.op("Sub", self.lengths, np.array([1], INTEGERS))
            is_final = self.g.op("Equal", self._steps(), final_steps)
            return self.g.op("Unsqueeze", is_final, np.array([-1], INTEGERS))

        return self._cached("final_step", make)

    def _steps(self) -> Value:
        """[T, 1] from 0 on."""
        zero, one = np.array(0, INTEGERS), np.array(1, INTEGERS)

        def make() -> Value:
            T = self.g.op("Squeeze", sizes_of(self.g, self.x, 0))
            steps = self.g.op("Range", zero, T, one)
            return self.g.op("Unsqueeze", steps, np.array([1], INTEGERS))

        return self._cached("steps", make)

    def _cached(self, name: str, make: Callable[[], Value]) -> Value:
        if name not in self._values:
            self._values[name] = make()
        return self._values[name]
