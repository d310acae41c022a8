"""The functions that equations are written with, for the arrays of any library.

One name serves torch tensors, NumPy arrays and, through ``__cell_function__``, tracers that record
the operations applied to them. No library is imported here: if an argument has a library's type,
the library is loaded already.
"""

import math
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, cast

from unrolled.cells._values import Array

Table = dict[str, Callable[..., Any]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _apply("sigmoid", x)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return _apply("tanh", x)


def relu(x: Array) -> Array:
    """max(x, 0); derivative 0 at 0, as in torch."""
    return _apply("relu", x)


def exp(x: Array) -> Array:
    """Exponential."""
    return _apply("exp", x)


def log(x: Array) -> Array:
    """Natural logarithm."""
    return _apply("log", x)


def sqrt(x: Array) -> Array:
    """Square root."""
    return _apply("sqrt", x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)); x itself where x > 20, as in torch."""
    return _apply("softplus", x)


def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return _apply("softsign", x)


def hard_sigmoid(x: Array) -> Array:
    """clip(x / 6 + 1/2, 0, 1), torch's form (Keras before 3 and ONNX use x / 5 + 1/2)."""
    return _apply("hard_sigmoid", x)


def hard_tanh(x: Array) -> Array:
    """clip(x, -1, 1)."""
    return _apply("hard_tanh", x)


def minimum(x: Array | float, y: Array | float) -> Array:
    """The smaller of two, element by element; either may be a number."""
    return _apply("minimum", x, y)


def maximum(x: Array | float, y: Array | float) -> Array:
    """The larger of two, element by element; either may be a number."""
    return _apply("maximum", x, y)


def clip(x: Array, low: float, high: float) -> Array:
    """x limited to [low, high]."""
    return _apply("clip", x, low, high)


def where(condition: Array, x: Array | float, y: Array | float) -> Array:
    """x where the condition holds, else y; NaN in the operand that is not selected has no
    effect."""
    return _apply("where", condition, x, y)


def mean(x: Array) -> Array:
    """Mean over the units of each row, keeping the axis: [..., W] to [..., 1]."""
    return _apply("mean", x)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b: [..., K], [M, K], [M] to [..., M]."""
    return _apply("linear", x, weight, bias)


def matrix_exp(x: Array) -> Array:
    """Exponential of a square matrix [K, K]."""
    return _apply("matrix_exp", x)


def zeros(array: Array, size: int) -> Array:
    """Zeros [size], of the library, dtype and device of another array."""
    return _apply("zeros", array, size)


def split(x: Array, count: int) -> Sequence[Array]:
    """Split the last axis into equal parts."""
    parts: object = _apply("split", x, count)
    return cast(Sequence[Array], parts)


def _apply(name: str, x: Array | float, *args: object) -> Array:
    for arg in (x, *args):
        table = _tables.get(type(arg)) or _find_table(type(arg))
        if table is not None:
            result: Array = table[name](x, *args)
            return result
        record: Callable[..., Array] | None = getattr(arg, "__cell_function__", None)
        if record is not None:
            return record(name, x, *args)
    types = ", ".join(type(arg).__name__ for arg in (x, *args))
    raise TypeError(f"{name}: x must be a torch tensor, a NumPy array or a tracer, got {types}")


def _find_table(cls: type) -> Table | None:
    for base in cls.__mro__:
        root = base.__module__.partition(".")[0]
        if root in _LIBRARIES:
            _tables[cls] = _LIBRARIES[root](sys.modules[root])
            return _tables[cls]
    return None


def _torch(torch: ModuleType) -> Table:
    functional = torch.nn.functional

    def minimum(x: object, y: object) -> object:
        if not torch.is_tensor(x):
            return torch.clamp(y, max=x)
        return torch.minimum(x, y) if torch.is_tensor(y) else torch.clamp(x, max=y)

    def maximum(x: object, y: object) -> object:
        if not torch.is_tensor(x):
            return torch.clamp(y, min=x)
        return torch.maximum(x, y) if torch.is_tensor(y) else torch.clamp(x, min=y)

    return {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "exp": torch.exp,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "softplus": functional.softplus,
        "softsign": functional.softsign,
        "hard_sigmoid": functional.hardsigmoid,
        "hard_tanh": functional.hardtanh,
        "minimum": minimum,
        "maximum": maximum,
        "clip": torch.clamp,
        "where": torch.where,
        "mean": lambda x: x.mean(-1, keepdim=True),
        "linear": functional.linear,
        "matrix_exp": torch.linalg.matrix_exp,
        "zeros": lambda array, size: array.new_zeros(size),
        "split": lambda x, count: x.chunk(count, -1),
    }


def _numpy(np: ModuleType) -> Table:
    def linear(x: object, weight: object, bias: object) -> object:
        product = np.matmul(x, np.transpose(weight))
        return product if bias is None else product + bias

    def matrix_exp(x: object) -> object:
        # exp(x) = exp(x / 2^s)^(2^s): a short series after s halvings, then s squarings.
        matrix = np.asarray(x)
        halvings = max(0, math.frexp(float(abs(matrix).sum(0).max()))[1] + 1)
        total = term = np.eye(len(matrix), dtype=matrix.dtype)
        for k in range(1, 19):
            term = term @ matrix / (k * 2**halvings)
            total = total + term
        return np.linalg.matrix_power(total, 2**halvings)

    return {
        "sigmoid": lambda x: 0.5 * (np.tanh(0.5 * x) + 1),
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "softplus": lambda x: np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
        "hard_tanh": lambda x: np.clip(x, -1, 1),
        "minimum": np.minimum,
        "maximum": np.maximum,
        "clip": np.clip,
        "where": np.where,
        "mean": lambda x: x.mean(-1, keepdims=True),
        "linear": linear,
        "matrix_exp": matrix_exp,
        "zeros": lambda array, size: np.zeros(size, array.dtype),
        "split": lambda x, count: np.split(x, count, axis=-1),
    }


_LIBRARIES = {"torch": _torch, "numpy": _numpy}
_tables: dict[type, Table] = {}
