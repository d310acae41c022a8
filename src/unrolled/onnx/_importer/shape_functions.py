"""Shapes of the results of single operators, from the shapes of their inputs.

A size is a number, the name of a free dimension, or "" if it is unknown.
"""

import math
from collections.abc import Sequence

from unrolled.onnx._importer.attributes import Attributes

Size = int | str
Dims = list[Size]
Shape = Dims | None
"""None is a shape of unknown rank."""
MIN_UNBOUNDED_END = 2**31 - 1
"""Ends of slices from this value on mean the end of the axis."""


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The common shape of arrays that are broadcast to one another."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(len(shape) for shape in known)
    padded: list[Dims] = []
    for shape in known:
        leading: Dims = [1] * (rank - len(shape))
        padded.append([*leading, *shape])
    return [_common_size([shape[axis] for shape in padded]) for axis in range(rank)]


def _common_size(sizes: Dims) -> Size:
    """The size of an axis along which arrays have these sizes: those of one are expanded."""
    expanded = [size for size in sizes if size != 1]
    if not expanded:
        return 1
    numbers = [size for size in expanded if isinstance(size, int)]
    if numbers:
        return numbers[0]
    return expanded[0] if len(set(expanded)) == 1 else ""


def concat(x: Dims, shapes: Sequence[Shape], axis: int) -> Shape:
    """Arrays one after the other along an axis; ``x`` is the first one's shape."""
    axis %= len(x)
    total: Size = 0
    for shape in shapes:
        size = "" if shape is None else shape[axis]
        total = total + size if isinstance(total, int) and isinstance(size, int) else ""
    return [*x[:axis], total, *x[axis + 1 :]]


def equal_parts(size: Size, count: int) -> Dims | None:
    """The sizes of equal parts of an axis, if that is certain to be divisible."""
    return [size // count] * count if isinstance(size, int) and size % count == 0 else None


def flatten(x: Dims, axis: int) -> Shape:
    """A matrix of the axes before ``axis`` and of the remaining ones."""
    return [_product(x[:axis]), _product(x[axis:])]


def _product(dims: Dims) -> Size:
    return math.prod(map(int, dims)) if all(isinstance(size, int) for size in dims) else ""


def matmul(x: Dims, y: Shape) -> Shape:
    """A product of matrices, or of batches of them."""
    if y is None or len(x) < 2 or len(y) < 2:
        return None
    batch = broadcast([x[:-2], y[:-2]])
    return None if batch is None else [*batch, x[-2], y[-1]]


def reduce(x: Dims, axes: Sequence[int] | None, keep: bool) -> Shape:
    """A reduction over axes, by default all, which stay with size one if ``keep``."""
    reduced = {axis % len(x) for axis in axes or range(len(x))}
    if keep:
        return [1 if axis in reduced else size for axis, size in enumerate(x)]
    return [size for axis, size in enumerate(x) if axis not in reduced]


def reshape(x: Dims, shape: Dims, allow_zero: bool) -> Shape:
    """``shape`` with 0 replaced by the size of x (unless ``allow_zero``), and -1 by the size that
    is left."""
    copied: Dims = [x[axis] if size == 0 and not allow_zero else size
                    for axis, size in enumerate(shape)]  # fmt: skip
    if -1 not in copied:
        return copied
    inferred = _remaining_size(x, [size for size in copied if size != -1])
    return [inferred if size == -1 else size for size in copied]


def _remaining_size(x: Dims, sizes: Dims) -> Size:
    """The size of the one axis that is missing when x is reshaped to these sizes."""
    factors = list(x)
    for size in sizes:
        if isinstance(size, str):
            if not size or size not in factors:
                return ""
            factors.remove(size)
    names = [size for size in factors if isinstance(size, str)]
    elements = math.prod(size for size in factors if isinstance(size, int))
    divisor = math.prod(size for size in sizes if isinstance(size, int))
    if not names and divisor and elements % divisor == 0:
        return elements // divisor
    return names[0] if len(names) == 1 and elements == divisor else ""


def shape_range(x: Dims, attributes: Attributes) -> Dims:
    """The sizes that the operator Shape returns."""
    return x[attributes.integer("start", 0) : attributes.optional_integer("end")]


def slice_along(
    x: Dims,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> Shape:
    """Slices along axes, as in NumPy."""
    dims = list(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x[axis]
        if isinstance(size, int):
            stop = None if step < 0 and end < -size else end
            dims[axis] = len(range(size)[start:stop:step])
        elif (start, step) != (0, 1) or end < MIN_UNBOUNDED_END:
            dims[axis] = ""
    return dims


def squeeze(x: Dims, axes: Sequence[int] | None) -> Shape:
    """Remove these axes, by default all of size one."""
    if axes is None:
        return None if any(isinstance(size, str) for size in x) else [s for s in x if s != 1]
    dropped = {axis % len(x) for axis in axes}
    return [size for axis, size in enumerate(x) if axis not in dropped]


def transpose(x: Dims, perm: Sequence[int] | None) -> Shape:
    """Transpose the axes, by default to the reverse order."""
    return [x[axis] for axis in (range(len(x))[::-1] if perm is None else perm)]


def unsqueeze(x: Dims, axes: Sequence[int]) -> Shape:
    """Insert axes of size one at these positions of the result."""
    rank = len(x) + len(axes)
    inserted = {axis % rank for axis in axes}
    sizes = iter(x)
    return [1 if axis in inserted else next(sizes) for axis in range(rank)]
