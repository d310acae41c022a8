"""Cells are immutable once they are built, and equal if their settings are equal.

A program that was traced from a cell therefore stays valid; ``key_of`` is the key of its cache.
"""

import copy
import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from typing import Self, TypeVar

from unrolled.cells._declaration import Product, Vector
from unrolled.cells._settings import check_settings

_BOOKKEEPING = frozenset({"_frozen", "_arguments"})
_DERIVED = frozenset({"_key", "_vectors", "_products"})
_SCALARS = (bool, int, str, bytes, complex, type(None), Product, Vector)


class CellType(ABCMeta):
    """Metaclass of cells: attributes of a cell cannot change after ``__init__``, and attributes of
    a class cannot change once it has an instance."""

    def __call__(cls, *args: object, **settings: object) -> object:
        """Build a cell; the error for other arguments says that a layer may take them."""
        if args or settings:
            check_settings(cls, args, settings)
        cell: FrozenAttributes = super().__call__(*args, **settings)
        vars(cell).update(_frozen=True, _arguments=(args, settings))
        for base in cls.__mro__:
            if isinstance(base, CellType):
                type.__setattr__(base, "_has_instances", True)
        return cell

    @property
    def __signature__(cls) -> inspect.Signature:
        signature = inspect.signature(initializer(cls))
        parameters = list(signature.parameters.values())[1:]
        return signature.replace(parameters=parameters, return_annotation=signature.empty)

    def __setattr__(cls, name: str, value: object) -> None:
        cls._check_no_instance(name)
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        cls._check_no_instance(name)
        super().__delattr__(name)

    def _check_no_instance(cls, name: str) -> None:
        if "_has_instances" in vars(cls) and not name.startswith("__"):
            raise AttributeError(
                f"{cls.__name__}: {name} must not be changed once a cell of the class is built; "
                "derive a class from it"
            )


class FrozenAttributes(metaclass=CellType):
    """Attributes that can be set only in ``__init__``, and equality by their values."""

    def __setattr__(self, name: str, value: object) -> None:
        self._check_unfrozen(name, repr(value))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._check_unfrozen(name, "…")
        super().__delattr__(name)

    def _check_unfrozen(self, name: str, value: str) -> None:
        if "_frozen" not in vars(self):
            return
        advice = f"use cell.replace({name}={value}), which returns another cell"
        if name not in inspect.signature(type(self)).parameters:
            advice = f"set it in __init__, where self.{name} = {value} is allowed"
        raise FrozenInstanceError(
            f"{type(self).__name__}: {name} must not be changed once the cell is built; {advice}"
        )

    def replace(self, **settings: object) -> Self:
        """A cell of the same class, with other settings: ``cell.replace(beta=2)``.

        Raises:
            TypeError: ``__init__`` has no argument of that name.
        """
        cls = type(self)
        args, keywords = vars(self)["_arguments"]
        bound = inspect.signature(cls).bind(*args, **keywords)
        for name, value in settings.items():
            parameter = bound.signature.parameters.get(name)
            if parameter is None or parameter.kind in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            ):
                names = ", ".join(bound.signature.parameters) or "none"
                raise TypeError(
                    f"{cls.__name__}.replace: {name} must be a setting (those of the cell: {names})"
                )
            bound.arguments[name] = value
        in_order = {
            n: bound.arguments[n] for n in bound.signature.parameters if n in bound.arguments
        }
        bound = inspect.BoundArguments(bound.signature, in_order)
        return cls(*bound.args, **bound.kwargs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenAttributes):
            return NotImplemented
        return key_of(self) == key_of(other)

    def __hash__(self) -> int:
        return hash(key_of(self))

    def __getstate__(self) -> dict[str, object]:
        """Values cached from the settings are neither copied nor pickled."""
        return {name: value for name, value in list(vars(self).items()) if name not in _DERIVED}


Frozen = TypeVar("Frozen", bound=FrozenAttributes)


def initializer(cls: type) -> Callable[..., object]:
    """The ``__init__`` of a class, or a method without arguments if it defines none."""
    method: Callable[..., object] = getattr(cls, "__init__")  # noqa: B009
    return _no_arguments if method is object.__init__ else method


def attributes_of(cell: FrozenAttributes) -> dict[str, object]:
    """The attributes set in the ``__init__`` of a cell."""
    hidden = _BOOKKEEPING | _DERIVED
    return {name: value for name, value in list(vars(cell).items()) if name not in hidden}


def copy_with(cell: Frozen, attributes: Mapping[str, object]) -> Frozen:
    """A copy of a cell with other attributes, to run its step; ``__init__`` is not called."""
    copied = copy.copy(cell)
    vars(copied).update(attributes)
    return copied


def key_of(cell: FrozenAttributes) -> tuple[object, ...]:
    """The class of a cell and its attributes, hashable: equal for cells with equal programs.

    Numbers, strings and tuples of them are compared by value, all else by identity. ``==`` compares
    keys, unless the cell's class defines another equality.
    """
    cached: tuple[object, ...] | None = vars(cell).get("_key")
    if cached is not None:
        return cached
    attributes = sorted(attributes_of(cell).items())
    key = (type(cell), *((name, _value_key(value)) for name, value in attributes))
    if "_frozen" in vars(cell):
        vars(cell)["_key"] = key
    return key


class _Identity:
    """Compares a value by identity, and keeps it alive so that its id is not reused."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _value_key(value: object) -> object:
    if type(value) is float:
        return float, repr(value)  # repr tells -0.0 from 0.0, and equals itself for NaN
    if type(value) in _SCALARS:
        return type(value), value
    if type(value) is tuple:
        return tuple, tuple(map(_value_key, value))
    return _Identity(value)


def _no_arguments(self: object) -> None:
    pass
