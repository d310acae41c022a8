"""The sweep under torch.func: grad, vjp, jvp and vmap, natively where the core can.

A Function of the kind that functorch composes: forward and backward run in the core, under vmap for
all sweeps in one call; what is differentiated once more, or forward, goes through the plain loop,
which is pure torch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.engines.native.autograd import Job, loop_of
from unrolled.engines.native.batched import Several, backward_several, forward_several
from unrolled.engines.native.call import run_backward, run_forward


def run_transformed(job: Job, tensors: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and final states."""
    output, _, *final = _Forward.apply(job, None, *tensors)
    return output, tuple(final)


class _Forward(torch.autograd.Function):
    """Output, what backward needs, final states; of one sweep, or of several."""

    @staticmethod
    def forward(job: Job, several: Several | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        if several is not None:
            return forward_several(job, several, tensors)
        output, saved, final = run_forward(job.work, tensors, training=True)
        assert saved is not None
        return output, saved, *final

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        job, several, *tensors = inputs
        result, saved, *_ = output
        ctx.mark_non_differentiable(saved)
        ctx.job, ctx.several, ctx.count = job, several, len(tensors)
        ctx.save_for_backward(*tensors, result, saved)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, _, *grad_final = slopes
        needs = ctx.job.reached(ctx.needs_input_grad[2:])
        if not any(needs):
            return None, None, *(None for _ in needs)
        tensors = (*ctx.saved_tensors, grad_output, *grad_final)
        several = ctx.several
        if several is not None:
            made = (True,) * (len(tensors) - ctx.count)
            several = Several(several.count, several.stacked + made)
        found = iter(_Backward.apply(ctx.job, needs, several, False, *tensors))
        return None, None, *(next(found) if need else None for need in needs)

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors[: ctx.count]
        moved = [k for k, tangent in enumerate(tangents) if tangent is not None]

        def one(*all_of: Tensor) -> tuple[Tensor, ...]:
            output, final = loop_of(ctx.job, all_of)
            return output, *final

        run = _each(one, ctx.several and ctx.several.stacked)

        def along(*some: Tensor) -> tuple[Tensor, ...]:
            given = list(tensors)
            for k, tensor in zip(moved, some, strict=True):
                given[k] = tensor
            return run(*given)

        directions = tuple(tangents[k] for k in moved)
        output, *final = _along(along, tuple(tensors[k] for k in moved), directions)
        return output, None, *final

    @staticmethod
    def vmap(
        info: Any, dims: tuple[Any, ...], job: Job, several: Several | None, *tensors: Tensor
    ) -> tuple[Any, ...]:
        more, wide = _widen(info.batch_size, several, dims[2:], tensors)
        results = tuple(
            _split(result, info.batch_size, several) for result in _Forward.apply(job, more, *wide)
        )
        return results, (0,) * len(results)


class _Backward(torch.autograd.Function):
    """Gradients of the tensors that need one; itself differentiable, through the plain loop.

    Of several sweeps: see ``backward_several``.
    """

    @staticmethod
    def forward(
        job: Job,
        needs: tuple[bool, ...],
        several: Several | None,
        apart: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        if several is not None:
            return tuple(backward_several(job, several, needs, apart, tensors))
        given, (output, saved, *slopes) = tensors[: len(needs)], tensors[len(needs) :]
        found = run_backward(job.work, given, output, saved, slopes, needs)
        return tuple(grad for grad in found if grad is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.how = inputs[:4]
        ctx.save_for_backward(*inputs[4:])
        ctx.save_for_forward(*inputs[4:])

    @staticmethod
    def _again(ctx: Any) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """The same by the plain loop: a function of the run's tensors and the slopes, and those."""
        job, needs, several, apart = ctx.how
        count = len(needs)
        wanted = [k for k, need in enumerate(needs) if need]

        def one(*tensors: Tensor) -> tuple[Tensor, ...]:
            def run(*some: Tensor) -> tuple[Tensor, ...]:
                full = list(tensors[:count])
                for k, tensor in zip(wanted, some, strict=True):
                    full[k] = tensor
                output, final = loop_of(job, tuple(full))
                return output, *final

            return tuple(_pull(run, tuple(tensors[k] for k in wanted))(tensors[count:]))

        inputs = (*ctx.saved_tensors[:count], *ctx.saved_tensors[count + 2 :])
        if several is None:
            return one, inputs
        stacked = several.stacked[:count] + several.stacked[count + 2 :]
        run = _each(one, stacked)

        def all_of(*tensors: Tensor) -> tuple[Tensor, ...]:
            keep = (apart or stacked[k] for k in wanted)
            found = zip(run(*tensors), keep, strict=True)
            return tuple(grad if whole else grad.sum(0) for grad, whole in found)

        return all_of, inputs

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.how[1])
        found = _pull(*_Backward._again(ctx))(tuple(slopes))
        return None, None, None, None, *found[:count], None, None, *found[count:]

    @staticmethod
    def jvp(ctx: Any, *all_of: Any) -> tuple[Tensor, ...]:
        count, tangents = len(ctx.how[1]), all_of[4:]
        run, inputs = _Backward._again(ctx)
        moves = (*tangents[:count], *tangents[count + 2 :])
        along = tuple(
            torch.zeros_like(t) if m is None else m for t, m in zip(inputs, moves, strict=True)
        )
        return _along(run, inputs, along)

    @staticmethod
    def vmap(
        info: Any,
        dims: tuple[Any, ...],
        job: Job,
        needs: tuple[bool, ...],
        several: Several | None,
        apart: bool,
        *tensors: Tensor,
    ) -> tuple[Any, ...]:
        B = info.batch_size
        more, wide = _widen(B, several, dims[4:], tensors)
        results = [
            _split(result, B, several) for result in _Backward.apply(job, needs, more, True, *wide)
        ]
        if several is not None and not apart:
            stacked = [s for s, need in zip(several.stacked, needs, strict=False) if need]
            pairs = zip(results, stacked, strict=True)
            results = [result if whole else result.sum(1) for result, whole in pairs]
        return tuple(results), (0,) * len(results)


def _widen(
    B: int, several: Several | None, dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]
) -> tuple[Several, list[Tensor]]:
    """B times as many sweeps; the dimension of each tensor that counts them, None for none."""
    G = 1 if several is None else several.count
    stacked = several.stacked if several is not None else (False,) * len(tensors)
    wide = []
    for tensor, dim, inside in zip(tensors, dims, stacked, strict=True):
        if dim is None and not inside:
            wide.append(tensor)
            continue
        front = tensor.expand(B, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        if not inside and several is not None:
            front = front.unsqueeze(1).expand(B, G, *front.shape[1:])
        wide.append(front if several is None else front.flatten(0, 1))
    grown = tuple(dim is not None or inside for dim, inside in zip(dims, stacked, strict=True))
    return Several(B * G, grown), wide


def _split(result: Tensor, B: int, several: Several | None) -> Tensor:
    """[B, ...], or [B, G, ...] where there were several already."""
    return result if several is None else result.unflatten(0, (B, several.count))


def _each(run: Callable[..., Any], stacked: tuple[bool, ...] | None) -> Callable[..., Any]:
    """A function of one sweep's tensors for all of several."""
    if stacked is None:
        return run
    return torch.func.vmap(run, in_dims=tuple(0 if inside else None for inside in stacked))


def _pull(run: Any, inputs: tuple[Tensor, ...]) -> Any:
    """From gradients of a function's outputs to those of its inputs."""
    _, pull, *_ = torch.func.vjp(run, *inputs)
    return pull


def _along(run: Any, inputs: tuple[Tensor, ...], along: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Forward derivative by two backward ones, which compose with everything."""
    zeros = tuple(torch.zeros_like(output) for output in run(*inputs))
    push = _pull(lambda *slopes: _pull(run, inputs)(slopes), zeros)
    return tuple(push(along))
