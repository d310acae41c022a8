"""Checks of constructor arguments, in torch.nn's exception classes."""

import operator
import warnings
from typing import SupportsFloat, SupportsIndex, cast

from torch import nn

from unrolled import cells
from unrolled._spec import MERGES
from unrolled.cells import Cell
from unrolled.cells._cell import check_cell
from unrolled.engines._caller import caller_level
from unrolled.nn import _phrases as phrases


class ArgumentTypeError(TypeError, AttributeError):
    """An argument has a wrong type.

    torch.nn raises AttributeError in some of these calls; code that catches either one works.
    """


class StateTypeError(ArgumentTypeError, RuntimeError, IndexError):
    """States have a wrong type, such as one tensor for a cell with two states.

    torch.nn raises a RuntimeError or an IndexError there, depending on the tensor's shape.
    """


def as_cell(cell: object) -> Cell:
    """A cell from a cell or its class.

    Raises:
        ArgumentTypeError: the argument is neither a cell nor its class.
        CellError: the cell's declaration is inconsistent.
    """
    if isinstance(cell, type) and issubclass(cell, Cell):
        cell = cell()
    if isinstance(cell, Cell):
        check_cell(cell)
        return cell
    raise ArgumentTypeError(
        f"cell must be a Cell or a subclass of it, got {_describe(cell)}; see unrolled.cells"
    )


def _describe(value: object) -> str:
    """Describe an argument passed as a cell; for a layer or a name, also the cell that is meant."""
    if isinstance(value, str):
        name, text = value, f"the name {value!r}"
    else:
        cls = value if isinstance(value, type) else type(value)
        if not issubclass(cls, nn.Module):
            return repr(value)
        package = cls.__module__.removesuffix(".modules.rnn").removesuffix("._classic")
        name, text = cls.__name__.removesuffix("Cell"), f"the module {package}.{cls.__name__}"
    return f"{text}, whose cell is unrolled.cells.{name}" if name in cells.__all__ else text


def as_size(layer: str, name: str, value: object) -> int:
    """An integer from anything with ``__index__``: an int, a NumPy integer, a 0-d integer tensor.

    Raises:
        TypeError: the value has no ``__index__``.
    """
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError as error:
        raise TypeError(
            f"{layer}: {phrases.wrong_type(name, 'int', value)}; {name} must be an integer, or "
            f"anything with __index__, got {value!r}"
        ) from error


def as_positive(layer: str, name: str, value: object) -> int:
    """A positive size.

    Raises:
        TypeError: the value is not an integer.
        ValueError: the value is not positive.
    """
    size = as_size(layer, name, value)
    if size <= 0:
        raise ValueError(f"{layer}: {phrases.not_positive(name)}, got {size}")
    return size


def as_projection(layer: str, value: object, hidden_size: int) -> int:
    """P, or 0 for no projection.

    Raises:
        TypeError: the value is not an integer.
        ValueError: the value is negative, or not below ``hidden_size``.
    """
    size = 0 if isinstance(value, float) and value == 0 else as_size(layer, "proj_size", value)
    if size < 0:
        raise ValueError(f"{layer}: {phrases.NEGATIVE_PROJECTION}, got {size}")
    if size >= hidden_size:
        raise ValueError(
            f"{layer}: {phrases.WIDE_PROJECTION}; proj_size must be 0 (no projection) or smaller "
            f"than hidden_size={hidden_size}, got {size}"
        )
    return size


def check_flags(layer: str, **flags: object) -> None:
    """Check arguments that must be bool, as ``bias`` and ``batch_first`` in torch.nn.

    Raises:
        TypeError: an argument is not a bool.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(
                f"{layer}: {phrases.wrong_type(name, 'bool', flag)}; {name} must be a bool, got "
                f"{flag!r}"
            )


def as_probability(layer: str, dropout: object, num_layers: int) -> float:
    """A probability from a number, or a 0-d tensor or array; warns if it has no effect.

    Raises:
        TypeError: the type cannot be converted to a number.
        ValueError: it is not in [0, 1], or it is a bool, a string or several numbers.
    """
    requirement = f"dropout must be a number in [0, 1], got {dropout!r}"
    try:
        number = float(cast(SupportsFloat, dropout))
    except TypeError as error:
        raise TypeError(f"{layer}: {error}; {requirement}") from error
    except (ValueError, RuntimeError, OverflowError) as error:  # torch's for several elements
        raise ValueError(f"{layer}: {error}; {requirement}") from error
    dtype = str(getattr(dropout, "dtype", type(dropout).__name__))
    if "bool" in dtype or "str" in dtype or "bytes" in dtype or not 0 <= number <= 1:
        raise ValueError(f"{layer}: {phrases.DROPOUT}; {requirement}")
    if number > 0 and num_layers == 1:
        warnings.warn(
            f"{phrases.unused_dropout(dropout, num_layers)}: it has no effect here; use num_layers "
            "greater than 1, or dropout=0",
            stacklevel=caller_level(),
        )
    return number


def as_bidirectional(layer: str, value: object) -> bool | int:
    """A bool from any value but a string, as in torch.nn: 1, None, a NumPy bool.

    Raises:
        TypeError: it is a string ("no" would be true).
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"{layer}: bidirectional must be a bool, got {value!r}")
    return value if isinstance(value, int) else bool(value)


def check_merge(layer: str, merge: object) -> None:
    """Check how the outputs of two directions are merged.

    Raises:
        ValueError: ``merge`` is not one of ``MERGES``.
    """
    if merge not in MERGES:
        raise ValueError(
            f"{layer}: merge must be one of {', '.join(map(repr, MERGES))}, got {merge!r}"
        )


def as_checkpoint(layer: str, checkpoint: object) -> int:
    """The steps of a segment; True chooses their number, False turns checkpointing off.

    Raises:
        TypeError: the value is neither a bool nor an integer.
        ValueError: it is negative.
    """
    if isinstance(checkpoint, bool):
        return checkpoint
    try:
        steps = operator.index(cast(SupportsIndex, checkpoint))
    except TypeError as error:
        raise TypeError(
            f"{layer}: checkpoint must be a bool or a number of steps, got {checkpoint!r} of type "
            f"{type(checkpoint).__name__}"
        ) from error
    if steps < 0:
        raise ValueError(
            f"{layer}: checkpoint must be a bool or a number of steps, got {checkpoint}"
        )
    return steps
