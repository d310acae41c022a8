"""What the core is told: programs, addresses, the tensors that a run reads and writes.

The core gets addresses; every tensor that it writes is made here. Autograd is left to ``native``,
graphs to ``operator``.
"""

import copy
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.packed import find_plan
from unrolled.engines.ragged import Ragged
from unrolled.program import TraceError, make_program
from unrolled.program.encode import encode, used_products

forced_build: ContextVar[str] = ContextVar("forced build of the kernels", default="")


@dataclass(frozen=True)
class Where:
    """Which row of the caller's arrays each token is, step by step, longest sequence first.

    Token (t, n) is row ``base + t * stride_t + n * stride_n``; in a ragged batch step t has
    ``counts[t]`` tokens, and ``table`` [total] has the row of each.
    """

    T: int
    N: int
    rows: int
    base: int = 0
    stride_t: int = 0
    stride_n: int = 0
    counts: Tensor | None = None
    table: Tensor | None = None

    @property
    def total(self) -> int:
        return self.T * self.N if self.table is None else len(self.table)


def ragged_rows(counts: list[int], N: int, rows: int, table: Tensor) -> Where:
    """The rows of steps of so many tokens each. Under torch.func new tensors come wrapped."""
    sizes = torch.tensor(counts, device="cpu")
    wrapped, inside = torch._C._functorch.is_functorch_wrapped_tensor, torch._C._functorch
    while wrapped(sizes):
        sizes = inside.get_unwrapped(sizes)
    while wrapped(table):
        table = inside.get_unwrapped(table)
    return Where(len(counts), N, rows, counts=sizes, table=table)


def locate(ragged: Ragged, reverse: bool) -> Where:
    """The rows of a ragged batch without resets."""
    T, N = ragged.T, ragged.N
    if ragged.lengths is None:
        stride_t, stride_n = (1, T) if ragged.major == "batch" else (N, 1)
        base, stride_t = ((T - 1) * stride_t, -stride_t) if reverse else (0, stride_t)
        return Where(T, N, T * N, base, stride_t, stride_n)
    plan = find_plan(ragged, reverse)
    return ragged_rows(plan.batch_sizes, N, ragged.rows, plan.row)


@dataclass(frozen=True)
class Recorded:
    """A cell's program as text, or why there is none, and the products that it uses."""

    text: str
    why: str | None = None
    products: tuple[str, ...] = ()


def recorded(cell: Cell, projected: bool) -> Recorded:
    """The program of a cell, traced again when a setting of the cell changed."""
    known: dict[bool, tuple[Any, Recorded]] = vars(cell).setdefault("_texts", {})
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


def settings_of(cell: Cell) -> list[Any]:
    """Everything that a step may read of a cell: a program holds for these values only."""
    spaces = [vars(cell), *(vars(cls) for cls in type(cell).__mro__[:-2])]
    return [value for space in spaces for name, value in space.items() if name[0] != "_"]


def _same(a: Any, b: Any) -> bool:
    return a is b


@lru_cache(maxsize=256)
def load(text: str, H: int, P: int) -> _core.Program:
    """A program's text for given sizes, read and scheduled by the core."""
    return _core.Program(text, H, P)


def dense(cell: Cell, sizes: Sizes, prepared: dict[str, Tensor]) -> tuple[Cell, dict[str, Tensor]]:
    """Block-diagonal products as dense ones: the core knows no blocks."""
    split = {key: p for key, p in cell.products(sizes).items() if p.blocks > 1}
    if not split:
        return cell, prepared
    known = vars(cell).setdefault("_whole", {})
    if not known:
        known["cell"] = copy.copy(cell)
        for key in ("_found", "_texts", "_whole"):
            vars(known["cell"]).pop(key, None)
        declared = {key: getattr(cell, key) for key in split}
        vars(known["cell"]).update({key: replace(p, blocks=1) for key, p in declared.items()})
    prepared = dict(prepared)
    for key, p in split.items():
        name = parameter_names(key)[0]
        parts, K = max(1, len(p.targets)), prepared[name].shape[1]
        rows = prepared[name].reshape(parts, p.blocks, -1, 1, K)
        diagonal = torch.eye(p.blocks, dtype=torch.bool, device="cpu")[:, None, :, None]
        prepared[name] = torch.where(diagonal, rows, 0.0).reshape(-1, p.blocks * K)
    return known["cell"], prepared


