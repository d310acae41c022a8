"""Warns when a cell falls back to the reference engine without being asked to."""

import warnings
from weakref import WeakKeyDictionary

from unrolled.cells import Cell
from unrolled.engines._caller import caller_level
from unrolled.engines._native.programs import traced_program
from unrolled.engines._request import Sweep


class ReferenceWarning(UserWarning):
    """A cell runs on the reference engine, a loop in Python, where the native one was expected."""


_warned_reasons: WeakKeyDictionary[type[Cell], set[str]] = WeakKeyDictionary()


def warn_of_reference(sweep: Sweep) -> None:
    """Warn that the reference engine runs this sweep: once for each class of cell and reason.

    There is no warning where no engine could be faster: on the meta device, and for complex
    numbers.
    """
    diagnosis = _reason_and_advice(sweep)
    if diagnosis is None:
        return
    reason, advice = diagnosis
    warned = _warned_reasons.setdefault(type(sweep.cell), set())
    if reason in warned:
        return
    warned.add(reason)
    warnings.warn(
        f"the cell {type(sweep.cell).__name__} runs on the reference engine, a loop in Python that "
        f"is several times slower than the native core: {reason}; {advice}. To choose this engine "
        'without a warning: with unrolled.engines.use("reference")',
        ReferenceWarning,
        stacklevel=caller_level(),
    )


def _reason_and_advice(sweep: Sweep) -> tuple[str, str] | None:
    """Why the native engine is not used, as ``explain`` says, and what to do about it."""
    device = sweep.tokens.device.type
    refusal = traced_program(sweep.cell, sweep.sizes.projected).refusal
    if device == "meta" or sweep.tokens.is_complex():
        return None
    if refusal is not None:
        return refusal, "write its step with operators and the functions of unrolled.cells"
    if device != "cpu":
        return "the native core runs on the CPU", f"run it on the CPU if it is too slow on {device}"
    return None
