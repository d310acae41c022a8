"""Tables of named columns, from CSV, TSV and Parquet files; every fault names file and line.

What a column stands for (text, label, series) is left to the tasks.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.limits import brief
from unrolled.tasks.data.delimited import read_delimited
from unrolled.tasks.data.parquet import MAGIC, read_parquet
from unrolled.tasks.data.source import DataError, Source, StandardInput, file_suffix, read_bytes
from unrolled.tasks.data.timestamps import NUMBER, Timestamp, parse_timestamp

__all__ = ["TABLE_SUFFIXES", "Table", "read_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq")
"""Of files that are told as tables by their names."""

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

    @property
    def known(self) -> str:
        """The names for messages, the first ones of many."""
        names = ", ".join(brief(name) for name in self.columns[:_SHOWN])
        return names + (f" and {len(self.columns) - _SHOWN} more" * (len(self.columns) > _SHOWN))

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
            DataError: there is no such column (the message lists those there are), or a cell holds
                several values.
        """
        cells = self._cells(column)
        for row, cell in enumerate(cells):
            if isinstance(cell, _NO_VALUE):
                raise DataError(f"{self._cell(row, column)}: wanted a text, got {_kind(cell)}")
        return ["" if cell is None else str(cell) for cell in cells]

    def numbers(self, column: str, missing: Literal["refuse", "nan"] = "refuse") -> Tensor:
        """The cells of a column as numbers, `[rows]`, float64; true is 1 and false is 0.

        Args:
            missing: what becomes of cells that are empty or read NA, N/A, NaN, null or None:
                "refuse" raises, "nan" makes them NaN.

        Raises:
            DataError: no such column, or a cell is missing, no number, or not finite; the message
                names the line.
        """
        if missing not in ("refuse", "nan"):
            raise ValueError(f"missing: wanted 'refuse' or 'nan', got {missing!r}")
        values = [
            math.nan if missing == "nan" and _is_missing(cell) else self._number(column, row, cell)
            for row, cell in enumerate(self._cells(column))
        ]
        return torch.tensor(values, dtype=torch.float64)

    def categories(self, column: str, what: str) -> list[str]:
        """The cells of a column as names, of labels or of series: blanks around them are taken off,
        and 1.0 is 1, as a column of whole numbers with a gap would have it.

        Args:
            what: what a cell names, for messages.

        Raises:
            DataError: no such column, a cell is missing, or two names differ only in how they are
                written (01 and 1, a letter in two encodings); the message names the line.
        """
        names = [_category(text) for text in self.text(column)]
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            first.setdefault(name, row)
        spellings: dict[object, str] = {}
        for name, row in first.items():
            where = self._cell(row, column)
            if name.lower() in _MISSING - {"none"}:
                raise DataError(
                    f"{where}: wanted {what}, got {name!r}; fill the cell or leave the row out"
                )
            if not name.isprintable() and re.search(r"[\t\r\n]", name):
                raise DataError(
                    f"{where}: wanted {what} on one line and without tabs, got {brief(name)}"
                )
            other = spellings.setdefault(_spelling(name), name)
            if other != name:
                raise DataError(
                    f"{where}: wanted {what} in one spelling, got {brief(name)}, and "
                    f"{brief(other)} in {self.place(first[other])}"
                )
        return names

    def times(self, column: str) -> list[Timestamp]:
        """The cells of a column as times, all numbers or all days and times of day.

        Raises:
            DataError: no such column, or a cell is no time or of another kind than the one before
                it; the message names the line.
        """
        moments: list[Timestamp] = []
        for row, cell in enumerate(self._cells(column)):
            moment = parse_timestamp(cell)
            where = self._cell(row, column)
            if moment is None:
                raise DataError(
                    f"{where}: wanted a number, or a time as 2024-09-02 or 2024-09-02 13:05+02:00, "
                    f"got {brief('' if cell is None else str(cell))}"
                )
            if moments and moment.kind != moments[0].kind:
                raise DataError(
                    f"{where}: wanted {moments[0].kind} as in the rows before, got "
                    f"{brief(str(cell))}, {moment.kind}"
                )
            moments.append(moment)
        return moments

    def numeric(self, beside: Container[str | None] = ()) -> list[str]:
        """The columns in which a cell is a number, but for those `beside`.

        Raises:
            DataError: one of them has a cell that is missing, no number, or not finite; the message
                names the line.
        """
        names = [n for n in self.others(beside) if any(map(_holds_number, self._columns[n]))]
        for name in names:
            self.numbers(name)
        return names

    def others(self, beside: Container[str | None] = ()) -> list[str]:
        """All columns but those `beside`.

        Raises:
            DataError: pandas' index without a name is among them, which is none of the data.
        """
        names = [name for name in self._columns if name not in beside]
        if _UNNAMED_INDEX in names:
            raise DataError(
                f"{self.name}: wanted columns of data, got pandas' index {_UNNAMED_INDEX!r}; "
                "write it with index=False"
            )
        return names

    def _cells(self, column: str) -> Sequence[Any]:
        if column not in self._columns:
            known = self.known
            near = get_close_matches(str(column), self._columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{self.name}: wanted one of the columns {known}, got {brief(column)}{hint}"
            )
        return self._columns[column]

    def _cell(self, row: int, column: str) -> str:
        return f"{self.place(row)}, column {brief(column)}"

    def _number(self, column: str, row: int, cell: Any) -> float:
        number = _float(cell)
        if number is not None and math.isfinite(number):
            return number
        shown = _kind(cell) if isinstance(cell, _NO_VALUE) else brief(str(cell))
        wanted, cure = "a number", _cure(cell)
        if _is_missing(cell):
            shown = brief("" if cell is None else str(cell))
            cure = "; fill the cell or leave the row out"
        elif number is not None:
            wanted = "a finite number"
        raise DataError(f"{self._cell(row, column)}: wanted {wanted}, got {shown}{cure}")


