"""The programs of cells as the core reads them: a cache of traces, why a cell has no program, and
the order of parameters."""

from dataclasses import dataclass, field
from functools import lru_cache

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells._declaration import parameter_names
from unrolled.cells._frozen import key_of
from unrolled.program import TraceError, make_program
from unrolled.program._encode import encode, used_products

MAX_WIDTH = 1 << 24
"""The largest width of a state that the core's parser allows."""


@dataclass(frozen=True)
class ProgramText:
    """A cell's program as text, and the products that it uses; or why there is no program."""

    text: str
    refusal: str | None = None
    products: tuple[str, ...] = ()

    def matrix_names(self) -> tuple[str, ...]:
        """Names of the weight and the bias of each product: the order in which the core reads
        parameters. The cell's vectors follow them."""
        return tuple(name for key in self.products for name in parameter_names(key))

    def parameter_names(self, cell: Cell) -> tuple[str, ...]:
        """The names of all arrays that the core reads, in its order."""
        return (*self.matrix_names(), *cell.vectors)

    def sizes(self, sizes: Sizes) -> tuple[int, ...]:
        """The sizes with which the core reads the text: H, P, and I if the text has widths I."""
        return (sizes.H, sizes.P, sizes.I) if "I" in self.text else (sizes.H, sizes.P)


@dataclass(frozen=True)
class _CellKey:
    """A cell as the key of a cache: cells with equal settings have equal programs."""

    key: tuple[object, ...]
    cell: Cell = field(compare=False)


def traced_program(cell: Cell, projected: bool) -> ProgramText:
    """The program of a cell; with ``projected`` its output state passes through a projection."""
    return _traced_program(_CellKey(key_of(cell), cell), projected)


@lru_cache(maxsize=256)
def _traced_program(key: _CellKey, projected: bool) -> ProgramText:
    return _trace(key.cell, projected)


def _trace(cell: Cell, projected: bool) -> ProgramText:
    try:
        program = make_program(cell, projected)
        text = encode(program)
        is_stable = text == encode(make_program(cell, projected))
    except TraceError as error:
        return ProgramText("", str(error))
    refusal = (
        None if is_stable else f"cell {type(cell).__name__}: step must do the same in each call"
    )
    return ProgramText(text, refusal, tuple(used_products(program)))


def program_refusal(cell: Cell, sizes: Sizes) -> str | None:
    """Why the core has no program for a cell of these sizes, or None."""
    program = traced_program(cell, sizes.projected)
    for width in program.sizes(sizes):
        if not 1 <= width <= MAX_WIDTH:
            return f"the native core takes states of 1 to {MAX_WIDTH} units, got {width}"
    return program.refusal


@lru_cache(maxsize=256)
def load_program(text: str, *sizes: int) -> _core.Program:
    """Parse and schedule a program's text for sizes (``ProgramText.sizes``)."""
    return _core.Program(text, *sizes)


def needs_preparation(cell: Cell) -> bool:
    """Whether torch computes the core's parameters from those of the cell."""
    return type(cell).prepare is not Cell.prepare
