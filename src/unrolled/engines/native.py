"""The native engine: the cell's program, and its derived gradient, in the C++ core.

The core gets addresses; every tensor it writes is made here. Second derivatives re-run the plain
loop inside of backward, which is where torch asks for them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.loop import run_loop
from unrolled.engines.packed import find_plan, run_packed
from unrolled.engines.ragged import Ragged
from unrolled.engines.sweep import HALF, Run, States, Sweep, batched
from unrolled.program import TraceError, make_program
from unrolled.program.encode import encode, used_products

name = "native"

_build: ContextVar[str] = ContextVar("forced build of the kernels", default="")


def supports(sweep: Sweep) -> str | None:
    """None, or why the core cannot run this sweep."""
    if sweep.values.device.type != "cpu":
        return "the native core runs on the CPU"
    if sweep.values.dtype not in (torch.float32, torch.float64, *HALF):
        return f"the native core has no arithmetic for {sweep.values.dtype}"
    if sweep.transformed:
        return "the native core has no rules yet for vmap and forward-mode derivatives"
    if _watched(sweep.values):
        return "what traces or fakes tensors sees no addresses"
    if torch._C._is_any_autocast_enabled():
        return "the native core does not follow autocast yet"
    return _recorded(sweep.cell, sweep.sizes.projected).why


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states; half precision is computed in float32, state included."""
    if sweep.ragged.resets is not None:
        return run_packed(sweep, _run_packed(sweep.sizes))
    where = _where(sweep.ragged, sweep.reverse)
    return _widened(sweep.cell, sweep.sizes, where, sweep.values, sweep.states, sweep.parameters)


