"""Blocks of particular tasks: the words of a tagger, the forecast of a forecaster."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unrolled._token_rows import layout_of_lengths
from unrolled.runtime._blocks import (
    Activation,
    Embedding,
    Float32Array,
    Float64Array,
    IntArray,
    Last,
    Linear,
    Pooling,
    Recurrent,
    Scale,
    TokenArray,
)

WordArrays = tuple[TokenArray, TokenArray, IntArray]
"""Words [T, N], characters [C, T·N] (those of word (t, n) in column t·N + n), and the number of
characters of each word, [T·N], 0 where there is no word."""


class Words:
    """Word embeddings, concatenated with the final output of layers over the characters of each
    word."""

    def __init__(self, words: Embedding, characters: Embedding, spelling: Recurrent) -> None:
        self.words, self.characters, self.spelling = words, characters, spelling

    @property
    def width(self) -> int:
        widths = [direction.widths[0] for direction in self.spelling.layers[-1]]
        return self.words.width + (widths[0] if self.spelling.merge == "sum" else sum(widths))

    def check(self, x: object) -> WordArrays:
        """Check the three arrays that ``Model.encode`` returns.

        Raises:
            TypeError: x is not a tuple of three arrays.
            ValueError: a shape is wrong, or spellings are not numbers of characters.
        """
        if not isinstance(x, tuple | list) or len(x) != 3:
            raise TypeError(
                "Words: x must be (words, characters, spellings), as encode gives, "
                f"got {type(x).__name__}"
            )
        words, characters, spellings = (np.asarray(array) for array in x)
        if words.ndim != 2 or 0 in words.shape:
            raise ValueError(
                f"Words: x must have words of shape [T, N], got shape {list(words.shape)}"
            )
        C, count = len(characters) if characters.ndim else 0, words.size
        if characters.shape != (C, count) or C < 1 or spellings.shape != (count,):
            raise ValueError(
                f"Words: x must have characters of shape [C, {count}] and spellings of shape "
                f"[{count}], got {list(characters.shape)} and {list(spellings.shape)}"
            )
        if spellings.dtype.kind not in "iu":
            raise ValueError(f"Words: spellings must be whole numbers, got {spellings.dtype}")
        if spellings.min() < 0 or spellings.max() > C:
            raise ValueError(
                f"Words: spellings must be from 0 to {C}, "
                f"got {spellings.min()} to {spellings.max()}"
            )
        return words, characters, spellings.astype(np.int64)

    def run(self, x: WordArrays, threads: int) -> Float32Array:
        """Embed words as [T, N, width]."""
        words, characters, spellings = x
        layout = layout_of_lengths(len(characters), words.size, "time", spellings)
        initial = self.spelling.initial_states(words.size)
        _, final = self.spelling.run(self.characters.run(characters), layout, initial, threads)
        spelled = self.spelling.last_outputs(final).reshape(*words.shape, -1)
        return np.concatenate([self.words.run(words), spelled], -1)


@dataclass(frozen=True)
class Forecast:
    """Converts differences [N, K·targets] from the last known values to float64 forecasts
    [N, K, targets].

    ``mean`` and ``deviation`` [targets] convert forecasts to the units of the data; without them
    they are in standard units.
    """

    horizon: int
    targets: int
    mean: Float64Array | None
    deviation: Float64Array | None

    def run(self, changes: Float32Array, last_values: NDArray[np.floating]) -> Float64Array:
        """``last_values`` [N, F] are in standard units, the targets' columns first."""
        steps = changes.reshape(len(changes), self.horizon, self.targets)
        forecast = (steps + last_values[:, None, : self.targets]).astype(np.float64)
        if self.mean is None or self.deviation is None:
            return forecast
        scaled: Float64Array = forecast * self.deviation + self.mean
        return scaled


RunnableBlock = (
    Embedding | Scale | Words | Recurrent | Linear | Activation | Last | Pooling | Forecast
)
