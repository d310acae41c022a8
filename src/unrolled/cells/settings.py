"""Checks of what cells are built with. Each error names the setting, what was wanted, what came."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any


def check_settings(cls: Any, args: tuple[Any, ...], settings: Mapping[str, Any]) -> None:
    """Hold the arguments of a cell to its ``__init__``; others may be meant for a layer."""
    try:
        if cls.__init__ is object.__init__:
            raise TypeError("it takes none")
        inspect.signature(cls.__init__).bind(None, *args, **settings)
    except TypeError as error:
        published = cls.__module__.startswith("unrolled.cells.")
        name = f"unrolled.cells.{cls.__name__}" if published else cls.__name__
        raise TypeError(
            f"the cell {cls.__name__} does not take these arguments ({error}): it is equations "
            "without sizes; layers have sizes: "
            f"unrolled.nn.Recurrent({name}, input_size, hidden_size)"
        ) from None


def number(name: str, value: Any) -> float:
    """A finite number, as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """A number greater than zero."""
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be greater than zero, got {value!r}")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """A number that is zero or greater."""
    if number(name, value) < 0:
        raise ValueError(f"{name} must be zero or greater, got {value!r}")
    return float(value)


def count(name: str, value: Any) -> int:
    """An int of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def interval(name: str, value: Any) -> tuple[float, float]:
    """Two numbers, the smaller first."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (low, high), got {value!r}")
    low, high = (number(f"{name}[{k}]", end) for k, end in enumerate(value))
    if low > high:
        raise ValueError(f"{name} must be a pair (low, high) with low ≤ high, got {value!r}")
    return low, high


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the given words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def function(name: str, value: Any) -> Callable[[Any], Any]:
    """What can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
    return value
