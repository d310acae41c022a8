"""Many sweeps of the same shape in one call of the core, as vmap requires.

Sweeps that share all parameters are merged into one with more sequences, and the core sums weight
gradients for each sweep. Sweeps with different parameters run in parallel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.engines._native.autograd import SweepCall, make_sweep_call
from unrolled.engines._native.call import run_backward, run_forward


@dataclass(frozen=True)
class BatchedSweeps:
    """The number of sweeps B, and which tensors have a leading dimension B; all sweeps share the
    others."""

    count: int
    is_batched: tuple[bool, ...]

    def share_parameters(self, call: SweepCall) -> bool:
        """Whether all sweeps have the same parameters."""
        return not any(self.is_batched[1 + call.state_count : call.tensor_count])


def forward_batched(
    call: SweepCall, batch: BatchedSweeps, tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Output, what backward needs, final states, [B, ...] each."""
    if not batch.share_parameters(call):
        output, saved, final = call.compiled.forward_batched(
            batch.count, batch.is_batched, tensors, True, torch.get_num_threads()
        )
        assert saved is not None
        return output, saved, *final
    merged = _MergedSweeps(call, batch)
    output, saved, final = run_forward(
        merged.call().compiled, merged.inputs(tensors), training=True
    )
    assert saved is not None
    leading_shape = tensors[0].shape[1 if batch.is_batched[0] else 0 : -1]
    output = output.view(batch.count, *leading_shape, output.shape[-1])
    return output, merged.split(saved), *(merged.split(state) for state in final)


def backward_batched(
    call: SweepCall,
    batch: BatchedSweeps,
    needs_grad: Sequence[bool],
    per_sweep: bool,
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    """Gradients of the tensors that need one: [B, ...] of batched tensors, and of all tensors with
    ``per_sweep``; otherwise sums over the sweeps.

    ``tensors`` are those of the forward run, its output, what it saved for backward, and the
    gradients of output and final states.
    """
    count = len(needs_grad)
    if batch.share_parameters(call):
        return _backward_merged(call, batch, needs_grad, per_sweep, tensors)
    inputs, (output, saved, *output_grads) = tensors[:count], tensors[count:]
    grads = call.compiled.backward_batched(
        batch.count,
        batch.is_batched,
        inputs,
        output,
        saved,
        output_grads,
        needs_grad,
        torch.get_num_threads(),
    )
    return [
        grad if per_sweep or is_batched else grad.sum(0)
        for grad, is_batched in zip(grads, batch.is_batched, strict=False)
        if grad is not None
    ]


def _backward_merged(
    call: SweepCall,
    batch: BatchedSweeps,
    needs_grad: Sequence[bool],
    per_sweep: bool,
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    merged, B, count = _MergedSweeps(call, batch), batch.count, len(needs_grad)
    output, saved, output_grad, *final_grads = (
        tensor if is_batched else tensor.expand(B, *tensor.shape)
        for tensor, is_batched in zip(tensors[count:], batch.is_batched[count:], strict=True)
    )
    inputs = merged.inputs(tensors[:count])
    tokens_grad, *other_grads = run_backward(
        merged.call(groups=B if per_sweep else 1).compiled,
        inputs,
        merged.rows(output),
        merged.merge(saved),
        (merged.rows(output_grad), *map(merged.merge, final_grads)),
        needs_grad,
    )
    data_grads: list[Tensor | None] = [None]
    if tokens_grad is not None:
        data_grads = [tokens_grad.view(*output.shape[:-1], tokens_grad.shape[-1])]
    for grad in other_grads[: call.state_count]:
        data_grads.append(None if grad is None else merged.split(grad))
    leading_shape = (B,) if per_sweep else ()
    parameters = inputs[1 + call.state_count :]
    return [
        *(
            grad if per_sweep or is_batched else grad.sum(0)
            for grad, is_batched in zip(data_grads, batch.is_batched, strict=False)
            if grad is not None
        ),
        *(
            grad.view(*leading_shape, *parameter.shape)
            for grad, parameter in zip(other_grads[call.state_count :], parameters, strict=True)
            if grad is not None
        ),
    ]


@dataclass(frozen=True)
class _MergedSweeps:
    """Sweeps with the same parameters, merged: sequence n of sweep b becomes n * B + b."""

    single: SweepCall
    batch: BatchedSweeps

    def call(self, groups: int = 1) -> SweepCall:
        """The merged call; for ``groups`` see ``compile_sweep``."""
        single = self.single
        rows = single.rows.repeated(self.batch.count)
        return make_sweep_call(
            single.cell,
            single.sizes,
            rows,
            single.names,
            single.state_count,
            groups=groups,
            bf16_products=single.compiled.bf16_products,
        )

    def inputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tokens, states and parameters of the merged call."""
        count = 1 + self.single.state_count
        tokens, *states = (
            tensor if is_batched else tensor.expand(self.batch.count, *tensor.shape)
            for tensor, is_batched in zip(tensors[:count], self.batch.is_batched, strict=False)
        )
        return [self.rows(tokens), *map(self.merge, states), *tensors[count:]]

    def rows(self, tensor: Tensor) -> Tensor:
        """[B, ..., width] as rows."""
        return tensor.flatten(0, -2)

    def merge(self, tensor: Tensor) -> Tensor:
        """[B, N, width] as [N * B, width]."""
        return tensor.transpose(0, 1).flatten(0, 1)

    def split(self, tensor: Tensor) -> Tensor:
        """[N * B, width] as [B, N, width]."""
        B = self.batch.count
        return tensor.view(tensor.shape[0] // B, B, tensor.shape[1]).transpose(0, 1)
