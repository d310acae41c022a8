"""Tables of named columns, from CSV, TSV and Parquet files; errors name file and line.

The role of a column (text, label, series) is defined by the tasks.
"""

import math
import re
from collections import Counter
from collections.abc import Container, Hashable, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor

from unrolled._limits import brief
from unrolled.tasks.data._cells import (
    BOOLEANS,
    MISSING_NAMES,
    NOT_SCALAR,
    describe_type,
    holds_number,
    is_missing,
    normalize_name,
    number_advice,
    parse_number,
    spelling_key,
)
from unrolled.tasks.data._delimited import read_delimited
from unrolled.tasks.data._parquet import PARQUET_MAGIC, read_parquet
from unrolled.tasks.data._source import DataError, Source, StandardInput, file_suffix, read_bytes
from unrolled.tasks.data._timestamps import Timestamp, parse_timestamp

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq")
"""Suffixes of the names of files that are read as tables."""

_MAX_LISTED = 20
"""Columns that a message lists."""
_PANDAS_INDEX = "__index_level_0__"


class Table:
    """Columns of equal length, by name.

    Args:
        name: of the table in messages: the path of its file.
        columns: cells by column name: text, numbers, dates, or None for a missing value.
        lines: the line of the file at which each row begins; None if there are no lines.

    Raises:
        DataError: the columns differ in length.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Sequence[object]],
        lines: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        self._columns = dict(columns)
        self._lines = lines
        sizes = {column: len(cells) for column, cells in self._columns.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{name}: columns must have equal lengths, got {sizes}")
        self.rows = next(iter(sizes.values()), 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in the order of the file."""
        return tuple(self._columns)

    @property
    def column_list(self) -> str:
        """The names for messages, only the first of many."""
        names = ", ".join(brief(name) for name in self.columns[:_MAX_LISTED])
        remaining = len(self.columns) - _MAX_LISTED
        return f"{names} and {remaining} more" if remaining > 0 else names

    def __len__(self) -> int:
        return self.rows

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def location(self, row: int) -> str:
        """Where a row is, for messages: "file.csv, line 12". `row` counts from 0, the text of a
        table without lines from 1."""
        return f"{self.name}, " + (f"line {self._lines[row]}" if self._lines else f"row {row + 1}")

    def text(self, column: str) -> list[str]:
        """The cells of a column as text; a missing value is the empty text.

        Raises:
            DataError: there is no such column (the message lists the columns), or a cell holds
                several values.
        """
        cells = self._cells(column)
        for row, cell in enumerate(cells):
            if isinstance(cell, NOT_SCALAR):
                raise DataError(
                    f"{self._cell_location(row, column)}: must be a text, got {describe_type(cell)}"
                )
        return ["" if cell is None else str(cell) for cell in cells]

    def numbers(self, column: str, missing: Literal["refuse", "nan"] = "refuse") -> Tensor:
        """The cells of a column as numbers, `[rows]`, float64; true is 1 and false is 0.

        Args:
            missing: for cells that are empty or NA, N/A, NaN, null or None: "refuse" raises, "nan"
                gives NaN.

        Raises:
            DataError: there is no such column, or a cell is missing, not a number, or not finite;
                the message names the line.
        """
        if missing not in ("refuse", "nan"):
            raise ValueError(f"Table.numbers: missing must be 'refuse' or 'nan', got {missing!r}")
        values = [
            math.nan if missing == "nan" and is_missing(cell) else self._number(column, row, cell)
            for row, cell in enumerate(self._cells(column))
        ]
        return torch.tensor(values, dtype=torch.float64)

    def categories(self, column: str, name_type: str) -> list[str]:
        """The cells of a column as names, of labels or of series. Blanks around them are removed,
        and 1.0 becomes 1: a missing value makes floats of a column of integers.

        Args:
            name_type: what a cell names, for messages: "a label".

        Raises:
            DataError: there is no such column, a cell is missing, or two names differ only in how
                they are written (01 and 1, a letter in two encodings); the message names the line.
        """
        names = [normalize_name(text) for text in self.text(column)]
        first_row: dict[str, int] = {}
        for row, name in enumerate(names):
            first_row.setdefault(name, row)
        spellings: dict[Hashable, str] = {}
        for name, row in first_row.items():
            location = self._cell_location(row, column)
            if name.lower() in MISSING_NAMES - {"none"}:
                raise DataError(
                    f"{location}: must be {name_type}, got {name!r}; fill the cell or remove the "
                    "row"
                )
            if not name.isprintable() and re.search(r"[\t\r\n]", name):
                raise DataError(
                    f"{location}: must be {name_type} on one line and without tabs, got "
                    f"{brief(name)}"
                )
            variant = spellings.setdefault(spelling_key(name), name)
            if variant != name:
                raise DataError(
                    f"{location}: must be {name_type} in one spelling, got {brief(name)}, and "
                    f"{brief(variant)} in {self.location(first_row[variant])}"
                )
        return names

    def times(self, column: str) -> list[Timestamp]:
        """The cells of a column as times, all of the same type.

        Raises:
            DataError: there is no such column, or a cell is not a time or of another type than the
                first; the message names the line.
        """
        times: list[Timestamp] = []
        for row, cell in enumerate(self._cells(column)):
            time = parse_timestamp(cell)
            location = self._cell_location(row, column)
            if time is None:
                raise DataError(
                    f"{location}: must be a number, or a time such as 2024-09-02 or 2024-09-02 "
                    f"13:05+02:00, got {brief('' if cell is None else str(cell))}"
                )
            if times and time.type != times[0].type:
                raise DataError(
                    f"{location}: must be {times[0].type} as in the rows above, got "
                    f"{brief(str(cell))}, {time.type}"
                )
            times.append(time)
        return times

    def numeric_columns(self, excluded: Container[str | None] = ()) -> list[str]:
        """The columns in which any cell is a number, except those `excluded`.

        Raises:
            DataError: one of them has a cell that is missing, not a number, or not finite; the
                message names the line.
        """
        names = [
            name
            for name in self.columns_except(excluded)
            if any(map(holds_number, self._columns[name]))
        ]
        for name in names:
            self.numbers(name)
        return names

    def columns_except(self, excluded: Container[str | None] = ()) -> list[str]:
        """The names of all columns except those `excluded`.

        Raises:
            DataError: pandas' unnamed index, which is not data, is among them.
        """
        names = [name for name in self._columns if name not in excluded]
        if _PANDAS_INDEX in names:
            raise DataError(
                f"{self.name}: must have columns of data, got pandas' index {_PANDAS_INDEX!r}; "
                "write it with index=False"
            )
        return names

    def _cells(self, column: str) -> Sequence[object]:
        if column not in self._columns:
            similar = get_close_matches(str(column), self._columns, 1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise DataError(
                f"{self.name}: column must be one of {self.column_list}, got {brief(column)}{hint}"
            )
        return self._columns[column]

    def _cell_location(self, row: int, column: str) -> str:
        return f"{self.location(row)}, column {brief(column)}"

    def _number(self, column: str, row: int, cell: object) -> float:
        number = parse_number(cell)
        if number is not None and math.isfinite(number):
            return number
        shown = describe_type(cell) if isinstance(cell, NOT_SCALAR) else brief(str(cell))
        requirement, advice = "a number", number_advice(cell)
        if is_missing(cell):
            shown = brief("" if cell is None else str(cell))
            advice = "; fill the cell or remove the row"
        elif number is not None:
            requirement = "a finite number"
        location = self._cell_location(row, column)
        raise DataError(f"{location}: must be {requirement}, got {shown}{advice}")


def read_table(source: Source, delimiter: str | None = None) -> Table:
    """Read a table with a header from a CSV, TSV or Parquet file, or from standard input.

    Files ending in .parquet or .pq are read as Parquet, and so is standard input if it begins like
    such a file. Blanks around the names of columns are removed.

    Args:
        delimiter: of a CSV file; None takes the tab for .tsv and .tab, else the one of comma,
            semicolon and tab that splits header and rows into the same number of fields.

    Raises:
        DataError: the file cannot be read, is empty, has rows of unequal length, names that are
            empty or repeated, or is not UTF-8; the message names file and line.
    """
    is_standard_input = isinstance(source, StandardInput)
    columns: Sequence[Sequence[object]]
    lines: list[int] | None = None
    if file_suffix(source) in (".parquet", ".pq") or (
        is_standard_input and read_bytes(source).startswith(PARQUET_MAGIC)
    ):
        header, columns = read_parquet(source)
        location = str(source)
    else:
        (line, header), lines, columns = read_delimited(source, delimiter)
        location = f"{source}, line {line}"
    names = [name.strip() for name in header]
    _check_names(location, names)
    if lines is not None and _are_numbers(names):
        raise DataError(
            f"{location}: must have the names of the columns, got numbers, "
            f"{brief(', '.join(names))}; write the names above the first row"
        )
    if not columns or not columns[0]:
        raise DataError(f"{source}: must have rows below the names of the columns, got none")
    return Table(str(source), dict(zip(names, columns, strict=True)), lines)


def _check_names(location: str, names: Sequence[str]) -> None:
    if "" in names:
        position = names.index("") + 1
        raise DataError(
            f"{location}: must have a name for every column, got none for column {position}; name "
            "it in the header (pandas writes its index without a name: to_csv(…, index=False))"
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{location}: column names must be distinct, got {brief(repeated[0])} more than once; "
            "rename one"
        )


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names are a row of numbers, except those that pandas writes: 0, 1, 2, …"""
    numbers = [parse_number(name) for name in names if name.lower() not in BOOLEANS]
    if len(numbers) < len(names) or not all(n is not None and math.isfinite(n) for n in numbers):
        return False
    enumerations = [[str(start + k) for k in range(len(names))] for start in (0, 1)]
    return list(names) not in enumerations
