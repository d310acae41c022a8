"""A warning where a cell falls to the slow engine and nobody asked for that."""

import warnings
from weakref import WeakKeyDictionary

from unrolled.cells import Cell
from unrolled.engines.caller import caller_level
from unrolled.engines.native.programs import recorded
from unrolled.engines.request import Sweep


class ReferenceWarning(UserWarning):
    """A cell runs on the reference engine, a loop in Python, where the native one was expected."""


_warned: WeakKeyDictionary[type[Cell], set[str]] = WeakKeyDictionary()


def warn_of_reference(sweep: Sweep) -> None:
    """Warn that the reference engine runs this sweep: once for each kind of cell and reason.

    Nothing is said where no engine could be faster: where no numbers are computed, or for numbers
    that no core has arithmetic for.
    """
    found = _reason(sweep)
    if found is None:
        return
    why, cure = found
    known = _warned.setdefault(type(sweep.cell), set())
    if why in known:
        return
    known.add(why)
    warnings.warn(
        f"the cell {type(sweep.cell).__name__} runs on the reference engine, a loop in Python that "
        f"is several times slower than the native core: {why}; {cure}. To ask for this engine, and "
        'silence this: with unrolled.engines.use("reference")',
        ReferenceWarning,
        stacklevel=caller_level(),
    )


def _reason(sweep: Sweep) -> tuple[str, str] | None:
    """Why the native engine is not used, as ``explain`` says it, and what helps."""
    device = sweep.values.device.type
    why = recorded(sweep.cell, sweep.sizes.projected).why
    if device == "meta" or sweep.values.is_complex():
        return None
    if why is not None:
        return why, "write its step with operators and the functions of unrolled.cells"
    if device != "cpu":
        return "the native core runs on the CPU", f"run it on the CPU if it is too slow on {device}"
    return None
