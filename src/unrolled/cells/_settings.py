"""Checks of the settings of cells. Each error names the setting, what it must be, and its value."""

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real

from unrolled.cells._values import Activation, VectorFunction


def check_settings(cls: type, args: tuple[object, ...], settings: Mapping[str, object]) -> None:
    """Check that the ``__init__`` of a cell takes these arguments; sizes are meant for a layer."""
    try:
        signature = inspect.signature(cls)
        if not signature.parameters:
            raise TypeError("it takes none")
        signature.bind(*args, **settings)
    except TypeError as error:
        published = cls.__module__.startswith("unrolled.cells.")
        name = f"unrolled.cells.{cls.__name__}" if published else cls.__name__
        raise TypeError(
            f"the cell {cls.__name__} does not take these arguments ({error}): it is equations "
            "without sizes; layers have sizes: "
            f"unrolled.nn.Recurrent({name}, input_size, hidden_size)"
        ) from None


def number(name: str, value: object) -> float:
    """A finite number, as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """A number greater than zero."""
    result = number(name, value)
    if result <= 0:
        raise ValueError(f"{name} must be greater than zero, got {value!r}")
    return result


def not_negative(name: str, value: object) -> float:
    """A number that is zero or greater."""
    result = number(name, value)
    if result < 0:
        raise ValueError(f"{name} must be zero or greater, got {value!r}")
    return result


def count(name: str, value: object) -> int:
    """An int of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def interval(name: str, value: object) -> tuple[float, float]:
    """Two numbers, the smaller first."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (low, high), got {value!r}")
    low, high = (number(f"{name}[{k}]", bound) for k, bound in enumerate(value))
    if low > high:
        raise ValueError(f"{name} must be a pair (low, high) with low ≤ high, got {value!r}")
    return low, high


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """One of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def function(name: str, value: Activation) -> VectorFunction:
    """A function, or another object that can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
    return value
