"""CSV files to which a run appends rows, and which stay readable after a crash or a full disk."""

import contextlib
import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines of CSV."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Append all of the rows to a file, or none; a new file gets a header line first.

    Raises:
        OSError: the rows cannot be written; the file is unchanged.
    """
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = csv_text(rows if size else [columns, *rows]).encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


def complete_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The complete rows of a file: those with a value for each column and a line end.

    Args:
        columns: the columns that the file must have, in this order; by default those of its header.

    Returns:
        The rows; empty if the file does not exist or has other columns.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    # Text after the final line end is an incomplete row.
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    names, *rows = [_values(line) for line in lines] or [[]]
    if columns is not None and names != list(columns):
        return []
    return [dict(zip(names, row, strict=True)) for row in rows if row and len(row) == len(names)]


@contextlib.contextmanager
def warn_on_error(path: Path) -> Iterator[None]:
    """Warn if a file of measurements cannot be read or written, so that the run continues."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path}: {error.strerror or error}; the run continues", stacklevel=3)


def _values(line: str) -> list[str]:
    """The values of one line; empty if the line is not valid CSV."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []
