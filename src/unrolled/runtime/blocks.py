"""The blocks of a model as the core runs them, on NumPy arrays; ``schema`` describes them.

Shapes: T time, N batch, I input. A block takes rows [T, N, width] of float32, an embedding takes
tokens, which are whole numbers.
"""

from dataclasses import dataclass

import numpy as np

from unrolled import _core

__all__ = [
    "Activation",
    "Embedding",
    "Last",
    "Linear",
    "Pooling",
    "Recurrent",
    "Scale",
    "States",
]

States = list[tuple[np.ndarray, ...]]
"""Of each layer (of each direction one after the other), each of its states [N, width]."""


@dataclass(frozen=True)
class Embedding:
    """Rows of a table [V, width], by number."""

    table: np.ndarray

    @property
    def width(self) -> int:
        return int(self.table.shape[1])

    def run(self, tokens: np.ndarray) -> np.ndarray:
        """[...] whole numbers to [..., width].

        Raises:
            TypeError: they are no whole numbers.
            IndexError: one is negative or not below V.
        """
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"x: wanted tokens, whole numbers, got {tokens.dtype}")
        outside = tokens[(tokens < 0) | (tokens >= len(self.table))]
        if outside.size:
            raise IndexError(
                f"x: wanted tokens from 0 to {len(self.table) - 1}, got {outside.flat[0]}"
            )
        return self.table[tokens]


@dataclass(frozen=True)
class Scale:
    """(x - mean) / deviation, number by number of a row, in float64: [width] each."""

    mean: np.ndarray
    deviation: np.ndarray

    @property
    def inputs(self) -> int:
        return len(self.mean)

    def run(self, x: np.ndarray) -> np.ndarray:
        scaled = (x.astype(np.float64) - self.mean) / self.deviation
        return scaled.astype(np.float32)


class Linear:
    """W x + b: W [width, inputs], b [width] or None."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, weights: str) -> None:
        self.width, self.inputs = weight.shape
        self.core = _core.Line(weight, bias, self.width, self.inputs, weights, "")

    def run(self, x: np.ndarray) -> np.ndarray:
        made = np.empty((*x.shape[:-1], self.width), np.float32)
        x = np.ascontiguousarray(x, np.float32)
        self.core.run(x, made, x.size // self.inputs)
        return made


@dataclass(frozen=True)
class Activation:
    """A function of each number, or of each row."""

    name: str

    def run(self, x: np.ndarray) -> np.ndarray:
        made = np.array(x, np.float32, order="C")
        _core.activate(self.name, made, made.size // made.shape[-1], made.shape[-1])
        return made


@dataclass(frozen=True)
class Last:
    """The output at the end of each sequence, of both directions where there are two."""


class Pooling:
    """Mean, maximum or attention over the steps of each sequence: [T, N, width] to [N, width].

    ``keys`` and ``query`` are attention's: a step's score is query(tanh(keys(y))).
    """

    def __init__(
        self, name: str, width: int, keys: "Linear | None", query: "Linear | None"
    ) -> None:
        self.width = width
        parts = (None if one is None else one.core for one in (keys, query))
        if (name == "attention") != (keys is not None and query is not None):
            raise ValueError("pooling: keys and query are attention's")
        self.core = _core.Pooling(name, width, *parts)

    def run(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        T, N, _ = x.shape
        made = np.empty((N, self.width), np.float32)
        self.core.run(np.ascontiguousarray(x), lengths, T, N, made)
        return made


@dataclass(frozen=True)
class Direction:
    """One layer in one direction."""

    core: _core.Layer
    inputs: int
    widths: tuple[int, ...]

    def run(
        self,
        x: np.ndarray,
        plan: "Plan",
        reverse: bool,
        before: tuple[np.ndarray, ...] | None,
        threads: int,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Outputs [T, N, width] and final states [N, width]."""
        T, N, _ = x.shape
        output = plan.outputs((T, N, self.widths[0]))
        final = tuple(np.empty((N, width), np.float32) for width in self.widths)
        starts = [None] * len(final) if before is None else [plan.enter(one) for one in before]
        shape = [T, N, self.inputs, T * N, *plan.place(reverse), threads]
        given = (*plan.tokens(reverse), x, output, *starts, *final)
        self.core.run(shape, [number for array in given for number in _told(array)])
        return output, tuple(plan.leave(one) for one in final)


