"""Checks of constructor arguments, in torch.nn's exception classes."""

import operator
import warnings
from typing import Any

from torch import nn

from unrolled import cells
from unrolled.cells import Cell
from unrolled.cells.cell import check_cell
from unrolled.engines import caller_level
from unrolled.nn import phrases
from unrolled.spec import MERGES


class ArgumentTypeError(TypeError, AttributeError):
    """An argument is of a wrong kind.

    It is a TypeError; torch.nn lets the same calls fail with an AttributeError, so code that
    catches either keeps working.
    """


class StateTypeError(ArgumentTypeError, RuntimeError, IndexError):
    """States are of a wrong kind, as one tensor for a cell of two.

    torch.nn fails there with a RuntimeError or an IndexError, which depends on the tensor's shape.
    """


def as_cell(cell: Any) -> Cell:
    """A cell from a cell or its class.

    Raises:
        ArgumentTypeError: it is neither.
        CellError: the cell contradicts itself.
    """
    if isinstance(cell, type) and issubclass(cell, Cell):
        cell = cell()
    if isinstance(cell, Cell):
        check_cell(cell)
        return cell
    raise ArgumentTypeError(
        f"cell must be a Cell or a subclass of it, got {_shown(cell)}; see unrolled.cells"
    )


def _shown(value: Any) -> str:
    """What was passed as a cell; for layers and names of cells, what was meant."""
    if isinstance(value, str):
        name, shown = value, f"the name {value!r}"
    else:
        cls = value if isinstance(value, type) else type(value)
        if not issubclass(cls, nn.Module):
            return repr(value)
        kind = f"{cls.__module__.removesuffix('.modules.rnn').removesuffix('.classic')}"
        name, shown = cls.__name__.removesuffix("Cell"), f"the module {kind}.{cls.__name__}"
    return f"{shown}, whose cell is unrolled.cells.{name}" if name in cells.__all__ else shown


def as_size(who: str, name: str, value: Any) -> int:
    """An integer from anything with ``__index__``: an int, a NumPy integer, a 0-d integer tensor.

    Raises:
        TypeError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"{who}: {phrases.wrong_type(name, 'int', value)}; {name} must be an integer, or "
            f"anything with __index__, got {value!r}"
        ) from error


def as_positive(who: str, name: str, value: Any) -> int:
    """A size above zero.

    Raises:
        TypeError: it is no integer.
        ValueError: it is not above zero.
    """
    size = as_size(who, name, value)
    if size <= 0:
        raise ValueError(f"{who}: {phrases.not_positive(name)}, got {size}")
    return size


def as_projection(who: str, value: Any, hidden_size: int) -> int:
    """P, or 0 for no projection.

    Raises:
        TypeError: it is no integer.
        ValueError: it is negative, or not below ``hidden_size``.
    """
    size = 0 if isinstance(value, float) and value == 0 else as_size(who, "proj_size", value)
    if size < 0:
        raise ValueError(f"{who}: {phrases.NEGATIVE_PROJECTION}, got {size}")
    if size >= hidden_size:
        raise ValueError(
            f"{who}: {phrases.WIDE_PROJECTION}; proj_size must be 0 (no projection) or smaller "
            f"than hidden_size={hidden_size}, got {size}"
        )
    return size


def check_flags(who: str, **flags: Any) -> None:
    """Arguments that must be bool, as torch wants ``bias`` and ``batch_first``.

    Raises:
        TypeError: one is not.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(
                f"{who}: {phrases.wrong_type(name, 'bool', flag)}; {name} must be a bool, got "
                f"{flag!r}"
            )


def as_probability(who: str, dropout: Any, num_layers: int) -> float:
    """A probability from a number or a 0-d tensor or array; a warning where it cannot act.

    Raises:
        TypeError: it is of a kind that has no number.
        ValueError: it is not in [0, 1], or a bool, a text or several numbers.
    """
    wanted = f"dropout must be a number in [0, 1], got {dropout!r}"
    try:
        number = float(dropout)
    except TypeError as error:
        raise TypeError(f"{who}: {error}; {wanted}") from error
    except (ValueError, RuntimeError, OverflowError) as error:  # torch's own of several elements
        raise ValueError(f"{who}: {error}; {wanted}") from error
    kind = str(getattr(dropout, "dtype", type(dropout).__name__))
    if "bool" in kind or "str" in kind or "bytes" in kind or not 0 <= number <= 1:
        raise ValueError(f"{who}: {phrases.DROPOUT}; {wanted}")
    if number > 0 and num_layers == 1:
        warnings.warn(
            f"{phrases.unused_dropout(dropout, num_layers)}: it does nothing here; use num_layers "
            "greater than 1, or dropout=0",
            stacklevel=caller_level(),
        )
    return number


def as_bidirectional(who: str, value: Any) -> Any:
    """Anything but a text stands for its truth, as in torch.nn: 1, None, a NumPy bool.

    Raises:
        TypeError: it is a text ("no" would be true).
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"{who}: bidirectional must be a bool, got {value!r}")
    return value if isinstance(value, int) else bool(value)


def check_merge(who: str, merge: Any) -> None:
    """How two directions become one output.

    Raises:
        ValueError: there is no such way.
    """
    if merge not in MERGES:
        raise ValueError(
            f"{who}: merge must be one of {', '.join(map(repr, MERGES))}, got {merge!r}"
        )


def as_checkpoint(who: str, checkpoint: Any) -> int:
    """Steps of a segment, or whether to choose them.

    Raises:
        TypeError: it is neither a bool nor an integer.
        ValueError: it is negative.
    """
    if isinstance(checkpoint, bool):
        return checkpoint
    try:
        steps = operator.index(checkpoint)
    except TypeError as error:
        raise TypeError(
            f"{who}: checkpoint must be a bool or a number of steps, got {checkpoint!r} of type "
            f"{type(checkpoint).__name__}"
        ) from error
    if steps < 0:
        raise ValueError(f"{who}: checkpoint must be a bool or a number of steps, got {checkpoint}")
    return steps
