"""First and last parts of some models: a tagger's words, a forecaster's forecasts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unrolled.runtime.blocks import (
    Activation,
    Embedding,
    Last,
    Linear,
    Plan,
    Pooling,
    Recurrent,
    Scale,
)

__all__ = ["Forecast", "RunnableBlock", "Words"]


class Words:
    """Words by number beside how they are spelt: E(w) and the ends of layers over the characters.

    Reads words [T, N], characters [C, T·N] (those of word (t, n) in column t·N + n) and how many
    characters each word has, [T·N], 0 where no word is; makes [T, N, width].
    """

    def __init__(self, words: Embedding, characters: Embedding, spelling: Recurrent) -> None:
        self.words, self.characters, self.spelling = words, characters, spelling

    @property
    def width(self) -> int:
        return self.words.width + self.spelling.width

    def check(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three as arrays.

        Raises:
            TypeError: they are not three.
            ValueError: their shapes are not what was wanted.
        """
        if not isinstance(x, tuple | list) or len(x) != 3:
            raise TypeError(
                f"x: wanted (words, characters, spellings), as encode gives, got {type(x).__name__}"
            )
        words, characters, spellings = (np.asarray(part) for part in x)
        if words.ndim != 2 or 0 in words.shape:
            raise ValueError(f"x: wanted words [T, N], got shape {list(words.shape)}")
        C, count = len(characters) if characters.ndim else 0, words.size
        if characters.shape != (C, count) or C < 1 or spellings.shape != (count,):
            got = f"{list(characters.shape)} and {list(spellings.shape)}"
            raise ValueError(
                f"x: wanted characters [C, {count}] and spellings [{count}], got {got}"
            )
        if spellings.dtype.kind not in "iu" or spellings.min() < 0 or spellings.max() > C:
            raise ValueError(f"x: wanted spellings, whole numbers from 0 to {C}")
        return words, characters, spellings

    def run(self, x: tuple[np.ndarray, np.ndarray, np.ndarray], threads: int) -> np.ndarray:
        """[T, N, width]."""
        words, characters, spellings = x
        plan = Plan(len(characters), words.size, spellings.astype(np.int64))
        begin = self.spelling.begin(words.size)
        _, states = self.spelling.run(self.characters.run(characters), plan, begin, threads)
        spelt = self.spelling.ends(states).reshape(*words.shape, -1)
        return np.concatenate([self.words.run(words), spelt], -1)


@dataclass(frozen=True)
class Forecast:
    """Changes [N, K·targets] from the last values known to forecasts [N, K, targets], in float64.

    ``mean`` and ``deviation`` [targets] bring them from standard units to the data's own; None
    leaves them.
    """

    horizon: int
    targets: int
    mean: np.ndarray | None
    deviation: np.ndarray | None

    def run(self, changes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """``known`` [N, F] are the last values, in standard units, those to forecast first."""
        made = changes.reshape(len(changes), self.horizon, self.targets)
        found = (made + known[:, None, : self.targets]).astype(np.float64)
        if self.mean is None or self.deviation is None:
            return found
        return found * self.deviation + self.mean


RunnableBlock = (
    Embedding | Scale | Words | Recurrent | Linear | Activation | Last | Pooling | Forecast
)
