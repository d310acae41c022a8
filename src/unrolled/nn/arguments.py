"""Checks of constructor arguments, in torch.nn's exception classes."""

import numbers
import sys
import warnings
from pathlib import Path
from typing import Any

from unrolled.cells import Cell, check_cell
from unrolled.spec import MERGES


class ArgumentTypeError(TypeError, AttributeError):
    """An argument is of a wrong kind.

    It is a TypeError; torch.nn lets the same calls fail with an AttributeError, so code that
    catches either keeps working.
    """


def as_cell(cell: Any) -> Cell:
    """A cell from a cell or its class."""
    if isinstance(cell, type) and issubclass(cell, Cell):
        cell = cell()
    if isinstance(cell, Cell):
        check_cell(cell)
        return cell
    raise ArgumentTypeError(
        f"cell must be a Cell or a subclass of it, got {cell!r}; see unrolled.cells"
    )


def check_sizes(
    input_size: Any, hidden_size: Any, num_layers: Any, proj_size: Any, bias: Any, batch_first: Any
) -> None:
    """Sizes are positive integers; bias and batch_first are bool, as torch wants them."""
    for name, flag in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be a bool, got {flag!r} of type {type(flag).__name__}")
    named = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
    for name, size in named.items():
        if not isinstance(size, int):
            raise TypeError(f"{name} must be an int, got {size!r} of type {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero, got {size}")
    if not isinstance(proj_size, int):
        raise TypeError(f"proj_size must be an int, got {proj_size!r}")
    if not 0 <= proj_size < hidden_size:
        raise ValueError(
            f"proj_size must be 0 (no projection) or smaller than hidden_size={hidden_size}, "
            f"got {proj_size}"
        )


def check_dropout(dropout: Any, num_layers: int) -> None:
    """A probability; a warning where it cannot act."""
    number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a number in [0, 1], got {dropout!r}")
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout} acts between layers only and num_layers=1 has none: it does "
            "nothing; use num_layers greater than 1",
            stacklevel=_outside(),
        )


def _outside() -> int:
    """How many calls up the code of this package ends, for warnings to point at the user's."""
    here, level = str(Path(__file__).parent), 2
    frame = sys._getframe(level)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    return level


def check_choices(bidirectional: Any, merge: Any) -> None:
    """Directions and how they are merged."""
    if not isinstance(bidirectional, int):
        raise TypeError(f"bidirectional must be a bool, got {bidirectional!r}")
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {', '.join(map(repr, MERGES))}, got {merge!r}")


def check_checkpoint(checkpoint: Any) -> None:
    """Steps of a segment, or whether to choose them."""
    if not isinstance(checkpoint, int):
        raise TypeError(
            f"checkpoint must be a bool or a number of steps, got {checkpoint!r} of type "
            f"{type(checkpoint).__name__}"
        )
    if checkpoint < 0:
        raise ValueError(f"checkpoint must be a bool or a number of steps, got {checkpoint}")
