"""One call of the core: which rows the tokens are, which tensors a run reads, forward and backward.

Autograd is left to ``autograd`` and ``functorch``, graphs to ``operator``.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled import _core
from unrolled.engines.episodes import find_plan
from unrolled.engines.ragged import Ragged

_core.name_tensors(Tensor, torch.empty(0, dtype=torch.float32, device="cpu"))

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

    def row_of_each(self) -> Tensor:
        """[total] the row of each token."""
        if self.table is not None:
            return self.table
        t, n = torch.arange(self.T, device="cpu"), torch.arange(self.N, device="cpu")
        return (self.base + t[:, None] * self.stride_t + n * self.stride_n).flatten()


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


Form = tuple[tuple[int, ...], ...]
"""Shapes of the final states, [..., N, width] each."""


def make_work(
    program: _core.Program,
    where: Where,
    states: int,
    parameters: Sequence[int],
    form: Form,
    groups: int = 1,
) -> _core.Work:
    """What stays the same between runs.

    A run's tensors are tokens [..., I], whose leading dimensions are the rows; states [N, width],
    all or none (zeros); parameters, and for each array of the program (a weight and a bias for
    each product, then the vectors) its place among these tensors, -1 for none. With ``groups`` G
    gradients of parameters are sums over the sequences n of equal n % G, [G, ...].
    """
    w = where
    place = (w.T, w.N, w.rows, w.base, w.stride_t, w.stride_n)
    build = forced_build.get()
    return _core.Work(program, build, place, w.counts, w.table, states, parameters, form, groups)


def run_forward(
    work: _core.Work, tensors: Sequence[Tensor], training: bool
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Output [..., P], what backward needs, and the final states."""
    threads = torch.get_num_threads()  # Dynamo, where it looks in, loses a call that holds this one
    found: tuple[Tensor, Tensor | None, list[Tensor]] = work.forward(tensors, training, threads)
    return found


def run_backward(
    work: _core.Work,
    tensors: Sequence[Tensor],
    output: Tensor,
    saved: Tensor,
    slopes: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the tensors that need one and that a gradient reaches (``Work.reached``), from
    those of the output and of the final states (None: zeros)."""
    threads = torch.get_num_threads()
    return work.backward(tensors, output, saved, slopes, needs, threads)
