"""Errors in the user's input: one sentence on stderr and exit code 2, without a traceback."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_ARGUMENT = re.compile(r"[\w.]+: (?P<argument>\w+)(?P<text> must .*)", re.S)


class UserError(Exception):
    """The user's input is invalid; the message needs no further context."""


@contextmanager
def as_user_errors(*types: type[Exception]) -> Iterator[None]:
    """Raise exceptions of these types as `UserError`; any other exception is a bug."""
    try:
        yield
    except types as error:
        raise UserError(str(error)) from error


@contextmanager
def as_option_errors(*options: str) -> Iterator[None]:
    """Raise a ValueError about an argument ("LanguageModelConfig: steps must …") as `UserError`.

    If the argument is one of `options`, the message names the option instead: "--steps must …".
    """
    try:
        yield
    except ValueError as error:
        match = _ARGUMENT.fullmatch(str(error))
        if match is None:
            raise
        if match["argument"] not in options:
            raise UserError(str(error)) from error
        name = match["argument"].replace("_", "-")
        raise UserError(f"--{name}{match['text']}") from error
