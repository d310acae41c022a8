"""The name by which a cell is found again: that of a published one, or where its class stands.

Configurations and checkpoints hold names, no objects. ``unrolled.models.find_cell`` reads them.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from unrolled.cells.declaration import Cell


def place_of(cell: Cell | type[Cell]) -> str:
    """``GRU`` for a published cell, ``package.module:MyCell`` or ``path/to/file.py:MyCell``.

    A cell object with settings is found by the name that its module has for it.

    Raises:
        ValueError: it cannot be found again: it stands in a function, in an interactive session,
            or has settings that no name says.
    """
    if not isinstance(cell, type) and not _plain(cell):
        return _place_of_object(cell)
    cls = cell if isinstance(cell, type) else type(cell)
    name = cls.__name__
    if getattr(sys.modules["unrolled.cells"], name, None) is cls:
        return name
    for key in (cls.__module__, "__main__"):
        module = sys.modules.get(key)
        place = _place_of_module(module)
        if place is not None and getattr(module, name, None) is cls:
            return f"{place}:{name}"
    raise ValueError(
        f"cell: {name} cannot be found again by another process: it stands in a function or in an "
        "interactive session; write it at the top level of a file"
    )


def _place_of_object(cell: Cell) -> str:
    for module in [sys.modules["__main__"], *list(sys.modules.values())]:
        place = _place_of_module(module)
        found = [name for name, value in list(vars(module).items()) if value is cell and place]
        if found:
            return f"{place}:{found[0]}"
    raise ValueError(
        f"cell: {cell!r} has settings, which no name says: write a subclass with these settings at "
        "the top level of a file, or give the object a name there"
    )


def _plain(cell: Cell) -> bool:
    """Whether a cell is what its class makes without arguments."""
    try:
        other = type(cell)()
    except TypeError:
        return False
    mine, default = _settings(cell), _settings(other)
    return mine.keys() == default.keys() and all(_equal(mine[key], default[key]) for key in mine)


def _equal(value: Any, other: Any) -> bool:
    """Whether two settings are equal; arrays of several numbers do not say."""
    try:
        return bool(value == other)
    except (RuntimeError, ValueError):
        return False


def _settings(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in vars(cell).items() if name[0] != "_"}


def _place_of_module(module: ModuleType | None) -> str | None:
    """A module of a package by its name, which it needs to run; another by its file."""
    if not isinstance(module, ModuleType):
        return None
    spec = getattr(module, "__spec__", None)
    package = None if spec is None else spec.parent
    if package and package in sys.modules and module.__name__ != "__main__":
        return module.__name__
    file = getattr(module, "__file__", None)
    return None if file is None or not Path(file).is_file() else str(Path(file).resolve())
