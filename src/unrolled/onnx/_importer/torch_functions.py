"""ONNX operators on torch tensors, for operators without an equivalent function in torch."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from unrolled.onnx._activations import Activation

_broadcast_shapes: Callable[..., torch.Size] = torch.broadcast_shapes  # has no types
Integers = Iterable[int | Tensor]
"""A list of ints, or a tensor of them."""


def separate_directions(outputs: Tensor, D: int, swapped: bool, directions_last: bool) -> Tensor:
    """A layer's outputs [T, N, D·H] as the operators give them: [T, D, N, H].

    ``swapped``: the outputs are [N, T, D·H]. ``directions_last``: the result has D and H last, and
    the first two axes as they are.
    """
    separated = torch.unflatten(outputs, -1, (D, -1))
    if directions_last:
        return separated
    return separated.permute(1, 2, 0, 3) if swapped else separated.transpose(1, 2)


def reshape(x: Tensor, shape: Integers, allow_zero: bool = False) -> Tensor:
    """Reshape; 0 stands for the size that x has there, unless ``allow_zero``."""
    sizes = [int(size) for size in shape]
    if not allow_zero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def expand(x: Tensor, shape: Integers) -> Tensor:
    """Expand to the common shape of x and ``shape``."""
    return x.expand(_broadcast_shapes(x.shape, [int(size) for size in shape]))


def constant_of_shape(shape: Integers, value: Tensor) -> Tensor:
    """A tensor of a shape, filled with one value."""
    return value.reshape(()).expand([int(size) for size in shape]).clone()


def shape_of(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """The shape, or a part of it."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Drop axes of size one, by default all.

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
    """Insert axes of size one at these places of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def gather(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Gather along an axis, by indices of any shape; negative ones count from the end."""
    axis %= x.dim()
    rows = x.index_select(axis, (indices % x.shape[axis]).reshape(-1).long())
    return rows.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def slice_along(
    x: Tensor,
    starts: Integers,
    ends: Integers,
    axes: Integers | None = None,
    steps: Integers | None = None,
) -> Tensor:
    """Slice along axes, by default the first ones, as NumPy does; steps may be negative."""
    starts, ends = [int(start) for start in starts], [int(end) for end in ends]
    sliced = range(len(starts)) if axes is None else [int(axis) for axis in axes]
    strides = [1] * len(starts) if steps is None else [int(step) for step in steps]
    for start, end, axis, step in zip(starts, ends, sliced, strides, strict=True):
        size = x.shape[axis]
        if step < 0:
            indices = range(size)[slice(start, None if end < -size else end, step)]
            x = x.index_select(axis, torch.tensor(list(indices), dtype=torch.int64))
            continue
        begin, stop, _ = slice(start, end).indices(size)
        x = x.narrow(axis, begin, max(0, stop - begin))
        if step > 1:
            x = x.index_select(axis, torch.arange(0, x.shape[axis], step))
    return x


def split_along(x: Tensor, sizes: Integers | None, axis: int, count: int) -> tuple[Tensor, ...]:
    """Parts of these sizes along an axis; without sizes ``count`` equal ones, the final one
    smaller if they do not divide the axis."""
    if sizes is None:
        return torch.split(x, -(-x.shape[axis] // count), axis)
    return torch.split(x, [int(size) for size in sizes], axis)


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Division; of integers towards zero."""
    is_float = x.is_floating_point() or y.is_floating_point()
    return torch.div(x, y, rounding_mode=None if is_float else "trunc")


def cast_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of another type."""
    return x.to(dtype)


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    """Numbers of the type of another tensor."""
    return x.to(like.dtype)


def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from start to below limit."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def activate(x: Tensor, name: str, alpha: float | None = None, beta: float | None = None) -> Tensor:
    """One of the activation functions that have parameters, by its name."""
    return cast(Tensor, Activation(name, alpha, beta)(x))
