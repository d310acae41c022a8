"""FLOPs of the operator for ``torch.utils.flop_counter``: as for torch's operators, two for each
multiply-add of a matrix product and none for elementwise operations."""

import torch
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from unrolled.engines._native.operator import sweep, sweep_backward  # noqa: F401  what is counted
from unrolled.engines._native.operator_arguments import SweepArguments

__all__ = ["backward_flops", "forward_flops"]

_ARGUMENT_COUNT = 11  # those that the operator and its backward share


@register_flop_formula(torch.ops.unrolled.sweep, get_raw=True)
def forward_flops(*values: object, out_val: object = None) -> int:
    """FLOPs of a sweep; padding is not computed, so it is not counted."""
    arguments = SweepArguments.of_call(values[:_ARGUMENT_COUNT])
    token_count = arguments.T * arguments.N
    if arguments.lengths is not None and not isinstance(arguments.lengths, FakeTensor):
        token_count = int(arguments.lengths.clamp(0, arguments.T).sum())
    products = [matrix for matrix in arguments.matrices if matrix.dim() == 2]
    return 2 * token_count * sum(matrix.numel() for matrix in products)


@register_flop_formula(torch.ops.unrolled.sweep_backward, get_raw=True)
def backward_flops(*values: object, out_val: object = None) -> int:
    """FLOPs of its backward: for each product, one for its argument and one for its weight."""
    return 2 * forward_flops(*values)
