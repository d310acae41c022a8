"""Torch's modes around a call (tracing, transforms, dispatch modes), and values of wrapped
tensors."""

from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

Scalar = TypeVar("Scalar", bound=np.generic)

_functorch = torch._C._functorch


def is_transformed() -> bool:
    """Whether functorch or forward-mode differentiation is active."""
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def is_batched(tensor: Tensor) -> bool:
    """Whether vmap or a batched backward hides a tensor's values."""
    return _functorch.is_batchedtensor(tensor) or _functorch.is_legacy_batchedtensor(tensor)


def is_tracing() -> bool:
    """Whether torch.jit.trace records this call."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def has_dispatch_mode() -> bool:
    """Whether a mode (a counter of FLOPs, fake tensors) watches each operator."""
    return torch._C._len_torch_dispatch_stack() > 0


def to_numpy(tensor: Tensor, dtype: type[Scalar]) -> NDArray[Scalar]:
    """The values of an integer or bool tensor, also if torch.func has wrapped it."""
    tensor = _unwrapped(tensor)
    with temporarily_clear_interpreter_stack() if is_transformed() else nullcontext():
        return tensor.cpu().numpy().astype(dtype, copy=False)


def to_tensor(array: NDArray[np.int64]) -> Tensor:
    """An array as a tensor that the core can read, whatever transforms are active."""
    return _unwrapped(torch.from_numpy(array))


def _unwrapped(tensor: Tensor) -> Tensor:
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor
