"""Tables of named columns, from CSV, TSV and Parquet files; every fault names file and line.

What a column stands for (text, label, series) is left to the tasks.
"""

import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.tasks.reading import DataError, Source, read_bytes, read_utf8, suffix_of

__all__ = ["SUFFIXES", "Table", "read_table"]

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Of files that are told as tables by their names."""

_DELIMITERS = (",", ";", "\t")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


class Table:
    """Columns of equal length, by name.

    Args:
        name: what messages call the table: the path of its file.
        columns: cells by column name: text, numbers, dates, or None where there is nothing.
        lines: the line of the file on which each row begins; None where there are no lines.

    Raises:
        DataError: the columns differ in length.
    """

    def __init__(
        self, name: str, columns: Mapping[str, Sequence[Any]], lines: Sequence[int] | None = None
    ) -> None:
        self.name = name
        self._columns = dict(columns)
        self._lines = lines
        sizes = {column: len(cells) for column, cells in self._columns.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{name}: wanted columns of equal length, got {sizes}")
        self.rows = next(iter(sizes.values()), 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in the file's order."""
        return tuple(self._columns)

    def __len__(self) -> int:
        return self.rows

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def place(self, row: int) -> str:
        """Where a row stands, for messages: "file.csv, line 12". Rows count from 0 here, from 1
        in the text."""
        return f"{self.name}, " + (f"line {self._lines[row]}" if self._lines else f"row {row + 1}")

    def text(self, column: str) -> list[str]:
        """The cells of a column as text; nothing is the empty text.

        Raises:
            DataError: there is no such column; the message lists those there are.
        """
        return ["" if cell is None else str(cell) for cell in self._cells(column)]

    def numbers(self, column: str, missing: Literal["refuse", "nan"] = "refuse") -> Tensor:
        """The cells of a column as numbers, `[rows]`, float64.

        Args:
            missing: what becomes of cells that are empty or read NA, N/A, NaN, null or None:
                "refuse" raises, "nan" makes them NaN.

        Raises:
            DataError: no such column, or a cell is missing, no number, or not finite; the message
                names the line.
        """
        if missing not in ("refuse", "nan"):
            raise ValueError(f"missing: wanted 'refuse' or 'nan', got {missing!r}")
        return torch.tensor(
            [self._number(column, i, cell, missing) for i, cell in enumerate(self._cells(column))],
            dtype=torch.float64,
        )

    def _cells(self, column: str) -> Sequence[Any]:
        if column not in self._columns:
            known = ", ".join(map(repr, self._columns))
            near = get_close_matches(str(column), self._columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{self.name}: wanted one of the columns {known}, got {column!r}{hint}")
        return self._columns[column]

    def _number(self, column: str, row: int, cell: Any, missing: str) -> float:
        empty = cell is None or str(cell).strip().lower() in _MISSING
        if empty and missing == "nan":
            return math.nan
        where = f"{self.place(row)}, column {column!r}"
        if empty:
            raise DataError(
                f"{where}: wanted a number, got {'' if cell is None else str(cell)!r}; "
                "fill the cell, leave the row out, or allow missing numbers"
            )
        try:
            # Python's own underscores in numbers are no custom of tables.
            number = float("_" if isinstance(cell, str) and "_" in cell else cell)
        except (TypeError, ValueError):
            cure = "; write a point, not a comma, before decimals" if "," in str(cell) else ""
            raise DataError(f"{where}: wanted a number, got {str(cell)!r}{cure}") from None
        if not math.isfinite(number):
            raise DataError(f"{where}: wanted a finite number, got {str(cell)!r}")
        return number


def read_table(path: Source, delimiter: str | None = None) -> Table:
    """Read a table with a header from a CSV, TSV or Parquet file.

    Files ending in .parquet or .pq are read with pyarrow. All others are text in UTF-8, the first
    line the names of the columns, fields quoted as RFC 4180 has it; blank lines are passed over,
    blanks around names are taken off.

    Args:
        delimiter: what stands between two fields; None takes the tab for .tsv and .tab, and of
            comma, semicolon and tab the one that cuts the header into most names for others.

    Raises:
        DataError: the file cannot be read, is empty, has rows of unequal length, names that are
            empty or come twice, or is no UTF-8; the message names file and line.
    """
    suffix = suffix_of(path)
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    text = read_utf8(path)
    if not text.strip():
        raise DataError(f"{path}: wanted a line with the names of the columns, got an empty file")
    if delimiter is None:
        delimiter = "\t" if suffix in (".tsv", ".tab") else _sniff(path, text)
    records = _records(path, text, delimiter)
    line, header = next(records)
    names = [name.strip() for name in header]
    _check_names(f"{path}, line {line}", names)
    lines, rows = [], []
    for line, record in records:
        if len(record) != len(names):
            raise DataError(
                f"{path}, line {line}: wanted {_fields(len(names))} as in the header, got "
                f"{len(record)}; quote a field that holds {delimiter!r}, a quote or a line end"
            )
        lines.append(line)
        rows.append(record)
    _check_rows(path, len(rows))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Table(str(path), dict(zip(names, columns, strict=True)), lines)


def _sniff(path: Source, text: str) -> str:
    def names(delimiter: str) -> int:
        return len(next(_records(path, text, delimiter))[1])

    return max(_DELIMITERS, key=names)


def _records(path: Source, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            with _long_fields():
                record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f'{path}, line {line}: wanted fields quoted as in "a ""b""", got a record '
                f"that cannot be cut into fields ({error})"
            ) from None
        if record is None:
            return
        if record:
            yield line, record


@contextmanager
def _long_fields() -> Iterator[None]:
    """A document of more than the csv module's 131072 characters is a field too."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_parquet(path: Source) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        cure = "pip install 'unrolled[train]'"
        raise DataError(f"{path}: wanted pyarrow to read Parquet, got none; {cure}") from None
    try:
        table = parquet.ParquetFile(io.BytesIO(read_bytes(path))).read()
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path}: wanted a Parquet file that can be read ({said})") from None
    _check_names(str(path), table.column_names)
    _check_rows(path, table.num_rows)
    columns = [column.to_pylist() for column in table.columns]
    return Table(str(path), dict(zip(table.column_names, columns, strict=True)))


def _check_names(where: str, names: Sequence[str]) -> None:
    if "" in names:
        at = names.index("") + 1
        raise DataError(
            f"{where}: wanted a name for every column, got none for column {at}; name it in the "
            "header (pandas leaves its index without: to_csv(…, index=False))"
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"{where}: wanted each column name once, got {twice[0]!r} more than once; rename one"
        )


def _check_rows(path: Source, rows: int) -> None:
    if not rows:
        raise DataError(f"{path}: wanted rows below the names of the columns, got none")


def _fields(count: int) -> str:
    return f"{count} field{'s' if count > 1 else ''}"
