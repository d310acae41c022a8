"""A recurrent stack from the name of its cell: a published one, or a class in a user's file."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from unrolled import cells, nn
from unrolled.cells import Cell
from unrolled.models.user_code import CodeError, import_by_name, load_python_file

__all__ = [
    "CellLike",
    "CellNameError",
    "Lengths",
    "State",
    "find_cell",
    "make_stack",
    "published_cells",
]

CellLike = str | Cell | type[Cell]
"""A cell, its class, or a name of it."""
State = Tensor | tuple[Tensor, ...]
"""What a layer carries: [L·D, N, width], a tuple of such where the cell has several states."""
Lengths = Tensor | Sequence[int]
"""Of the sequences of a batch, `[N]`."""


_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class CellNameError(ValueError):
    """No cell can be had by a name; the message says what was wanted."""


def published_cells() -> dict[str, type[Cell]]:
    """The cells of ``unrolled.cells`` by name."""
    found = {name: getattr(cells, name) for name in cells.__all__}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
    }


def find_cell(name: CellLike) -> Cell | type[Cell]:
    """A cell by name: published, in any case of letters, or ``path/to/file.py:MyCell``,
    ``package.module:MyCell``. A cell or its class is what it is.

    Raises:
        CellNameError: there is none of that name, or the file cannot be run or lacks the class.
        TypeError: it is neither a name nor a cell.
    """
    if not isinstance(name, str):
        return name if isinstance(name, type) and issubclass(name, Cell) else nn.as_cell(name)
    file, colon, own = name.rpartition(":")
    if colon:
        return _from_module(file, own)
    known = published_cells()
    folded = {key.casefold(): key for key in known}
    key = folded.get(name.casefold())
    if key is None:
        near = difflib.get_close_matches(name.casefold(), folded, 1)
        hint = f"; did you mean {folded[near[0]]}?" if near else ""
        raise CellNameError(
            f"cell: wanted one of {', '.join(known)}, or path/to/file.py:MyCell, got {name!r}{hint}"
        )
    return known[key]


def make_stack(cell: CellLike, input_size: int, hidden_size: int, **options: Any) -> nn.Recurrent:
    """Layers of that cell, or of the cell of that name; ``options`` are those of
    :class:`unrolled.nn.Recurrent`.

    Raises:
        CellNameError: see ``find_cell``.
        unrolled.cells.CellError: the cell contradicts itself.
    """
    found = find_cell(cell)
    classic: dict[Any, Any] = {cells.RNN: nn.RNN, cells.LSTM: nn.LSTM, cells.GRU: nn.GRU}
    if found in classic:
        return classic[found](input_size, hidden_size, **options)
    return nn.Recurrent(found, input_size, hidden_size, **options)


def _from_module(place: str, name: str) -> Cell | type[Cell]:
    """Of a file, or of a module by its dotted name."""
    try:
        dotted = _DOTTED.fullmatch(place) and not place.endswith(".py")
        module = import_by_name(place) if dotted else load_python_file(Path(place))
    except CodeError as error:
        raise CellNameError(f"cell: {error}") from error
    found = getattr(module, name, None)
    if isinstance(found, Cell):
        return found
    if not (isinstance(found, type) and issubclass(found, Cell) and found is not Cell):
        kinds = [key for key, value in vars(module).items() if _is_own(value, module)]
        raise CellNameError(
            f"cell: wanted a subclass of unrolled.cells.Cell called {name!r} in {place}, "
            f"which has {', '.join(kinds) or 'none'}"
        )
    return found


def _is_own(value: Any, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Cell) and value.__module__ == module.__name__
    )
