"""Series from tables: the columns that are forecast, the rows of each series, their order in time.

What is forecast from them is left to `forecasting`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.tables import Table, read_table
from unrolled.tasks.data.timestamps import LOCAL

__all__ = ["Series", "check_length", "read_series", "series_of"]


@dataclass(frozen=True)
class Series:
    """One series: values `[T, F]`, the columns to forecast first, in the order of time."""

    name: str
    values: Tensor


def read_series(config: Any, codec: Any = None) -> tuple[list[str], int, list[Series]]:
    """The columns, those to forecast first; how many these are; the series of all tables.

    Args:
        codec: of a trained model, whose columns are read; without it the configuration chooses.

    Raises:
        DataError: a table cannot be read, or lacks a column, or no column can be forecast.
    """
    if config.paths:
        tables = [read_table(path) for path in config.paths]
    else:
        from unrolled.tasks.datasets import series

        default = series(config.data)
        tables = [default.table]
        if codec is None:
            return [default.column], 1, series_of(default.table, [default.column], config)
    columns, targets = _columns(config, tables, codec)
    read = [s for table in tables for s in series_of(table, columns, config)]
    if codec is None and not config.target:
        _check_counters(columns, targets, read)
    return columns, targets, read


def _columns(config: Any, tables: Sequence[Table], codec: Any) -> tuple[list[str], int]:
    if codec is not None:
        return list(codec.columns), codec.targets
    targets = list(config.target) or _numeric_columns(config, tables)
    for option, names in (("target", targets), ("covariate", list(config.covariate))):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"--{option}: wanted each column once, got {twice[0]!r} twice")
    both = [name for name in config.covariate if name in targets]
    if both:
        raise DataError(f"--covariate: wanted columns that are no targets, got {both[0]!r}")
    return [*targets, *config.covariate], len(targets)


def _numeric_columns(config: Any, tables: Sequence[Table]) -> list[str]:
    """All columns of numbers but those with another part; the same in each table."""
    beside = {config.time, config.series, *config.covariate}
    cure = "name the columns to forecast with --target"
    try:
        columns = [table.numeric(beside) for table in tables]
    except DataError as error:
        raise DataError(f"{error}; or {cure}") from None
    for table, names in zip(tables, columns, strict=True):
        if not names:
            raise DataError(
                f"{table.name}: wanted a column of numbers to forecast, got {table.known}; fields "
                "are separated by commas, semicolons or tabs"
            )
        if set(names) != set(columns[0]):
            name = min(set(names) ^ set(columns[0]))
            raise DataError(
                f"{table.name}: wanted the columns of numbers of {tables[0].name}, got {name!r} in "
                f"one of the two alone; {cure}"
            )
    return columns[0]


def _check_counters(columns: Sequence[str], targets: int, series: Sequence[Series]) -> None:
    """Refuse a column that counts the rows among others: it is a time or an index."""
    if targets == 1:
        return
    for column, name in enumerate(columns[:targets]):
        values = [one.values[:, column] for one in series]
        whole = all(bool((v == v.round()).all()) for v in values)
        changes = torch.cat([v.diff() for v in values])
        if whole and len(changes) and bool((changes == 1).all()):
            raise DataError(
                f"{series[0].name}, column {name!r}: wanted a column to forecast, got one that "
                "counts the rows; name it with --time, or name the columns to forecast with "
                "--target"
            )


def series_of(table: Table, columns: Sequence[str], config: Any) -> list[Series]:
    """The series of a table: one, or one for each name in the column ``config.series``.

    Raises:
        DataError: a column is missing or holds what is no number, the times are not in order, or
            one of several series is shorter than the window.
    """
    names = [""] * table.rows
    if config.series is not None:
        names = table.categories(config.series, "the name of a series")
    if config.time is not None:
        _check_order(table, config.time, names)
    values = torch.stack([table.numbers(name) for name in columns], 1)
    if config.series is None:
        return [Series(table.name, values)]
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    series = [Series(name, values[chosen]) for name, chosen in rows.items()]
    for one in series:
        check_length(one, f"{table.name}, series {one.name!r}", config.window)
    return series


def check_length(series: Series, place: str, window: int) -> None:
    """Hold a series to the window of a forecast: a shorter one could only be left out.

    Raises:
        DataError: it is shorter.
    """
    if len(series.values) < window:
        raise DataError(
            f"{place}: wanted at least {window} rows, the window of a forecast, got "
            f"{len(series.values)}; leave it out, or train with a smaller --window"
        )


def _check_order(table: Table, column: str, names: Sequence[str]) -> None:
    """Hold the times of each series to a rising order."""
    before: dict[str, int] = {}
    times = table.times(column)
    cells = table.text(column)
    for row, (name, time) in enumerate(zip(names, times, strict=True)):
        last = before.get(name)
        if last is not None and not times[last].value < time.value:
            cure = "sort the rows"
            if time.kind == LOCAL and ":" in cells[row]:
                cure += ", or write each time's offset from UTC behind it (02:30+02:00)"
            raise DataError(
                f"{table.place(row)}, column {column!r}: wanted times in rising order, got "
                f"{cells[row]!r} after {cells[last]!r}; {cure}"
            )
        before[name] = row
