"""What torch does around a call: tracing, transforms, dispatch modes; tensors without values."""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    """The values of a tensor; under torch.func new tensors come wrapped."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor.detach().cpu().numpy().astype(dtype, copy=False)
