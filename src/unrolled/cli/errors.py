"""Faults of the user's input: one line on stderr, exit code 2, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UserError", "told", "told_as_option"]


class UserError(Exception):
    """Something that the user gave cannot be used; the message is the whole story."""


@contextmanager
def told(*kinds: type[Exception]) -> Iterator[None]:
    """Tell the user about exceptions of these kinds; all others are faults of the library."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error


@contextmanager
def told_as_option(*options: str) -> Iterator[None]:
    """Tell the user about a ValueError of the form "name: wanted …"; the names of the command's
    options are shown as such.
    """
    try:
        yield
    except ValueError as error:
        name, wanted, rest = str(error).partition(": wanted ")
        if not (name.isidentifier() and wanted):
            raise
        shown = f"--{name.replace('_', '-')}" if name in options else name
        raise UserError(f"{shown}{wanted}{rest}") from error
