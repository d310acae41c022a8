"""The types that a cell's equations are written with.

``Value`` has the arithmetic that torch tensors, NumPy arrays and tracers have in common. It exists
for type checkers: at run time a step gets one of these three.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, Union

Operand = Union["Value", float]
"""The second operand of an arithmetic operation: a vector or a number."""

Array = TypeVar("Array")
"""An array of any library, or a tracer; functions return the type that they get."""


class Value(Protocol):
    """A vector inside a step, [..., width], or a parameter of the cell."""

    def __add__(self, operand: Operand, /) -> "Value": ...
    def __radd__(self, operand: Operand, /) -> "Value": ...
    def __sub__(self, operand: Operand, /) -> "Value": ...
    def __rsub__(self, operand: Operand, /) -> "Value": ...
    def __mul__(self, operand: Operand, /) -> "Value": ...
    def __rmul__(self, operand: Operand, /) -> "Value": ...
    def __truediv__(self, operand: Operand, /) -> "Value": ...
    def __rtruediv__(self, operand: Operand, /) -> "Value": ...
    def __pow__(self, operand: Operand, /) -> "Value": ...
    def __rpow__(self, operand: Operand, /) -> "Value": ...
    def __neg__(self) -> "Value": ...
    def __abs__(self) -> "Value": ...
    def __lt__(self, operand: Operand, /) -> "Value": ...
    def __le__(self, operand: Operand, /) -> "Value": ...
    def __gt__(self, operand: Operand, /) -> "Value": ...
    def __ge__(self, operand: Operand, /) -> "Value": ...
    def __eq__(self, operand: object, /) -> "Value": ...  # type: ignore[override]
    def __ne__(self, operand: object, /) -> "Value": ...  # type: ignore[override]


Activation = Callable[[Any], Any]
"""A function that keeps an array's shape: from this package, from torch, or a module."""

VectorFunction = Callable[[Value], Value]
"""An activation as a step calls it."""


class _Namespace:
    """Vectors by name."""

    _role: str

    def __init__(self, names: Iterable[str], values: Iterable[object]) -> None:
        self.__dict__.update(zip(names, values, strict=True))

    def __getattr__(self, name: str) -> Value:
        names = ", ".join(map(repr, self.__dict__))
        raise AttributeError(f"no {self._role} {name!r} among {names}")


class Gates(_Namespace):
    """The results of one product, by gate: ``x.r``, ``h.z``."""

    _role = "gate"


class State(_Namespace):
    """The states before the step, by name: ``state.h``, ``state.c``."""

    _role = "state"
