"""Operators of ONNX on torch tensors, where torch has no function of the same meaning."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.onnx.operator_cells import Activation

__all__ = ["activate", "cast", "cast_like", "constant_of_shape", "divide", "expand", "flatten",
           "pick", "reshape", "separate", "shape_of", "slices", "split_", "squeeze", "steps",
           "unsqueeze"]  # fmt: skip


def separate(outputs: Tensor, D: int, turned: bool, last: bool) -> Tensor:
    """A layer's outputs [T, N, D·H] as the operators give them: [T, D, N, H]. ``turned``: of
    [N, T, D·H]. ``last``: with D and H last, and the first two axes as they are."""
    apart = outputs.unflatten(-1, (D, -1))
    if last:
        return apart
    return apart.permute(1, 2, 0, 3) if turned else apart.transpose(1, 2)


def reshape(x: Tensor, shape: Sequence[int] | Tensor, keep_zeros: bool = False) -> Tensor:
    """Reshape; 0 stands for the size that is there, unless ``keep_zeros``."""
    sizes = [int(size) for size in shape]
    if not keep_zeros:
        sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    return x.reshape(sizes)


def expand(x: Tensor, shape: Tensor) -> Tensor:
    """Expand to a shape, in both directions."""
    return x.expand(torch.broadcast_shapes(x.shape, [int(size) for size in shape]))


def constant_of_shape(shape: Tensor, value: Tensor) -> Tensor:
    """A tensor of a shape, filled with one value."""
    return value.reshape(()).expand([int(size) for size in shape]).clone()


def shape_of(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """The shape, or a part of it."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Drop axes of one; all without ``axes``.

    Raises:
        ValueError: an axis has another size.
    """
    if axes is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"Squeeze: axes {list(axes)} must have size 1, got shape {list(x.shape)}")
    return x.squeeze(tuple(int(axis) for axis in axes))


def flatten(x: Tensor, axis: int) -> Tensor:
    """A matrix: the axes before ``axis`` are its rows, the others its columns."""
    if axis < 0:
        axis += x.dim()
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Insert axes of one, at their places in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def pick(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Gather along an axis, by indices of any shape; negative ones count from the end."""
    axis %= x.dim()
    found = x.index_select(axis, (indices % x.shape[axis]).reshape(-1).long())
    return found.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def slices(x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    """Slice along axes, by default the first ones, as NumPy does; steps may be negative."""
    starts, ends = [int(one) for one in starts], [int(one) for one in ends]
    along = range(len(starts)) if axes is None else [int(axis) for axis in axes]
    strides = [1] * len(starts) if steps is None else [int(step) for step in steps]
    for start, end, axis, step in zip(starts, ends, along, strides, strict=True):
        size = x.shape[axis]
        if step < 0:
            kept = range(size)[slice(start, None if end < -size else end, step)]
            x = x.index_select(axis, torch.tensor(list(kept), dtype=torch.int64))
            continue
        begin, stop, _ = slice(start, end).indices(size)
        x = x.narrow(axis, begin, max(0, stop - begin))
        if step > 1:
            x = x.index_select(axis, torch.arange(0, x.shape[axis], step))
    return x


def split_(x: Tensor, sizes: Any, axis: int, count: int) -> tuple[Tensor, ...]:
    """Parts of given sizes along an axis, or so many of one size, the last one smaller."""
    if sizes is None:
        return x.split(-(-x.shape[axis] // count), axis)
    return x.split([int(size) for size in sizes], axis)


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Division; of integers towards zero."""
    whole = not (x.is_floating_point() or y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Another type of numbers."""
    return x.to(dtype)


def cast_like(x: Tensor, other: Tensor) -> Tensor:
    """The type of numbers of another tensor."""
    return x.to(other.dtype)


def steps(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from start to below limit."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def activate(x: Tensor, name: str, alpha: float | None = None, beta: float | None = None) -> Tensor:
    """One of the activation functions that have parameters, by its name."""
    return Activation(name, alpha, beta)(x)
