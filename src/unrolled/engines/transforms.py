"""The sweep under torch.func: grad, vjp, jvp and vmap, natively where the core can.

A Function of the kind that functorch composes: forward and backward run in the core; what is
differentiated once more, or forward, goes through the plain loop, which is pure torch. Under vmap,
inputs and states fold into the batch; batched parameters run sample by sample.
"""

from typing import Any

import torch
from torch import Tensor

from unrolled.engines.autograd import Job, loop_of, make_job
from unrolled.engines.core import Where, run_backward, run_forward


def run_transformed(job: Job, tensors: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and final states."""
    output, _, *final = _Forward.apply(job, *tensors)
    return output, tuple(final)


class _Forward(torch.autograd.Function):
    """Output, what backward needs, final states."""

    @staticmethod
    def forward(job: Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        output, saved, final = run_forward(job.work, tensors, training=True)
        assert saved is not None
        return output, saved, *final

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        job, *tensors = inputs
        result, saved, *_ = output
        ctx.mark_non_differentiable(saved)
        ctx.job, ctx.count = job, len(tensors)
        ctx.save_for_backward(*tensors, result, saved)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, _, *grad_final = slopes
        needs = tuple(ctx.needs_input_grad[1:])
        found = iter(_Backward.apply(ctx.job, needs, *ctx.saved_tensors, grad_output, *grad_final))
        return None, *(next(found) if need else None for need in needs)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors[: ctx.count]
        moved = [k for k, tangent in enumerate(tangents) if tangent is not None]

        def run(*some: Tensor) -> tuple[Tensor, ...]:
            given = list(tensors)
            for k, tensor in zip(moved, some, strict=True):
                given[k] = tensor
            output, final = loop_of(ctx.job, tuple(given))
            return output, *final

        along = tuple(tangents[k] for k in moved)
        output, *final = _along(run, tuple(tensors[k] for k in moved), along)
        return output, None, *final

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], job: Job, *tensors: Tensor) -> tuple[Any, ...]:
        dims = in_dims[1:]
        shared = all(dim is None for dim in dims[1 + job.states :])
        if shared and job.where.table is None:
            return _folded(info.batch_size, dims, job, tensors)
        parts = [_Forward.apply(job, *_slice(tensors, dims, b)) for b in range(info.batch_size)]
        return _stacked(parts)


class _Backward(torch.autograd.Function):
    """Gradients of the tensors that need one; itself differentiable, through the plain loop."""

    @staticmethod
    def forward(job: Job, needs: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        given, (output, saved, *slopes) = tensors[: len(needs)], tensors[len(needs) :]
        found = run_backward(job.work, given, output, saved, slopes, needs)
        pairs = zip(found, given, needs, strict=True)
        return tuple(torch.zeros_like(t) if g is None else g for g, t, need in pairs if need)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.job, ctx.needs, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def _again(job: Job, needs: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same by the plain loop: of the given tensors and the slopes."""
        given, slopes = tensors[: len(needs)], tensors[len(needs) :]
        wanted = [k for k, need in enumerate(needs) if need]

        def run(*some: Tensor) -> tuple[Tensor, ...]:
            full = list(given)
            for k, tensor in zip(wanted, some, strict=True):
                full[k] = tensor
            output, final = loop_of(job, tuple(full))
            return output, *final

        return tuple(_pull(run, tuple(given[k] for k in wanted))(tuple(slopes)))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        count = len(ctx.needs)
        inputs = (*tensors[:count], *tensors[count + 2 :])
        pull = _pull(lambda *some: _Backward._again(ctx.job, ctx.needs, *some), inputs)
        found = pull(tuple(slopes))
        return None, None, *found[:count], None, None, *found[count:]

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        tensors = list(ctx.saved_tensors)
        count = len(ctx.needs)
        inputs = (*tensors[:count], *tensors[count + 2 :])
        moves = (*tangents[:count], *tangents[count + 2 :])
        along = tuple(
            torch.zeros_like(t) if m is None else m for t, m in zip(inputs, moves, strict=True)
        )
        return _along(lambda *some: _Backward._again(ctx.job, ctx.needs, *some), inputs, along)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], job: Job, needs: tuple[bool, ...], *tensors: Tensor
    ) -> tuple[Any, ...]:
        parts = [
            _Backward.apply(job, needs, *_slice(tensors, in_dims[2:], b))
            for b in range(info.batch_size)
        ]
        return _stacked(parts)


def _pull(run: Any, inputs: tuple[Tensor, ...]) -> Any:
    """From gradients of a function's outputs to those of its inputs."""
    _, pull, *_ = torch.func.vjp(run, *inputs)
    return pull


def _along(run: Any, inputs: tuple[Tensor, ...], along: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Forward derivative by two backward ones, which compose with everything."""
    zeros = tuple(torch.zeros_like(output) for output in run(*inputs))
    push = _pull(lambda *slopes: _pull(run, inputs)(slopes), zeros)
    return tuple(push(along))


def _slice(tensors: tuple[Tensor, ...], dims: tuple[Any, ...], b: int) -> list[Tensor]:
    pairs = zip(tensors, dims, strict=True)
    return [tensor if dim is None else tensor.select(dim, b) for tensor, dim in pairs]


def _stacked(parts: list[tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    stacked = tuple(torch.stack(outputs) for outputs in zip(*parts, strict=True))
    return stacked, (0,) * len(stacked)


def _folded(
    B: int, dims: tuple[Any, ...], job: Job, tensors: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """One run of B times as many sequences, with the same parameters."""
    front = [
        tensor.expand(B, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors[: 1 + job.states], dims, strict=False)
    ]
    w = job.where
    by_step = w.stride_n == 1  # else by sequence
    tokens, T, N = front[0], w.T, w.N
    if by_step:
        tokens = tokens.reshape(B, T, N, -1).transpose(0, 1)
        where = Where(T, B * N, B * w.rows, B * w.base, B * w.stride_t, 1)
    else:
        where = Where(T, B * N, B * w.rows, w.base, w.stride_t, w.stride_n)
    folded = make_job(job.cell, job.sizes, where, job.names, job.states)
    states = [state.reshape(B * N, -1) for state in front[1:]]
    rows = tokens.reshape(B * w.rows, -1)
    output, saved, *final = _Forward.apply(folded, rows, *states, *tensors[1 + job.states :])
    output = output.view(T, B, N, -1).transpose(0, 1) if by_step else output
    saved = saved.view(T, B, N, -1).transpose(0, 1).reshape(B, w.rows, -1)
    ends = [end.view(B, *shape) for end, shape in zip(final, job.form, strict=True)]
    shape = front[0].shape[1:-1]
    results = (output.reshape(B, *shape, -1), saved, *ends)
    return results, (0,) * len(results)
