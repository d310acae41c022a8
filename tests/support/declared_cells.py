"""Declared cells: those of the library and of docs/decisions/0002, and one with two heads."""

import re
from typing import Any

from tests.support.paths import ROOT
from unrolled import cells
from unrolled.cells import Cell

__all__ = ["CELLS", "LIBRARY", "PAGE", "TwoHeads"]

PAGE = ROOT / "docs/decisions/0002-cell-declaration.md"


def _cells_of_page() -> dict[str, type[Cell]]:
    space: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(block, space)
    return {name: value for name, value in _cells_of(space) if value.__module__ == "page"}


def _cells_of(space: dict[str, Any]) -> list[tuple[str, type[Cell]]]:
    return [
        (name, value)
        for name, value in space.items()
        if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
    ]


class TwoHeads(cells.SLSTM):
    """The block-diagonal form of a cell whose default is dense."""

    def __init__(self) -> None:
        super().__init__(heads=2, forget="exp")


LIBRARY = dict(_cells_of({name: getattr(cells, name) for name in cells.__all__}))
CELLS = LIBRARY | _cells_of_page() | {"TwoHeads": TwoHeads}
