"""CSV and TSV files as names and cells of text. What the cells mean is left to `tables`."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from unrolled.tasks.data.source import DataError, Source, file_suffix, read_utf8

__all__ = ["read_delimited", "read_header"]

_DELIMITERS = (",", ";", "\t")
_SAMPLED = 100
"""Records that the choice of a delimiter looks at."""

Record = tuple[int, list[str]]
"""The line on which a record begins, and its fields."""


def read_delimited(
    source: Source, delimiter: str | None = None
) -> tuple[Record, list[int], list[list[str]]]:
    """The header, the line on which each record below it begins, and the fields of each column.

    Fields are quoted as RFC 4180 has it; blank lines are passed over.

    Args:
        delimiter: what stands between two fields; None takes the tab for .tsv and .tab, and of
            comma, semicolon and tab the one that cuts header and records alike.

    Raises:
        DataError: the file cannot be read, is empty, is no UTF-8, or has records of another number
            of fields than the header's; the message names file and line.
    """
    delimiter, records = _cut(source, delimiter)
    line, header = next(records)
    lines, rows = [], []
    for begin, record in records:
        if len(record) != len(header):
            raise DataError(_ragged(source, begin, (line, header), record, delimiter))
        lines.append(begin)
        rows.append(record)
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    return (line, header), lines, columns


def read_header(source: Source) -> list[str]:
    """The fields of the header alone, whatever is below it.

    Raises:
        DataError: the file cannot be read, is empty, is no UTF-8, or its header cannot be cut.
    """
    return next(_cut(source, None)[1])[1]


def _cut(source: Source, delimiter: str | None) -> tuple[str, Iterator[Record]]:
    """The delimiter, and all records."""
    text = read_utf8(source)
    if not text.strip():
        raise DataError(f"{source}: wanted a line with the names of the columns, got an empty file")
    if delimiter is None and file_suffix(source) in (".tsv", ".tab") and "\t" in _first_line(text):
        delimiter = "\t"
    delimiter = delimiter or _delimiter(source, text)
    # R and others may write a blank before a quote: "a", "b".
    spaced = any(name.lstrip().startswith('"') for name in _header(source, text, delimiter)[1])
    return delimiter, _records(source, text, delimiter, spaced)


def _delimiter(source: Source, text: str) -> str:
    """The delimiter that cuts the header into two names or more, and the records below likewise.

    Where none cuts the records as it cuts the header, it is the one that gives the most names.
    """
    names: dict[str, int] = {}
    alike = []
    outside = [d for d in _DELIMITERS if _cuts_outside_quotes(text, d)]
    for delimiter in outside or _DELIMITERS:
        try:
            counts = [len(record) for _, record in _sample(source, text, delimiter)]
        except DataError:
            continue
        names[delimiter] = counts[0]
        if counts[0] > 1 and set(counts) == {counts[0]} and len(counts) > 1:
            alike.append(delimiter)
    if len(alike) > 1:
        line = _header(source, text, alike[0])[0]
        raise DataError(
            f"{source}, line {line}: wanted one delimiter, got {alike[0]!r} and {alike[1]!r} that "
            "cut the table into columns alike; quote the names that hold one, or save it as .tsv"
        )
    if alike:
        return alike[0]
    return max(names, key=lambda delimiter: names[delimiter]) if names else _DELIMITERS[0]


def _cuts_outside_quotes(text: str, delimiter: str) -> bool:
    """Whether each name of the header, so cut, is quoted as a whole or has no quotes."""
    name = rf'(?: *"(?:[^"]|"")*"|[^"{delimiter}\r\n]*)'
    header = rf"{name}(?:{delimiter}{name})*(?=[\r\n]|$)"
    return re.match(header, text.lstrip("\r\n")) is not None


def _sample(source: Source, text: str, delimiter: str) -> list[Record]:
    """The first records; of the header alone where those below cannot be cut."""
    try:
        return list(islice(_records(source, text, delimiter), _SAMPLED))
    except DataError:
        return [_header(source, text, delimiter)]


def _header(source: Source, text: str, delimiter: str) -> Record:
    return next(_records(source, text, delimiter))


def _first_line(text: str) -> str:
    return text.lstrip("\r\n").split("\n", 1)[0]


def _records(source: Source, text: str, delimiter: str, spaced: bool = False) -> Iterator[Record]:
    """Each record that is not blank, with the line on which it begins."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced
    )
    width = gap = 0
    while True:
        line = reader.line_num + 1
        try:
            with _long_fields():
                record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f'{source}, line {line}: wanted fields quoted as in "a ""b""", got a record '
                f"that cannot be cut into fields ({error})"
            ) from None
        if record is None:
            return
        if gap and width == 1 and record:
            raise DataError(
                f"{source}, line {gap}: wanted a field, got an empty line, which may be a missing "
                "value in a table of one column; write NA, or take the line off"
            )
        if not record or (len(record) == 1 and width > 1 and not record[0].strip()):
            gap = gap or (line if width else 0)
            continue
        width = width or len(record)
        yield line, record


@contextmanager
def _long_fields() -> Iterator[None]:
    """A document of more than the csv module's 131072 characters is a field too."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _ragged(source: Source, line: int, header: Record, record: list[str], delimiter: str) -> str:
    wanted = len(header[1])
    cure = f"quote a field that holds {delimiter!r}, a quote or a line end"
    if header[1][0].lstrip().startswith("#"):
        cure = f"take the comments above the header off, if line {header[0]} is one"
    elif record[0].lstrip().startswith("#"):
        cure = "take the comment off, if it is one"
    return (
        f"{source}, line {line}: wanted {wanted} field{'s' if wanted > 1 else ''} as in the "
        f"header, got {len(record)}; {cure}"
    )