def _told(array: np.ndarray | None) -> tuple[int, int]:
    if array is None:
        return 0, 0
    return array.__array_interface__["data"][0], array.size


class Plan:
    """Which tokens a batch [T, N] of these lengths has, longest sequence first."""

    def __init__(self, T: int, N: int, lengths: np.ndarray | None) -> None:
        self.T, self.N, self.lengths = T, N, lengths
        if lengths is not None:
            self.order = np.argsort(-lengths, kind="stable")
            self.sorted = lengths[self.order]
            steps = np.arange(T)
            self.sizes = (self.sorted[None, :] > steps[:, None]).sum(1).astype(np.int64)

    def place(self, reverse: bool) -> tuple[int, int, int]:
        """Of dense tokens: the row of the first one, how far the next step and sequence are."""
        if self.lengths is not None:
            return 0, 0, 0
        return ((self.T - 1) * self.N, -self.N, 1) if reverse else (0, self.N, 1)

    def tokens(self, reverse: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Sequences of each step, and the row of each token; None where dense."""
        if self.lengths is None:
            return None, None
        t = np.repeat(np.arange(self.T), self.sizes)
        n = np.concatenate([np.arange(size) for size in self.sizes])
        at = self.sorted[n] - 1 - t if reverse else t
        return self.sizes, (at * self.N + self.order[n]).astype(np.int64)

    def outputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """Memory for outputs; what is no token stays zero."""
        return (np.empty if self.lengths is None else np.zeros)(shape, np.float32)

    def enter(self, state: np.ndarray) -> np.ndarray:
        state = np.ascontiguousarray(state, np.float32)
        return state if self.lengths is None else np.ascontiguousarray(state[self.order])

    def leave(self, state: np.ndarray) -> np.ndarray:
        if self.lengths is None:
            return state
        made = np.empty_like(state)
        made[self.order] = state
        return made


class Recurrent:
    """Layers in one or two directions, the outputs of two side by side ("concat") or added ("sum").

    ``start`` is the state before the first step, as ``States`` with N = 1; None for zeros.
    """

    def __init__(
        self, layers: list[list[Direction]], start: States | None, merge: str = "concat"
    ) -> None:
        self.layers = layers
        self.start = start
        self.merge = merge

    @property
    def directions(self) -> int:
        return len(self.layers[0])

    @property
    def inputs(self) -> int:
        return self.layers[0][0].inputs

    @property
    def width(self) -> int:
        """Of the output, both directions together."""
        return self.width_of(self.layers[-1])

    def width_of(self, layer: list[Direction]) -> int:
        """Of a layer's output."""
        widths = [one.widths[0] for one in layer]
        return sum(widths) if self.merge == "concat" else widths[0]

    def merged(self, made: list[np.ndarray]) -> np.ndarray:
        """What the directions made [..., width] as one."""
        if len(made) == 1:
            return made[0]
        return np.concatenate(made, -1) if self.merge == "concat" else made[0] + made[1]

    def ends(self, states: States) -> np.ndarray:
        """The output at the end of each sequence, of both directions: [N, width]."""
        return self.merged([one[0] for one in states[-self.directions :]])

    def begin(self, N: int) -> States | None:
        """The start of N sequences."""
        if self.start is None:
            return None
        return [tuple(np.repeat(one, N, 0) for one in states) for states in self.start]

    def run(
        self, x: np.ndarray, plan: Plan, states: States | None, threads: int
    ) -> tuple[np.ndarray, States]:
        """Outputs [T, N, width] and the states after."""
        after: States = []
        x = np.ascontiguousarray(x, np.float32)
        for layer in self.layers:
            made = []
            for reverse, direction in enumerate(layer):
                before = None if states is None else states[len(after)]
                output, final = direction.run(x, plan, bool(reverse), before, threads)
                made.append(output)
                after.append(final)
            x = self.merged(made)
        return x, after
