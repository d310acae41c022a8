"""The dtype of a call: what autocast changes it to."""

import torch
from torch import Tensor


def autocast_dtype(values: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks for where these values are; None where it leaves them alone."""
    device = values.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    if not values.is_floating_point() or values.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def lower(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in the dtype that autocast asks for, if any: to it a sweep is like a product."""
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype)
