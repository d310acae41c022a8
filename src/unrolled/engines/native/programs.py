"""The programs of cells: trace cache, refusals, block-diagonal weights, the order of parameters."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.program import TraceError, make_program
from unrolled.program.encode import encode, used_products

WIDEST = 1 << 24
"""Units of a state, at most: what the core's reader of programs allows."""


@dataclass(frozen=True)
class Recorded:
    """A cell's program as text, or why there is none, and the products that it uses."""

    text: str
    why: str | None = None
    products: tuple[str, ...] = ()


def recorded(cell: Cell, projected: bool) -> Recorded:
    """The program of a cell, traced again when a setting of the cell changed."""
    plain = type(cell).__module__.startswith("unrolled.cells.") and not _set(cell)
    known: dict[bool, tuple[Any, Recorded]]
    known = _shared.setdefault(type(cell), {}) if plain else vars(cell).setdefault("_texts", {})
    settings = settings_of(cell)
    if projected in known:
        before, found = known[projected]
        if len(before) == len(settings) and all(map(_same, before, settings)):
            return found
    try:
        program = make_program(cell, projected)
        text, again = encode(program), encode(make_program(cell, projected))
        why = None if text == again else f"cell {type(cell).__name__}: each step differs by itself"
        found = Recorded(text, why, tuple(used_products(program)))
    except TraceError as error:
        found = Recorded("", str(error))
    known[projected] = (settings, found)
    return found


def refusal(cell: Cell, sizes: Sizes) -> str | None:
    """None, or why the core has no program for a cell of these sizes."""
    found = recorded(cell, sizes.projected)
    for width in (sizes.H, sizes.P, sizes.I)[: 2 + _reads_input_size(found.text)]:
        if not 1 <= width <= WIDEST:
            return f"the native core takes states of 1 to {WIDEST} units, got {width}"
    return found.why


_shared: dict[type[Cell], dict[bool, tuple[Any, Recorded]]] = {}
"""Programs of the library's cells without settings: each layer has a cell of its own."""


def _set(cell: Cell) -> list[str]:
    return [name for name in list(vars(cell)) if name[0] != "_"]


def settings_of(cell: Cell) -> list[Any]:
    """Everything that a step may read of a cell: a program holds for these values only."""
    spaces = [vars(cell), *(vars(cls) for cls in type(cell).__mro__[:-2])]
    # Listed at once: another thread may find something for the same cell meanwhile.
    return [value for space in spaces for name, value in list(space.items()) if name[0] != "_"]


def _same(a: Any, b: Any) -> bool:
    return a is b


def letters(text: str, sizes: Sizes) -> tuple[int, ...]:
    """The sizes that a program's text is read with: H, P, and I where a width of it is I."""
    return (sizes.H, sizes.P, sizes.I)[: 2 + _reads_input_size(text)]


def _reads_input_size(text: str) -> bool:
    return "I" in text  # capitals are sizes alone


@lru_cache(maxsize=256)
def load(text: str, *sizes: int) -> _core.Program:
    """A program's text for given sizes (see ``letters``), read and scheduled by the core."""
    return _core.Program(text, *sizes)


def split_products(cell: Cell, sizes: Sizes) -> tuple[tuple[str, int, int], ...]:
    """The weights in blocks: name, parts (targets) and blocks of each part."""
    return tuple(
        (parameter_names(key)[0], max(1, len(p.targets)), p.blocks)
        for key, p in cell.products(sizes).items()
        if p.blocks > 1
    )


def prepared_in_torch(cell: Cell, sizes: Sizes) -> bool:
    """Whether the core's parameters are made from the cell's, by operations of torch."""
    return type(cell).prepare is not Cell.prepare or bool(split_products(cell, sizes))


def undivided(cell: Cell, sizes: Sizes) -> Cell:
    """The cell with dense products in place of block-diagonal ones: the core knows no blocks."""
    split = [key for key, p in cell.products(sizes).items() if p.blocks > 1]
    if not split:
        return cell
    known: Cell | None = vars(cell).get("_whole")
    if known is None:
        known = copy.copy(cell)
        declared = {key: getattr(cell, key) for key in split}
        vars(known).update({key: replace(p, blocks=1) for key, p in declared.items()})
        vars(cell)["_whole"] = known  # when it is whole: another thread may look for it
    return known


def whole_weight(weight: Tensor, parts: int, blocks: int) -> Tensor:
    """The matrix of a block-diagonal weight [parts * width, K / blocks], with its zeros."""
    K = weight.shape[1]
    rows = weight.reshape(parts, blocks, -1, 1, K)
    diagonal = torch.eye(blocks, dtype=torch.bool, device="cpu")[:, None, :, None]
    return torch.where(diagonal, rows, 0.0).reshape(-1, blocks * K)
