"""Many sweeps of one job in one call of the core.

Those that share every parameter are one batch of as many sequences more, whose weights' gradients
the core sums sweep by sweep; those with parameters of their own run side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unrolled.engines.native.autograd import Job, make_job
from unrolled.engines.native.call import Where, run_backward, run_forward


@dataclass(frozen=True)
class Several:
    """``count`` sweeps B, and which tensors have a first dimension of so many; the others are the
    same for all."""

    count: int
    stacked: tuple[bool, ...]

    def shares(self, job: Job) -> bool:
        """Whether all sweeps have the same parameters."""
        given = 1 + job.states
        return not any(self.stacked[given : given + len(job.names)])


def forward_several(job: Job, several: Several, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Output, what backward needs, final states, [B, ...] each."""
    if not several.shares(job):
        output, saved, final = job.work.forward_each(
            several.count, several.stacked, tensors, True, torch.get_num_threads()
        )
        return output, saved, *final
    fold = _Fold(job, several)
    output, kept, final = run_forward(fold.job(1).work, fold.given(tensors), training=True)
    assert kept is not None
    lead = tensors[0].shape[1 if several.stacked[0] else 0 : -1]
    ends = (fold.apart(end) for end in final)
    return output.view(several.count, *lead, output.shape[-1]), fold.apart(kept), *ends


def backward_several(
    job: Job, several: Several, needs: Sequence[bool], apart: bool, tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of the tensors that need one: [B, ...] where they are stacked, and everywhere if
    ``apart``; else sums over the sweeps.

    ``tensors`` are those of the forward run, its output, what it kept, and the slopes of output and
    final states.
    """
    count = len(needs)
    if several.shares(job):
        return _backward_folded(job, several, needs, apart, tensors)
    given, (output, saved, *slopes) = tensors[:count], tensors[count:]
    found = job.work.backward_each(
        several.count, several.stacked, given, output, saved, slopes, needs, torch.get_num_threads()
    )
    whole = (apart or stacked for stacked in several.stacked)
    pairs = zip(found, whole, strict=False)
    return [grad if keep else grad.sum(0) for grad, keep in pairs if grad is not None]


def _backward_folded(
    job: Job, several: Several, needs: Sequence[bool], apart: bool, tensors: Sequence[Tensor]
) -> list[Tensor]:
    fold, B, count = _Fold(job, several), several.count, len(needs)
    output, saved, grad_output, *grad_final = (
        tensor if stacked else tensor.expand(B, *tensor.shape)
        for tensor, stacked in zip(tensors[count:], several.stacked[count:], strict=True)
    )
    slopes = fold.rows(grad_output), *map(fold.together, grad_final)
    work = fold.job(B if apart else 1).work
    given = fold.given(tensors[:count])
    tokens, *others = run_backward(
        work, given, fold.rows(output), fold.together(saved), slopes, needs
    )
    made = [tokens if tokens is None else tokens.view(*output.shape[:-1], tokens.shape[-1])]
    made += [grad if grad is None else fold.apart(grad) for grad in others[: job.states]]
    sums = [not (apart or stacked) for stacked in several.stacked[: len(made)]]
    ahead = (
        grad.sum(0) if summed else grad
        for grad, summed in zip(made, sums, strict=True)
        if grad is not None
    )
    lead = (B,) if apart else ()
    pairs = zip(others[job.states :], given[1 + job.states :], strict=True)
    return [*ahead, *(g.view(*lead, *p.shape) for g, p in pairs if g is not None)]


@dataclass(frozen=True)
class _Fold:
    """Sweeps with the same parameters as one: sequence n of sweep b is number n * B + b."""

    one: Job
    several: Several

    def job(self, groups: int) -> Job:
        w, B = self.one.where, self.several.count
        if w.table is None and w.N == 1:
            where = replace(w, N=B, rows=B * w.rows, stride_n=w.rows)
        else:
            table = w.row_of_each()[:, None] + torch.arange(B, device="cpu") * w.rows
            counts = None if w.counts is None else w.counts * B
            where = Where(w.T, B * w.N, B * w.rows, counts=counts, table=table.flatten())
        one = self.one
        return make_job(one.cell, one.sizes, where, one.names, one.states, groups=groups)

    def given(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tokens, states and parameters."""
        front = 1 + self.one.states
        tokens, *states = (
            tensor if stacked else tensor.expand(self.several.count, *tensor.shape)
            for tensor, stacked in zip(tensors[:front], self.several.stacked, strict=False)
        )
        return [self.rows(tokens), *map(self.together, states), *tensors[front:]]

    def rows(self, tensor: Tensor) -> Tensor:
        """[B, ..., width] as rows."""
        return tensor.flatten(0, -2)

    def together(self, tensor: Tensor) -> Tensor:
        """[B, N, width] as [N * B, width]."""
        return tensor.transpose(0, 1).flatten(0, 1)

    def apart(self, tensor: Tensor) -> Tensor:
        """[N * B, width] as [B, N, width]."""
        B = self.several.count
        return tensor.view(tensor.shape[0] // B, B, tensor.shape[1]).transpose(0, 1)
