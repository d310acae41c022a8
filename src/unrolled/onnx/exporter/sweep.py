"""What one layer in one direction is to the makers of nodes, and where its sequences end."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from unrolled.onnx.exporter.graph import INTS, Graph, Value
from unrolled.program.decode import Forward

__all__ = ["Lengths", "Sweep", "reversed_steps", "sizes_of", "zeros"]


@dataclass(frozen=True)
class Sweep:
    """One layer in one direction.

    ``forward`` is the cell's program; ``matrices``: weight and bias (or None) of the input product
    and of each product, in the order of the program; ``vectors`` the cell's own; ``name`` is what
    its arrays are called by.
    """

    forward: Forward
    I: int  # noqa: E741
    H: int
    P: int
    reverse: bool
    matrices: tuple[Value | None, ...]
    vectors: tuple[Value, ...]
    name: str = "layer"

    def width(self, size: int | str) -> int:
        """A width of the program as a number."""
        return size if isinstance(size, int) else {"I": self.I, "H": self.H, "P": self.P}[size]

    @property
    def widths(self) -> list[int]:
        """Of the states."""
        return [self.width(size) for size in self.forward.states]


def sizes_of(g: Graph, x: Value, first: int, count: int = 1) -> Value:
    """Dimensions of a value, [count]: T or N of x [T, N, I]."""
    return g.op("Shape", x, start=first, end=first + count)


def zeros(g: Graph, x: Value, width: int, directions: int | None = None) -> Value:
    """Zeros [N, width] for x [T, N, I]; [D, N, width] with ``directions`` D."""
    leading = [] if directions is None else [np.array([directions], INTS)]
    shape = g.op("Concat", *leading, sizes_of(g, x, 1), np.array([width], INTS), axis=0)
    return g.op("Expand", np.zeros((1,) * (len(leading) + 2), g.dtype), shape)


def reversed_steps(g: Graph, x: Value) -> Value:
    """[T]: T - 1 to 0, for x [T, …]."""
    zero, one = (np.array(k, INTS) for k in (0, 1))
    T = g.op("Squeeze", sizes_of(g, x, 0))
    return g.op("Sub", g.op("Sub", T, one), g.op("Range", zero, T, one))


@dataclass
class Lengths:
    """Where the sequences of x [T, N, ·] end: ``ends`` [N] whole numbers, int64."""

    g: Graph
    x: Value
    ends: Value
    _made: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def whole(cls, g: Graph, x: Value) -> "Lengths":
        """Every sequence has all T steps."""
        return cls(g, x, g.op("Expand", sizes_of(g, x, 0), sizes_of(g, x, 1)))

    def sequence_lens(self) -> Value:
        """[N] as the standard operators want them."""
        return self._once("lens", lambda: self.g.op("Cast", self.ends, to=TensorProto.INT32))

    def inside(self) -> Value:
        """[T, N, 1]: whether a step is before the end of its sequence."""
        return self._once("inside", self._inside)

    def empty(self) -> Value:
        """[N, 1]: whether a sequence has no step."""
        g = self.g

        def made() -> Value:
            none = g.op("LessOrEqual", self.ends, np.array([0], INTS))
            return g.op("Unsqueeze", none, np.array([1], INTS))

        return self._once("empty", made)

    def last(self) -> Value:
        """[T, N, 1]: whether a step is the last one of its sequence."""
        g = self.g

        def made() -> Value:
            before = g.op("Sub", self.ends, np.array([1], INTS))
            return g.op("Unsqueeze", g.op("Equal", self._steps(), before), np.array([-1], INTS))

        return self._once("last", made)

    def _inside(self) -> Value:
        g = self.g
        return g.op("Unsqueeze", g.op("Less", self._steps(), self.ends), np.array([-1], INTS))

    def _steps(self) -> Value:
        """[T, 1] from 0 on."""
        g = self.g
        zero, one = (np.array(k, INTS) for k in (0, 1))

        def made() -> Value:
            T = g.op("Squeeze", sizes_of(g, self.x, 0))
            return g.op("Unsqueeze", g.op("Range", zero, T, one), np.array([1], INTS))

        return self._once("steps", made)

    def _once(self, name: str, make: Callable[[], Value]) -> Value:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
