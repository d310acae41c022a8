"""The native engine: the cell's program, and its derived gradient, in the C++ core.

The core gets addresses; every tensor it writes is made here. Second derivatives re-run the plain
loop inside of backward, which is where torch asks for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unrolled import _core
from unrolled.cells import Cell, Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.loop import run_loop
from unrolled.engines.packed import run_packed
from unrolled.engines.sweep import HALF, States, Sweep, batched
from unrolled.program import TraceError, make_program
from unrolled.program.encode import encode

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
    products = sweep.cell.products(sweep.sizes)
    if any(p.blocks > 1 for p in products.values()):
        return "block-diagonal products are not native yet"
    return _text(sweep.cell, sweep.sizes.projected)[1]


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states; half precision is computed in float32, state included."""

    def native(
        cell: Cell,
        tokens: Tensor,
        batch_sizes: list[int],
        states: States,
        parameters: dict[str, Tensor],
    ) -> tuple[Tensor, States]:
        dtype = tokens.dtype
        if dtype in HALF:
            tokens, states = tokens.float(), tuple(state.float() for state in states)
            parameters = {key: value.float() for key, value in parameters.items()}
        outputs, final = _call(cell, sweep.sizes, tokens, batch_sizes, states, parameters)
        return outputs.to(dtype), tuple(state.to(dtype) for state in final)

    return run_packed(sweep, native)


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
class _Job:
    """What stays the same between a forward run and its backward."""

    cell: Cell
    sizes: Sizes
    program: _core.Program
    batch_sizes: list[int]
    names: list[str]  # of the prepared parameters that follow tokens and states
    states: int
    build: str


def _text(cell: Cell, projected: bool) -> tuple[str, str | None]:
    """The encoded program, and the reason if there is none."""
    known: dict[bool, tuple[Any, tuple[str, str | None]]] = vars(cell).setdefault("_texts", {})
    settings = _settings(cell)
    if projected in known:
        before, found = known[projected]
        if len(before) == len(settings) and all(map(_same, before, settings)):
            return found
    try:
        text, again = (encode(make_program(cell, projected)) for _ in range(2))
        why = None if text == again else f"cell {type(cell).__name__}: each step differs by itself"
        known[projected] = (settings, (text, why))
    except TraceError as error:
        known[projected] = (settings, ("", str(error)))
    return known[projected][1]


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


