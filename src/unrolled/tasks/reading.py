"""Reading the user's data files: the error that names file and line, and UTF-8 told apart.

What the text of a file means is left to `tables`, `conll` and the others.
"""

import os
from pathlib import Path

__all__ = ["DataError", "read_utf8"]


class DataError(ValueError):
    """Data that cannot be used. The message, in one line, is the whole story: where, what was
    wanted, what came, the cure."""


def read_utf8(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends as they are.

    Raises:
        DataError: the file cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark the position counts from behind it; the lines are the same.
        body = error.object
        line = body.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: wanted UTF-8, got the byte 0x{body[error.start]:02x}; "
            "save the file as UTF-8"
        ) from None
