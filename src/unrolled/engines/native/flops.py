"""What ``torch.utils.flop_counter`` counts for the operator: two for each multiplication and
addition of a matrix product, as for torch's own; pointwise work counts nothing, as there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from unrolled.engines.native.operator import sweep, sweep_backward  # noqa: F401  what is counted

__all__ = ["backward_flops", "forward_flops"]


@register_flop_formula(torch.ops.unrolled.sweep, get_raw=True)
def forward_flops(
    values: Tensor,
    states: Sequence[Tensor],
    reset_states: Sequence[Tensor] | None,
    matrices: Sequence[Tensor] | None,
    vectors: Sequence[Tensor] | None,
    program: str,
    sizes: Sequence[int],
    batch_first: bool,
    reverse: bool,
    lengths: Tensor | None,
    resets: Tensor | None,
    auxiliary: Sequence[Tensor] | None,
    groups: int,
    first: int,
    last: int,
    *backward: Any,
    out_val: Any = None,
) -> int:
    """Of a sweep over its tokens: padding is not computed, so it is not counted."""
    T, N = values.shape[:2] if not batch_first else values.shape[1::-1]
    steps = (T if last == -1 else last) - first
    tokens = steps * N
    if lengths is not None and not isinstance(lengths, FakeTensor):
        tokens = int((lengths - first).clamp(0, steps).sum())
    dimensions = 2 if groups == 1 else 3
    products = [matrix for matrix in matrices or () if matrix.dim() == dimensions]
    return 2 * tokens * sum(matrix.numel() // groups for matrix in products)


@register_flop_formula(torch.ops.unrolled.sweep_backward, get_raw=True)
def backward_flops(*arguments: Any, out_val: Any = None) -> int:
    """Of its gradient: a product for what is multiplied and one for the weight."""
    return 2 * forward_flops(*arguments)
