"""Reads bytes, text and lines from files and standard input; errors name file and line."""

import os
import sys
from pathlib import Path
from typing import TypeAlias

from unrolled._limits import shorten


class DataError(ValueError):
    """Data that cannot be used. The message, one line, says where, what is required, what was
    found, and how to fix it. Long values in it are shortened."""

    def __init__(self, message: str) -> None:
        super().__init__(shorten(message))


class StandardInput:
    """Standard input, as a file with the same bytes; it is read once."""

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
    """The suffix of a file's name in lower case; empty for standard input."""
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


def read_utf8(source: Source) -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends unchanged.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 text; the message names the line.
    """
    data = read_bytes(source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The position does not count a byte order mark; line numbers are the same.
        prefix, byte = error.object[: error.start], error.object[error.start]
        fault = f"the byte 0x{byte:02x}"
    else:
        if "\0" not in text:
            return text
        prefix, fault = text[: text.index("\0")].encode(), "a zero byte, as in UTF-16"
    line = prefix.count(b"\n") + prefix.count(b"\r") - prefix.count(b"\r\n") + 1
    raise DataError(f"{source}, line {line}: must be UTF-8, got {fault}; save the file as UTF-8")


def read_lines(source: Source) -> list[str]:
    """The lines of a UTF-8 file, without their ends.

    A line ends at LF, CR LF or CR, as with Python's universal newlines, and nowhere else: U+2028,
    form feeds and similar characters are part of a line.

    Raises:
        DataError: as for :func:`read_utf8`.
    """
    lines = read_utf8(source).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
