"""Recurrent layers from the name of their cell: a published one, or a class in a user's file."""

import difflib
import re
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import torch
from typing_extensions import Unpack

from unrolled import cells, nn
from unrolled.cells import Cell
from unrolled.models._user_code import CodeError, import_by_name, load_python_file
from unrolled.nn._arguments import as_cell
from unrolled.nn.types import Device

CellLike = str | Cell | type[Cell]
"""A cell, its class, or a name that `find_cell` knows."""

_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class CellNameError(ValueError):
    """There is no cell of this name; the message lists the valid ones."""


class StackOptions(TypedDict, total=False):
    """Options of :class:`unrolled.nn.Recurrent`, except its sizes."""

    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    device: Device
    dtype: torch.dtype | None
    merge: str
    checkpoint: int | bool


def published_cells() -> dict[str, type[Cell]]:
    """The cells of ``unrolled.cells`` by name."""
    exported = {name: getattr(cells, name) for name in cells.__all__}
    return {name: value for name, value in exported.items() if _is_cell_class(value)}


def find_cell(name: CellLike) -> Cell | type[Cell]:
    """A cell by its name: a published one, in upper or lower case, or a class as
    ``path/to/file.py:MyCell`` or ``package.module:MyCell``. A cell or a class is returned as is.

    Raises:
        CellNameError: there is no cell of this name, or the file cannot be run or lacks the class.
        TypeError: the argument is neither a name nor a cell.
    """
    if not isinstance(name, str):
        return name if isinstance(name, type) and issubclass(name, Cell) else as_cell(name)
    module, colon, attribute = name.rpartition(":")
    if colon:
        return _cell_from_module(module, attribute)
    published = published_cells()
    names = {key.casefold(): key for key in published}
    key = names.get(name.casefold())
    if key is None:
        similar = difflib.get_close_matches(name.casefold(), names, 1)
        hint = f"; did you mean {names[similar[0]]}?" if similar else ""
        raise CellNameError(
            f"find_cell: cell must be one of {', '.join(published)}, or path/to/file.py:MyCell, "
            f"got {name!r}{hint}"
        )
    return published[key]


def make_stack(
    cell: CellLike, input_size: int, hidden_size: int, **options: Unpack[StackOptions]
) -> nn.Recurrent:
    """Recurrent layers of a cell; ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` for the classic cells.

    Raises:
        CellNameError: see ``find_cell``.
        unrolled.cells.CellError: the declaration of the cell is inconsistent.
    """
    cell = find_cell(cell)
    if cell is cells.RNN:
        return nn.RNN(input_size, hidden_size, **options)
    if cell is cells.LSTM:
        return nn.LSTM(input_size, hidden_size, **options)
    if cell is cells.GRU:
        return nn.GRU(input_size, hidden_size, **options)
    return nn.Recurrent(cell, input_size, hidden_size, **options)


def _cell_from_module(path: str, name: str) -> Cell | type[Cell]:
    """A cell of a file, or of a module by its dotted name."""
    try:
        dotted = _DOTTED_NAME.fullmatch(path) and not path.endswith(".py")
        module = import_by_name(path) if dotted else load_python_file(Path(path))
    except CodeError as error:
        raise CellNameError(f"find_cell: {error}") from error
    value: object = getattr(module, name, None)
    if isinstance(value, Cell):
        return value
    if isinstance(value, type) and issubclass(value, Cell) and value is not Cell:
        return value
    names = [key for key, value in vars(module).items() if _is_defined_in(module, value)]
    raise CellNameError(
        f"find_cell: {path} must have a subclass of unrolled.cells.Cell called {name!r}, "
        f"got {', '.join(names) or 'none'}"
    )


def _is_cell_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Cell) and value is not Cell


def _is_defined_in(module: ModuleType, value: object) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Cell) and value.__module__ == module.__name__
    )
