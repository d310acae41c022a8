"""Rows that a run appends to a CSV file, where a crash or a full disk may cut them."""

import contextlib
import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path

__all__ = ["append_rows", "complete_rows", "csv_text", "warn_of"]


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Lines of CSV."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Add rows at the end of a file, all of them or none; a file that is not there is begun.

    Raises:
        OSError: they cannot be written; the file is as it was.
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
    """The rows of a file that have each of its columns and their line end.

    Args:
        columns: that the file must have, in this order; by default what its first line says.

    Returns:
        none if there is no such file, or it has other columns.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    # What follows the last line end is a row that was cut, or nothing.
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    names, *rows = [_values(line) for line in lines] or [[]]
    if columns is not None and names != list(columns):
        return []
    return [dict(zip(names, row, strict=True)) for row in rows if row and len(row) == len(names)]


@contextlib.contextmanager
def warn_of(path: Path) -> Iterator[None]:
    """Warn where a file of measurements cannot be read or written, which never stops a run."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path}: {error.strerror or error}; the run goes on", stacklevel=3)


def _values(line: str) -> list[str]:
    """Of one line; none where it is not CSV."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []
