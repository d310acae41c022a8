"""A sweep under torch.func: grad, vjp, jvp and vmap.

Forward and backward run in the core, under vmap in one call for all sweeps. Higher derivatives and
forward-mode derivatives run the reference loop, which consists of torch operations only.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unrolled.engines._autograd_context import AutogradContext, AutogradFunction
from unrolled.engines._native.autograd import SweepCall, run_reference
from unrolled.engines._native.batched import BatchedSweeps, backward_batched, forward_batched
from unrolled.engines._native.call import run_backward, run_forward

Tensors = tuple[Tensor, ...]
TensorFunction = Callable[..., Tensors]
Dims = tuple[int | None, ...]
"""The dimension of each tensor that vmap maps over."""


def run_transformed(call: SweepCall, tensors: Tensors) -> tuple[Tensor, Tensors]:
    """Output and final states."""
    output, _, *final = _Forward.apply(call, None, *tensors)
    return output, tuple(final)


class _VmapInfo(Protocol):
    batch_size: int


class _ForwardContext(AutogradContext, Protocol):
    call: SweepCall
    batch: BatchedSweeps | None
    tensor_count: int


class _Forward(AutogradFunction):
    """Output, what backward needs, and final states of one sweep or of batched sweeps."""

    @staticmethod
    def forward(call: SweepCall, batch: BatchedSweeps | None, *tensors: Tensor) -> Tensors:
        if batch is not None:
            return forward_batched(call, batch, tensors)
        output, saved, final = run_forward(call.compiled, tensors, training=True)
        assert saved is not None
        return output, saved, *final

    @staticmethod
    def setup_context(
        ctx: _ForwardContext,
        inputs: tuple[SweepCall, BatchedSweeps | None, *Tensors],
        output: Tensors,
    ) -> None:
        call, batch, *tensors = inputs
        result, saved, *_ = output
        ctx.mark_non_differentiable(saved)
        ctx.call, ctx.batch, ctx.tensor_count = call, batch, len(tensors)
        ctx.save_for_backward(*tensors, result, saved)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: _ForwardContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        output_grad, _, *final_grads = grads
        needs_grad = ctx.call.reached(ctx.needs_input_grad[2:])
        if not any(needs_grad):
            return None, None, *(None for _ in needs_grad)
        tensors = (*ctx.saved_tensors, output_grad, *final_grads)
        batch = ctx.batch
        if batch is not None:
            results = (True,) * (len(tensors) - ctx.tensor_count)
            batch = BatchedSweeps(batch.count, batch.is_batched + results)
        input_grads = iter(_Backward.apply(ctx.call, needs_grad, batch, False, *tensors))
        return None, None, *(next(input_grads) if need else None for need in needs_grad)

    @staticmethod
    def jvp(
        ctx: _ForwardContext, _: object, __: object, *tangents: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors[: ctx.tensor_count]
        indices = [k for k, tangent in enumerate(tangents) if tangent is not None]

        def run_single(*inputs: Tensor) -> Tensors:
            output, final = run_reference(ctx.call, inputs)
            return output, *final

        run = _vmapped(run_single, None if ctx.batch is None else ctx.batch.is_batched)

        def run_varied(*varied: Tensor) -> Tensors:
            return run(*_replaced(tensors, indices, varied))

        varied = tuple(tensors[k] for k in indices)
        directions = tuple(tangent for tangent in tangents if tangent is not None)
        output, *final = _forward_derivative(run_varied, varied, directions)
        return output, None, *final

    @staticmethod
    def vmap(
        info: _VmapInfo, dims: Dims, call: SweepCall, batch: BatchedSweeps | None, *tensors: Tensor
    ) -> tuple[Tensors, Dims]:
        mapped, inputs = _add_batch(info.batch_size, batch, dims[2:], tensors)
        results = tuple(
            _split_batch(result, info.batch_size, batch)
            for result in _Forward.apply(call, mapped, *inputs)
        )
        return results, (0,) * len(results)


class _BackwardContext(AutogradContext, Protocol):
    call: SweepCall
    needs_grad: tuple[bool, ...]
    batch: BatchedSweeps | None
    per_sweep: bool


class _Backward(AutogradFunction):
    """Gradients of the tensors that need one; differentiable through the reference loop.

    For batched sweeps see ``backward_batched``.
    """

    @staticmethod
    def forward(
        call: SweepCall,
        needs_grad: tuple[bool, ...],
        batch: BatchedSweeps | None,
        per_sweep: bool,
        *tensors: Tensor,
    ) -> Tensors:
        if batch is not None:
            return tuple(backward_batched(call, batch, needs_grad, per_sweep, tensors))
        inputs, (output, saved, *grads) = tensors[: len(needs_grad)], tensors[len(needs_grad) :]
        input_grads = run_backward(call.compiled, inputs, output, saved, grads, needs_grad)
        return tuple(grad for grad in input_grads if grad is not None)

    @staticmethod
    def setup_context(
        ctx: _BackwardContext,
        inputs: tuple[SweepCall, tuple[bool, ...], BatchedSweeps | None, bool, *Tensors],
        output: object,
    ) -> None:
        ctx.call, ctx.needs_grad, ctx.batch, ctx.per_sweep, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def _via_reference(ctx: _BackwardContext) -> tuple[TensorFunction, Tensors]:
        """The same gradients by the reference loop: a function of the run's tensors and the
        gradients of its results, and these arguments."""
        call, batch, count = ctx.call, ctx.batch, len(ctx.needs_grad)
        indices = [k for k, need in enumerate(ctx.needs_grad) if need]

        def pull_single(*tensors: Tensor) -> Tensors:
            def run(*varied: Tensor) -> Tensors:
                output, final = run_reference(call, _replaced(tensors[:count], indices, varied))
                return output, *final

            return _pullback(run, tuple(tensors[k] for k in indices))(tensors[count:])

        inputs = (*ctx.saved_tensors[:count], *ctx.saved_tensors[count + 2 :])
        if batch is None:
            return pull_single, inputs
        is_batched = batch.is_batched[:count] + batch.is_batched[count + 2 :]
        pull_each = _vmapped(pull_single, is_batched)

        def pull(*tensors: Tensor) -> Tensors:
            grads = zip(pull_each(*tensors), indices, strict=True)
            return tuple(
                grad if ctx.per_sweep or is_batched[k] else grad.sum(0) for grad, k in grads
            )

        return pull, inputs

    @staticmethod
    def backward(ctx: _BackwardContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.needs_grad)
        input_grads = _pullback(*_Backward._via_reference(ctx))(grads)
        return None, None, None, None, *input_grads[:count], None, None, *input_grads[count:]

    @staticmethod
    def jvp(
        ctx: _BackwardContext,
        _: object,
        __: object,
        ___: object,
        ____: object,
        *tangents: Tensor | None,
    ) -> Tensors:
        count = len(ctx.needs_grad)
        run, inputs = _Backward._via_reference(ctx)
        pairs = zip(inputs, (*tangents[:count], *tangents[count + 2 :]), strict=True)
        directions = tuple(torch.zeros_like(t) if d is None else d for t, d in pairs)
        return _forward_derivative(run, inputs, directions)

    @staticmethod
    def vmap(
        info: _VmapInfo,
        dims: Dims,
        call: SweepCall,
        needs_grad: tuple[bool, ...],
        batch: BatchedSweeps | None,
        per_sweep: bool,
        *tensors: Tensor,
    ) -> tuple[Tensors, Dims]:
        B = info.batch_size
        mapped, inputs = _add_batch(B, batch, dims[4:], tensors)
        results = tuple(
            _split_batch(result, B, batch)
            for result in _Backward.apply(call, needs_grad, mapped, True, *inputs)
        )
        if batch is not None and not per_sweep:
            flags = zip(batch.is_batched, needs_grad, strict=False)
            is_batched = [flag for flag, need in flags if need]
            pairs = zip(results, is_batched, strict=True)
            results = tuple(result if flag else result.sum(1) for result, flag in pairs)
        return results, (0,) * len(results)


def _replaced(tensors: Tensors, indices: Sequence[int], replacements: Tensors) -> Tensors:
    """The tensors with others at some indices."""
    replaced = list(tensors)
    for k, tensor in zip(indices, replacements, strict=True):
        replaced[k] = tensor
    return tuple(replaced)


def _add_batch(
    B: int, batch: BatchedSweeps | None, dims: Dims, tensors: Tensors
) -> tuple[BatchedSweeps, list[Tensor]]:
    """B times as many sweeps; ``dims`` are the dimensions that vmap maps over (None: not
    mapped)."""
    count = 1 if batch is None else batch.count
    is_batched = batch.is_batched if batch is not None else (False,) * len(tensors)
    expanded = []
    for tensor, dim, had_batch in zip(tensors, dims, is_batched, strict=True):
        if dim is None and not had_batch:
            expanded.append(tensor)
            continue
        moved = tensor.expand(B, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        if not had_batch and batch is not None:
            moved = moved.unsqueeze(1).expand(B, count, *moved.shape[1:])
        expanded.append(moved if batch is None else moved.flatten(0, 1))
    flags = tuple(
        dim is not None or had_batch for dim, had_batch in zip(dims, is_batched, strict=True)
    )
    return BatchedSweeps(B * count, flags), expanded


def _split_batch(result: Tensor, B: int, batch: BatchedSweeps | None) -> Tensor:
    """[B, ...], or [B, count, ...] if the sweeps were batched before."""
    return result if batch is None else result.unflatten(0, (B, batch.count))


def _vmapped(run: TensorFunction, is_batched: tuple[bool, ...] | None) -> TensorFunction:
    """Map a function of one sweep's tensors over batched sweeps."""
    if is_batched is None:
        return run
    mapped: TensorFunction = torch.func.vmap(
        run, in_dims=tuple(0 if flag else None for flag in is_batched)
    )
    return mapped


def _pullback(run: TensorFunction, inputs: Tensors) -> Callable[[Tensors], Tensors]:
    """The function from gradients of the outputs of ``run`` to those of its inputs."""
    _, pullback, *_ = torch.func.vjp(run, *inputs)
    return pullback


def _forward_derivative(run: TensorFunction, inputs: Tensors, directions: Tensors) -> Tensors:
    """Forward-mode derivative by two backward passes, which works under every transform."""
    zeros = tuple(torch.zeros_like(output) for output in run(*inputs))
    push = _pullback(lambda *grads: _pullback(run, inputs)(grads), zeros)
    return tuple(push(directions))
