"""Reads values of a file by key, and checks their types."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unrolled._limits import brief

T = TypeVar("T")
_MAX_INTEGER = 10**15
"""An upper bound of all sizes; the reader in C++ has the same bound."""


class Fields:
    """The values of a dictionary by key, with checks of their types.

    ``owner`` is the start of error messages.
    """

    def __init__(self, owner: str, tree: object) -> None:
        if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
            raise TypeError(f"{owner}: must be a dictionary of names, got {type(tree).__name__}")
        self.owner = owner
        self._values: Mapping[str, object] = tree

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def value(self, name: str) -> object:
        if name not in self._values:
            raise ValueError(f"{self.owner}: {name} is missing")
        return self._values[name]

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise TypeError(f"{self.owner}: {name} must be a string, got {brief(value)}")
        return value

    def integer(self, name: str) -> int:
        return self._integer(name, self.value(name))

    def boolean(self, name: str) -> bool:
        value = self.value(name)
        if type(value) is not bool:
            raise TypeError(f"{self.owner}: {name} must be a boolean, got {brief(value)}")
        return value

    def fields(self, name: str) -> "Fields":
        return Fields(f"{self.owner}.{name}", self.value(name))

    def texts(self, name: str) -> list[str]:
        texts = [text for text in self.items(name) if isinstance(text, str)]
        if len(texts) != len(self.items(name)):
            raise TypeError(f"{self.owner}: {name} must be strings, got {brief(self.value(name))}")
        return texts

    def array(self, name: str) -> NDArray[np.generic]:
        value = self.value(name)
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{self.owner}: {name} must be an array, got {brief(value)}")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        return tuple(self._integer(name, value) for value in self.items(name))

    def _integer(self, name: str, value: object) -> int:
        if type(value) is not int or abs(value) >= _MAX_INTEGER:
            raise TypeError(
                f"{self.owner}: {name} must be a whole number of at most 15 digits, "
                f"got {brief(value)}"
            )
        return value

    def items(self, name: str) -> list[object] | tuple[object, ...]:
        return self.items_of(name, self.value(name))

    def items_of(self, name: str, value: object) -> list[object] | tuple[object, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{self.owner}: {name} must be a list, got {type(value).__name__}")
        return value

    def nullable(self, name: str, decode: Callable[[object], T]) -> T | None:
        value = self.value(name)
        return None if value is None else decode(value)
