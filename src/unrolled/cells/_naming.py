"""Finds the name under which a cell can be imported: that of a published cell, or the path of its
class.

Configurations and checkpoints contain these names, which ``unrolled.models.find_cell`` reads.
"""

import sys
from pathlib import Path
from types import ModuleType

from unrolled.cells._cell import Cell
from unrolled.cells._frozen import attributes_of


def cell_name(cell: Cell | type[Cell]) -> str:
    """``GRU`` for a published cell, ``package.module:MyCell`` or ``path/to/file.py:MyCell``.

    A cell object with settings is named by the variable of its module that holds it.

    Raises:
        ValueError: the cell cannot be imported: it is defined in a function or in an interactive
            session, or it has settings and no variable at the top level of a module.
    """
    if not isinstance(cell, type) and not _is_default(cell):
        return _object_name(cell)
    cls = cell if isinstance(cell, type) else type(cell)
    name = cls.__name__
    if getattr(sys.modules["unrolled.cells"], name, None) is cls:
        return name
    for key in (cls.__module__, "__main__"):
        module = sys.modules.get(key)
        path = _module_path(module)
        if path is not None and getattr(module, name, None) is cls:
            return f"{path}:{name}"
    raise ValueError(
        f"cell_name: cell must be importable by another process, got {name}, which is defined in "
        "a function or in an interactive session; write it at the top level of a file"
    )


def _object_name(cell: Cell) -> str:
    for module in [sys.modules["__main__"], *list(sys.modules.values())]:
        path = _module_path(module)
        names = [name for name, value in list(vars(module).items()) if value is cell and path]
        if names:
            return f"{path}:{names[0]}"
    raise ValueError(
        f"cell_name: cell must have a name, got {cell!r}, which has settings; write a subclass "
        "with these settings at the top level of a file, or assign the object to a variable there"
    )


def _is_default(cell: Cell) -> bool:
    """Whether a cell has the settings that its class has without arguments."""
    try:
        default = type(cell)()
    except TypeError:
        return False
    settings, defaults = attributes_of(cell), attributes_of(default)
    return settings.keys() == defaults.keys() and all(
        _equal(settings[key], defaults[key]) for key in settings
    )


def _equal(a: object, b: object) -> bool:
    """Whether two settings are equal; the comparison of arrays of several numbers is no bool."""
    try:
        return bool(a == b)
    except (RuntimeError, ValueError):
        return False


def _module_path(module: ModuleType | None) -> str | None:
    """The name of a module in a package, which it needs to run; else the path of its file."""
    if not isinstance(module, ModuleType):
        return None
    spec = getattr(module, "__spec__", None)
    package = None if spec is None else spec.parent
    if package and package in sys.modules and module.__name__ != "__main__":
        return module.__name__
    file = getattr(module, "__file__", None)
    return None if file is None or not Path(file).is_file() else str(Path(file).resolve())