def _run_packed(sizes: Sizes) -> Run:
    def native(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        T, N, total = len(batch_sizes), states[0].shape[0], tokens.shape[0]
        counts = torch.tensor(batch_sizes, device="cpu")
        rows = torch.arange(total, device="cpu")
        where = Where(T, N, total, counts=counts, table=rows)
        return _widened(cell, sizes, where, tokens, states, parameters)

    return native


@dataclass(frozen=True)
class Where:
    """Which row of the caller's arrays each token is, step by step, longest sequence first.

    Token (t, n) is row ``base + t * stride_t + n * stride_n``; in a ragged batch step t has ``counts[t]``
    tokens, and ``table`` [total] has the row of each.
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


def _where(ragged: Ragged, reverse: bool) -> Where:
    T, N = ragged.T, ragged.N
    if ragged.lengths is None:
        step, next = (1, T) if ragged.major == "batch" else (N, 1)
        return Where(
            T, N, T * N, (T - 1) * step if reverse else 0, -step if reverse else step, next
        )
    plan = find_plan(ragged, reverse)
    counts = torch.tensor(plan.batch_sizes, device="cpu")
    return Where(len(counts), N, ragged.rows, counts=counts, table=plan.row)


def _widened(
    cell: Cell,
    sizes: Sizes,
    where: Where,
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    dtype = tokens.dtype
    if dtype not in HALF:
        return _call(cell, sizes, where, tokens, states, parameters)
    wide = {key: value.float() for key, value in parameters.items()}
    starts = tuple(state.float() for state in states)
    outputs, final = _call(cell, sizes, where, tokens.float(), starts, wide)
    return outputs.to(dtype), tuple(state.to(dtype) for state in final)


@contextmanager
def use_build(build: str) -> Iterator[None]:
    """Force one build of the kernels within a ``with`` block (of this thread or task).

    ``unrolled._core.builds()`` lists those that this processor can run, the preferred first.

    Raises:
        ValueError: there is none of that name here.
    """
    builds = _core.builds()
    if build not in builds:
        raise ValueError(f"build must be one of {', '.join(map(repr, builds))}, got {build!r}")
    token = _build.set(build)
    try:
        yield
    finally:
        _build.reset(token)


@dataclass(frozen=True)
class _Recorded:
    """A cell's program as text, or why there is none, and the products that it uses."""

    text: str
    why: str | None = None
    products: tuple[str, ...] = ()


def _recorded(cell: Cell, projected: bool) -> _Recorded:
    known: dict[bool, tuple[Any, _Recorded]] = vars(cell).setdefault("_texts", {})
    settings = _settings(cell)
    if projected in known:
        before, found = known[projected]
        if len(before) == len(settings) and all(map(_same, before, settings)):
            return found
    try:
        program = make_program(cell, projected)
        text, again = encode(program), encode(make_program(cell, projected))
        why = None if text == again else f"cell {type(cell).__name__}: each step differs by itself"
        found = _Recorded(text, why, tuple(used_products(program)))
    except TraceError as error:
        found = _Recorded("", str(error))
    known[projected] = (settings, found)
    return found


def _settings(cell: Cell) -> list[Any]:
    """Everything that a step may read of a cell: a program holds for these values only."""
    spaces = [vars(cell), *(vars(cls) for cls in type(cell).__mro__[:-2])]
    return [value for space in spaces for name, value in space.items() if name[0] != "_"]


def _same(a: Any, b: Any) -> bool:
    return a is b


def _watched(values: Tensor) -> bool:
    """Whether this call is being recorded, or its tensors are not plain memory."""
    return (
        type(values) not in (Tensor, torch.nn.Parameter)
        or torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
    )


@lru_cache(maxsize=256)
def _program(text: str, H: int, P: int) -> _core.Program:
    return _core.Program(text, H, P)


@dataclass(frozen=True)
class _Job:
    """What stays the same between a forward run and its backward."""

    cell: Cell
    sizes: Sizes
    program: _core.Program
    products: tuple[str, ...]
    where: Where
    names: list[str]  # of the prepared parameters that follow tokens and states
    states: int
    build: str

    def numbers(self, I: int) -> list[int]:  # noqa: E741
        """The sizes of a run, as the core takes them."""
        w = self.where
        threads = torch.get_num_threads()
        return [w.T, w.N, I, w.rows, w.base, w.stride_t, w.stride_n, threads]


def _call(
    cell: Cell,
    sizes: Sizes,
    where: Where,
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    cell, prepared = _dense(cell, sizes, cell.prepare(parameters))
    recorded = _recorded(cell, sizes.projected)
    program = _program(recorded.text, sizes.H, sizes.P)
    names = list(prepared)
    products = recorded.products
    job = _Job(cell, sizes, program, products, where, names, len(states), _build.get())
    tensors = (tokens, *states, *prepared.values())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        outputs, *final = _Sweep.apply(job, *tensors)
        return outputs, tuple(final)
    outputs, final, _ = _forward(job, tensors, training=False)
    return outputs, final


def _dense(cell: Cell, sizes: Sizes, prepared: dict[str, Tensor]) -> tuple[Cell, dict[str, Tensor]]:
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


class _Buffers:
    """The tensors of one run, by role, and their addresses."""

    def __init__(self, job: _Job, tensors: tuple[Tensor, ...]) -> None:
        self.job = job
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        self.tokens = tensors[0]
        self.initial = tensors[1 : 1 + job.states]
        self.named = dict(zip(job.names, tensors[1 + job.states :], strict=True))
        self.matrices = [self.named.get(n) for key in job.products for n in parameter_names(key)]
        self.vectors = []
        for key, declared in job.cell.vectors.items():
            absent = self.tokens.new_zeros(job.sizes.resolve(declared.size))
            self.vectors.append(self.named.get(key, absent))

    def arrays(self, output: Tensor, saved: Tensor | None, final: list[Tensor]) -> list[int]:
        """Addresses and sizes, in the order in which the core reads them."""
        where = self.job.where
        listed = [where.counts, where.table, self.tokens, output, saved]
        return _addresses([*listed, *self.matrices, *self.vectors, *self.initial, *final])


def _forward(
    job: _Job, tensors: tuple[Tensor, ...], training: bool
) -> tuple[Tensor, States, Tensor | None]:
    given, where = _Buffers(job, tensors), job.where
    like = given.tokens
    make = like.new_empty if where.total == where.rows else like.new_zeros
    output = make(where.rows, given.initial[0].shape[1])
    final = [torch.empty_like(state) for state in given.initial]
    saved = like.new_empty(where.total, job.program.saved_width) if training else None
    arrays = given.arrays(output, saved, final)
    wide = like.dtype == torch.float64
    _core.forward(job.program, job.build, wide, job.numbers(like.shape[1]), arrays)
    return output, tuple(final), saved


class _Sweep(torch.autograd.Function):
    """The sweep as one node of autograd."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        output, final, saved = _forward(job, tensors, training=True)
        ctx.job = job
        ctx.save_for_backward(*tensors, output, saved)
        return output, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, output, saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        job = ctx.job
        if torch.is_grad_enabled() or any(g is not None and batched(g) for g in grads):
            return None, *_again(job, tuple(tensors), needs, grads)
        return None, *_backward(job, tuple(tensors), needs, output, saved, grads)


def _again(
    job: _Job,
    tensors: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients from the plain loop: differentiable, or for many vectors at once."""
    tokens, *rest = tensors
    prepared = dict(zip(job.names, rest[job.states :], strict=True))
    start = tuple(rest[: job.states])
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        outputs, final = _loop(job, tokens, start, prepared)
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    reached = [
        (end, grad)
        for end, grad in zip((outputs, *final), grads, strict=True)
        if grad is not None and end.requires_grad
    ]
    if not reached:
        return [None] * len(tensors)
    ends, slopes = zip(*reached, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, slopes, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _loop(
    job: _Job, tokens: Tensor, start: States, prepared: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """What the core computed, by the plain loop."""
    where = job.where
    if where.table is None:
        t, n = torch.arange(where.T, device="cpu"), torch.arange(where.N, device="cpu")
        table = (where.base + t[:, None] * where.stride_t + n * where.stride_n).flatten()
        sizes = [where.N] * where.T
    else:
        assert where.counts is not None
        table, sizes = where.table, where.counts.tolist()
    active = tuple(state[: sizes[0]] for state in start)
    outputs, ends = run_loop(
        job.cell, job.sizes, tokens.index_select(0, table), sizes, active, prepared
    )
    final = (torch.cat([end, s[sizes[0] :]]) for end, s in zip(ends, start, strict=True))
    rows = outputs.new_zeros(where.rows, outputs.shape[1]).index_copy(0, table, outputs)
    return rows, tuple(final)


def _backward(
    job: _Job,
    tensors: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    output: Tensor,
    saved: Tensor,
    grads: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    given, where = _Buffers(job, tensors), job.where
    wanted = dict(zip(job.names, needs[1 + job.states :], strict=True))
    grad_named = {key: torch.empty_like(given.named[key]) for key in job.names if wanted[key]}
    grad_initial = [
        torch.empty_like(state) if need else None
        for state, need in zip(given.initial, needs[1:], strict=False)
    ]
    make = torch.empty_like if where.total == where.rows else torch.zeros_like
    grad_tokens = make(given.tokens) if needs[0] else None
    matrices = [grad_named.get(n) for key in job.products for n in parameter_names(key)]
    slopes = [None if grad is None else grad.contiguous() for grad in grads]
    # The final states are not written in backward: their places hold anything.
    final = [torch.empty_like(state) for state in given.initial]
    arrays = given.arrays(output, saved, final)
    vectors = [grad_named.get(key) for key in job.cell.vectors]
    arrays += _addresses([*slopes, grad_tokens, *grad_initial, *vectors, *matrices])
    wide = given.tokens.dtype == torch.float64
    _core.backward(job.program, job.build, wide, job.numbers(given.tokens.shape[1]), arrays)
    used = {n for key in job.products for n in parameter_names(key)} | set(job.cell.vectors)
    named = (grad_named.get(key) if key in used else None for key in job.names)
    return [grad_tokens, *grad_initial, *named]


def _addresses(tensors: list[Tensor | None]) -> list[int]:
    found: list[int] = []
    for tensor in tensors:
        found += (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel())
    return found
