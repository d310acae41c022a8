"""CSV and TSV files as column names and cells of text, which `_tables` interprets."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from unrolled.tasks.data._source import DataError, Source, file_suffix, read_utf8

_DELIMITERS = (",", ";", "\t")
_SAMPLE_SIZE = 100
"""The records from which the delimiter is chosen."""

Record = tuple[int, list[str]]
"""The line at which a record begins, and its fields."""


def read_delimited(
    source: Source, delimiter: str | None = None
) -> tuple[Record, list[int], list[list[str]]]:
    """The header, the line at which each record below it begins, and the fields of each column.

    Fields are quoted as in RFC 4180; blank lines are skipped.

    Args:
        delimiter: None takes the tab for .tsv and .tab, else the one of comma, semicolon and tab
            that splits header and records into the same number of fields.

    Raises:
        DataError: the file cannot be read, is empty, is not UTF-8, or has a record with another
            number of fields than the header; the message names file and line.
    """
    delimiter, records = _split(source, delimiter)
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
    """The fields of the header alone; the records below it are not checked.

    Raises:
        DataError: the file cannot be read, is empty, is not UTF-8, or its header cannot be split.
    """
    return next(_split(source, None)[1])[1]


def _split(source: Source, delimiter: str | None) -> tuple[str, Iterator[Record]]:
    """The delimiter, and all records."""
    text = read_utf8(source)
    if not text.strip():
        raise DataError(f"{source}: must have a line of column names, got an empty file")
    if delimiter is None and file_suffix(source) in (".tsv", ".tab") and "\t" in _first_line(text):
        delimiter = "\t"
    delimiter = delimiter or _delimiter(source, text)
    # R and other programs may write a blank before a quote: "a", "b".
    spaced = any(name.lstrip().startswith('"') for name in _header(source, text, delimiter)[1])
    return delimiter, _records(source, text, delimiter, spaced)


def _delimiter(source: Source, text: str) -> str:
    """The delimiter that splits the header into two names or more, and the records likewise.

    If none does so, it is the one that splits the header into the most names.
    """
    widths: dict[str, int] = {}
    consistent = []
    outside_quotes = [d for d in _DELIMITERS if _splits_outside_quotes(text, d)]
    for delimiter in outside_quotes or _DELIMITERS:
        try:
            counts = [len(record) for _, record in _sample(source, text, delimiter)]
        except DataError:
            continue
        widths[delimiter] = counts[0]
        if counts[0] > 1 and set(counts) == {counts[0]} and len(counts) > 1:
            consistent.append(delimiter)
    if len(consistent) > 1:
        line = _header(source, text, consistent[0])[0]
        raise DataError(
            f"{source}, line {line}: must have one delimiter, got {consistent[0]!r} and "
            f"{consistent[1]!r}, either of which splits the table into columns; quote the names "
            "that have one, or save it as .tsv"
        )
    if consistent:
        return consistent[0]
    return max(widths, key=lambda delimiter: widths[delimiter]) if widths else _DELIMITERS[0]


def _splits_outside_quotes(text: str, delimiter: str) -> bool:
    """Whether each name of the header, split so, is quoted completely or has no quotes."""
    name = rf'(?: *"(?:[^"]|"")*"|[^"{delimiter}\r\n]*)'
    header = rf"{name}(?:{delimiter}{name})*(?=[\r\n]|$)"
    return re.match(header, text.lstrip("\r\n")) is not None


def _sample(source: Source, text: str, delimiter: str) -> list[Record]:
    """The first records; the header alone if those below it cannot be split."""
    try:
        return list(islice(_records(source, text, delimiter), _SAMPLE_SIZE))
    except DataError:
        return [_header(source, text, delimiter)]


def _header(source: Source, text: str, delimiter: str) -> Record:
    return next(_records(source, text, delimiter))


def _first_line(text: str) -> str:
    return text.lstrip("\r\n").split("\n", 1)[0]


def _records(source: Source, text: str, delimiter: str, spaced: bool = False) -> Iterator[Record]:
    """Each record that is not blank, with the line at which it begins."""
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
                f'{source}, line {line}: fields must be quoted as in "a ""b""", got a record '
                f"that cannot be split into fields ({error})"
            ) from None
        if record is None:
            return
        if gap and width == 1 and record:
            raise DataError(
                f"{source}, line {gap}: must have a field, got an empty line, which may be a "
                "missing value in a table of one column; write NA, or remove the line"
            )
        if not record or (len(record) == 1 and width > 1 and not record[0].strip()):
            gap = gap or (line if width else 0)
            continue
        width = width or len(record)
        yield line, record


@contextmanager
def _long_fields() -> Iterator[None]:
    """Allow fields longer than the csv module's 131072 characters, such as documents."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _ragged(source: Source, line: int, header: Record, record: list[str], delimiter: str) -> str:
    width = len(header[1])
    advice = f"quote fields with {delimiter!r}, quotes or line ends"
    if header[1][0].lstrip().startswith("#"):
        advice = f"remove the comments above the header, if line {header[0]} is one"
    elif record[0].lstrip().startswith("#"):
        advice = "remove the comment, if it is one"
    return (
        f"{source}, line {line}: must have {width} field{'s' if width > 1 else ''} as in the "
        f"header, got {len(record)}; {advice}"
    )