def _call(
    cell: Cell,
    sizes: Sizes,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    prepared = cell.prepare(parameters)
    program = _program(_text(cell, sizes.projected)[0], sizes.H, sizes.P)
    job = _Job(cell, sizes, program, batch_sizes, list(prepared), len(states), _build.get())
    tensors = (tokens, *states, *prepared.values())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        outputs, *final = _Sweep.apply(job, *tensors)
        return outputs, tuple(final)
    outputs, final, _ = _forward(job, tensors, training=False)
    return outputs, final


class _Buffers:
    """The tensors of one run, by role, and their addresses."""

    def __init__(self, job: _Job, tensors: tuple[Tensor, ...]) -> None:
        self.job = job
        self.tensors = tuple(tensor.contiguous() for tensor in tensors)
        self.tokens, *rest = self.tensors
        self.initial = rest[: job.states]
        self.named = dict(zip(job.names, rest[job.states :], strict=True))
        products = job.cell.products(job.sizes)
        self.keys = ["input", *(key for key in products if key != "input")]
        weights, biases = zip(*map(parameter_names, self.keys), strict=True)
        self.weights = [self.named[name] for name in weights]
        self.biases = [self.named.get(name) for name in biases]
        self.vectors = []
        for key, declared in job.cell.vectors.items():
            absent = self.tokens.new_zeros(job.sizes.resolve(declared.size))
            self.vectors.append(self.named.get(key, absent))

    def inputs(self, history: list[Any], final: list[Tensor], stored: list[Tensor]) -> Any:
        """What the core is told of a run."""
        return _core.Inputs(
            self.job.batch_sizes,
            self.tokens.shape[1],
            _at(self.tokens),
            _all(self.weights),
            _all(self.biases),
            _all(self.vectors),
            _all(self.initial),
            _all(history),
            _all(final),
            _all(stored),
            torch.get_num_threads(),
        )


def _forward(
    job: _Job, tensors: tuple[Tensor, ...], training: bool
) -> tuple[Tensor, States, tuple[list[Tensor], list[Tensor]]]:
    given = _Buffers(job, tensors)
    total, empty = given.tokens.shape[0], given.tokens.new_empty
    widths = [state.shape[1] for state in given.initial]
    history: list[Any] = [empty(total, width) for width in (widths if training else widths[:1])]
    final = [torch.empty_like(state) for state in given.initial]
    stored = [empty(total, width) for width in job.program.stored_widths] if training else []
    padded = history + [None] * (len(widths) - len(history))
    inputs = given.inputs(padded, final, stored)
    _core.forward(job.program, job.build, given.tokens.dtype == torch.float64, inputs)
    return history[0], tuple(final), (history, stored)


class _Sweep(torch.autograd.Function):
    """The sweep as one node of autograd."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, final, (history, stored) = _forward(job, tensors, training=True)
        ctx.job, ctx.counts = job, (len(tensors), len(history))
        ctx.save_for_backward(*tensors, *history, *stored)
        return outputs, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        given, states = ctx.counts
        saved = ctx.saved_tensors
        tensors, history, stored = saved[:given], saved[given:][:states], saved[given + states :]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or any(map(batched, grads)):
            return None, *_again(ctx.job, tensors, needs, grads)
        return None, *_backward(ctx.job, tensors, needs, list(history), list(stored), grads)


def _again(
    job: _Job, tensors: tuple[Tensor, ...], needs: list[bool], grads: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Gradients from the plain loop: differentiable, or for many vectors at once."""
    tokens, *rest = tensors
    prepared = dict(zip(job.names, rest[job.states :], strict=True))
    start = tuple(rest[: job.states])
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        outputs, final = run_loop(job.cell, job.sizes, tokens, job.batch_sizes, start, prepared)
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    reached = [pair for pair in zip((outputs, *final), grads, strict=True) if pair[0].requires_grad]
    ends, slopes = zip(*reached, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, slopes, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _backward(
    job: _Job,
    tensors: tuple[Tensor, ...],
    needs: list[bool],
    history: list[Tensor],
    stored: list[Tensor],
    grads: tuple[Tensor, ...],
) -> list[Tensor | None]:
    given = _Buffers(job, tensors)
    total, empty = given.tokens.shape[0], given.tokens.new_empty
    wanted = dict(zip(job.names, needs[1 + job.states :], strict=True))

    def made(names: list[str]) -> list[Tensor | None]:
        return [torch.empty_like(given.named[n]) if wanted.get(n) else None for n in names]

    weights, biases = zip(*map(parameter_names, given.keys), strict=True)
    grad_weights, grad_biases = made(list(weights)), made(list(biases))
    grad_vectors = [torch.empty_like(vector) for vector in given.vectors]
    grad_initial = [torch.empty_like(state) for state in given.initial]
    grad_tokens = torch.empty_like(given.tokens) if needs[0] else None
    grad_products = [empty(total, weight.shape[0]) for weight in given.weights]
    sources = [
        None if is_state else empty(total, weight.shape[1])
        for is_state, weight in zip(job.program.state_sources, given.weights[1:], strict=True)
    ]
    slopes = [grad.contiguous() for grad in grads]
    final = [torch.empty_like(state) for state in given.initial]
    _core.backward(
        job.program,
        job.build,
        given.tokens.dtype == torch.float64,
        given.inputs(history, final, stored),
        _at(slopes[0]),
        _all(slopes[1:]),
        _at(grad_products[0]),
        _all(grad_products[1:]),
        _all(sources),
        _all(grad_initial),
        _all(grad_vectors),
        _at(grad_tokens),
        _all(grad_weights),
        _all(grad_biases),
    )
    named = {
        **dict(zip(weights, grad_weights, strict=True)),
        **dict(zip(biases, grad_biases, strict=True)),
        **dict(zip(job.cell.vectors, grad_vectors, strict=True)),
    }
    return [grad_tokens, *grad_initial, *(named.get(key) for key in job.names)]


def _at(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel())


def _all(tensors: Any) -> list[tuple[int, int]]:
    return [_at(tensor) for tensor in tensors]