_SHOWN = 20
_UNNAMED_INDEX = "__index_level_0__"
_NO_VALUE = (list, dict, tuple, bytes)
_WHOLE = re.compile(r"([+-]?\d+)\.0+", re.ASCII)
_TRUTH = {"true": 1.0, "false": 0.0}


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or cell != cell  # NaN alone differs from itself.


def _float(cell: Any) -> float | None:
    """The number in a cell, also one that is not finite; None if there is none."""
    if isinstance(cell, str):
        # Python's own underscores in numbers are no custom of tables.
        if "_" in cell:
            return None
        truth = _TRUTH.get(cell.strip().lower())
        if truth is not None:
            return truth
    try:
        return float(cell)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _holds_number(cell: Any) -> bool:
    """Also one that is not finite, one in another notation, and several."""
    if _is_missing(cell):
        return False
    if isinstance(cell, _NO_VALUE):
        return not isinstance(cell, bytes)
    return _float(cell) is not None or bool(_cure(cell))


def _kind(cell: Any) -> str:
    if isinstance(cell, bytes):
        return "bytes that are no UTF-8"
    return "a list of values in one cell; give each a column of its own"


def _cure(cell: Any) -> str:
    """What makes a number of the text, where it is one in another notation."""
    text = cell.strip() if isinstance(cell, str) else ""
    if re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", text):
        return "; write a point, not a comma, before decimals, and nothing between thousands"
    if re.fullmatch(r"[+-]?\d{1,3}([.,'\u2019\s]\d{3})+([.,]\d+)?", text):
        return "; write nothing between thousands, and a point before decimals"
    return ""


def _category(text: str) -> str:
    """A name without the blanks around it; of a whole number, without its zeros as decimals."""
    name = text.strip()
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole else name


def _spelling(name: str) -> object:
    """What is equal for names that differ only in how they are written."""
    moment = parse_timestamp(name)
    if moment is not None and moment.kind == NUMBER:
        return moment.value  # exact: floats do not tell numbers of 17 digits apart
    seen = (c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())


def read_table(source: Source, delimiter: str | None = None) -> Table:
    """Read a table with a header from a CSV, TSV or Parquet file, or from standard input.

    Files ending in .parquet or .pq, and what begins like one on standard input, are read by
    :mod:`unrolled.tasks.data.parquet`, all others by :mod:`unrolled.tasks.data.delimited`. Blanks
    around the names of columns are taken off.

    Args:
        delimiter: what stands between two fields; None takes the tab for .tsv and .tab, and of
            comma, semicolon and tab the one that cuts header and rows alike.

    Raises:
        DataError: the file cannot be read, is empty, has rows of unequal length, names that are
            empty or come twice, or is no UTF-8; the message names file and line.
    """
    standard_input = isinstance(source, StandardInput)
    lines: list[int] | None = None
    if file_suffix(source) in (".parquet", ".pq") or (
        standard_input and read_bytes(source).startswith(MAGIC)
    ):
        header, columns = read_parquet(source)
        place = str(source)
    else:
        (line, header), lines, columns = read_delimited(source, delimiter)
        place = f"{source}, line {line}"
    names = [name.strip() for name in header]
    _check_names(place, names)
    if lines is not None and _are_numbers(names):
        raise DataError(
            f"{place}: wanted the names of the columns, got numbers, {brief(', '.join(names))}; "
            "write the names above the first row"
        )
    if not columns or not columns[0]:
        raise DataError(f"{source}: wanted rows below the names of the columns, got none")
    return Table(str(source), dict(zip(names, columns, strict=True)), lines)


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
            f"{where}: wanted each column name once, got {brief(twice[0])} more than once; "
            "rename one"
        )


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names are a row of numbers, and not those that pandas gives: 0, 1, 2, …"""
    numbers = [_float(name) for name in names if name.lower() not in _TRUTH]
    if len(numbers) < len(names) or not all(n is not None and math.isfinite(n) for n in numbers):
        return False
    counted = [[str(begin + k) for k in range(len(names))] for begin in (0, 1)]
    return list(names) not in counted
