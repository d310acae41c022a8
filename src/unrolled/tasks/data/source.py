"""Reading the user's data: files and standard input alike, and the error that names file and line.

What the text of a file means is left to `tables`, `conll` and the others.
"""

import os
import sys
from pathlib import Path
from typing import TypeAlias

from unrolled.limits import shorten

__all__ = [
    "DataError",
    "Source",
    "StandardInput",
    "file_suffix",
    "read_bytes",
    "read_lines",
    "read_utf8",
]


class DataError(ValueError):
    """Data that cannot be used. The message, in one line, is the whole story: where, what was
    wanted, what came, the cure. What it repeats of the data is cut."""

    def __init__(self, message: str) -> None:
        super().__init__(shorten(message))


class StandardInput:
    """Standard input, as a file of the same bytes; they are read once."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def __str__(self) -> str:
        return "standard input"

    def read_bytes(self) -> bytes:
        """All bytes until the end of the input.

        Raises:
            OSError: it is closed or cannot be read.
        """
        if self._data is None:
            if sys.stdin is None:
                raise OSError("it is closed")
            self._data = sys.stdin.buffer.read()
        return self._data


Source: TypeAlias = str | os.PathLike[str] | StandardInput
"""What data are read from; its ``str`` is its name in messages."""


def file_suffix(source: Source) -> str:
    """The end of a file's name in lower case, ".csv" for one; empty for standard input."""
    return "" if isinstance(source, StandardInput) else Path(source).suffix.lower()


def read_bytes(source: Source) -> bytes:
    """The bytes of a file or of standard input.

    Raises:
        DataError: they cannot be read.
    """
    try:
        return (source if isinstance(source, StandardInput) else Path(source)).read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None


def read_utf8(path: Source) -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends as they are.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 text; the message names the line.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark the position counts from behind it; the lines are the same.
        before, byte = error.object[: error.start], error.object[error.start]
        got = f"the byte 0x{byte:02x}"
    else:
        if "\0" not in text:
            return text
        before, got = text[: text.index("\0")].encode(), "a zero byte, as in UTF-16"
    line = before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1
    raise DataError(f"{path}, line {line}: wanted UTF-8, got {got}; save the file as UTF-8")


def read_lines(path: Source) -> list[str]:
    """The lines of a UTF-8 file, without their ends.

    A line ends at LF, CR LF or CR, as in Python's universal newlines, and nowhere else: U+2028, a
    form feed and their like are characters of the line.

    Raises:
        DataError: as of :func:`read_utf8`.
    """
    lines = read_utf8(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