@dataclass(slots=True)
class Given:
    """What a run reads, in the core's order: a weight and a bias (or None) for each product."""

    program: _core.Program
    where: Where
    build: str
    tokens: Tensor  # [..., I], the leading dimensions are the rows
    matrices: list[Tensor | None]
    vectors: list[Tensor]
    initial: list[Tensor | None]  # [N, width]; None: zeros

    def arrays(
        self, output: Tensor, saved: Tensor | None, final: Sequence[Tensor | None]
    ) -> list[int]:
        """Addresses and sizes of everything, with what forward writes."""
        where = self.where
        listed = [where.counts, where.table, self.tokens, output, saved]
        return addresses([*listed, *self.matrices, *self.vectors, *self.initial, *final])

    def sizes(self) -> list[int]:
        """The sizes of a run, as the core takes them."""
        w, threads = self.where, torch.get_num_threads()
        return [w.T, w.N, self.tokens.shape[-1], w.rows, w.base, w.stride_t, w.stride_n, threads]

    @property
    def wide(self) -> bool:
        return self.tokens.dtype == torch.float64


Form = tuple[tuple[int, ...], ...]
"""Shapes of the final states, [..., N, width] each."""


def run_forward(
    given: Given, form: Form, training: bool
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Output [..., P], final states, and what backward needs."""
    like, where = given.tokens, given.where
    make = like.new_empty if where.total == where.rows else like.new_zeros
    output = make((*like.shape[:-1], form[0][-1]))
    final = [like.new_empty(shape) for shape in form]
    keep = like.new_empty if given.program.saved_whole else like.new_zeros
    saved = keep((where.total, given.program.saved_width)) if training else None
    arrays = given.arrays(output, saved, final)
    _core.forward(given.program, given.build, given.wide, given.sizes(), arrays)
    return output, final, saved


@dataclass(slots=True)
class Wanted:
    """Which gradients a run backward makes."""

    tokens: bool
    initial: list[bool]
    matrices: list[bool]
    vectors: list[bool]


@dataclass(slots=True)
class Found:
    """Gradients, None where none was wanted."""

    tokens: Tensor | None
    initial: list[Tensor | None]
    matrices: list[Tensor | None]
    vectors: list[Tensor | None]


def run_backward(
    given: Given,
    form: Form,
    output: Tensor,
    saved: Tensor,
    slopes: list[Tensor | None],
    wanted: Wanted,
) -> Found:
    """Gradients from those of the output and of the final states (None: zeros)."""
    like, where = given.tokens, given.where
    make = torch.empty_like if where.total == where.rows else torch.zeros_like
    found = Found(
        make(like) if wanted.tokens else None,
        [
            like.new_empty(shape) if want else None
            for shape, want in zip(form, wanted.initial, strict=True)
        ],
        [
            torch.empty_like(matrix) if want and matrix is not None else None
            for matrix, want in zip(given.matrices, wanted.matrices, strict=True)
        ],
        [
            torch.empty_like(vector) if want else None
            for vector, want in zip(given.vectors, wanted.vectors, strict=True)
        ],
    )
    slopes = [None if slope is None else slope.contiguous() for slope in slopes]
    made = [*slopes, found.tokens, *found.initial, *found.vectors, *found.matrices]
    arrays = given.arrays(output, saved, [None] * len(form)) + addresses(made)
    _core.backward(given.program, given.build, given.wide, given.sizes(), arrays)
    return found


def addresses(tensors: list[Tensor | None]) -> list[int]:
    """Address and number of elements of each; zeros for none."""
    found: list[int] = []
    for tensor in tensors:
        found += (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel())
    return found
