"""Time series from tables: the columns to forecast, the rows of each series, their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unrolled.config import ForecastConfig
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._tables import Table, read_table
from unrolled.tasks.data._timestamps import LOCAL


class SeriesColumns(Protocol):
    """The columns of a trained model; the first `targets` of them are forecast."""

    columns: tuple[str, ...]
    targets: int


@dataclass(frozen=True)
class Series:
    """One series: values `[T, F]` in the order of time, the columns to forecast first."""

    name: str
    values: Tensor


def read_series(
    config: ForecastConfig, trained: SeriesColumns | None = None
) -> tuple[list[str], int, list[Series]]:
    """The columns, those to forecast first; how many are forecast; the series of all tables.

    Args:
        trained: the columns of a trained model; without it the configuration defines them.

    Raises:
        DataError: a table cannot be read, or lacks a column, or no column can be forecast.
    """
    if config.paths:
        tables = [read_table(path) for path in config.paths]
    else:
        from unrolled.tasks import datasets

        built_in = datasets.series(config.data)
        tables = [built_in.table]
        if trained is None:
            return [built_in.column], 1, series_of(built_in.table, [built_in.column], config)
    if trained is None:
        columns, targets = _choose_columns(config, tables)
    else:
        columns, targets = list(trained.columns), trained.targets
    series = [s for table in tables for s in series_of(table, columns, config)]
    if trained is None and not config.target:
        _check_counters(columns, targets, series)
    return columns, targets, series


def _choose_columns(config: ForecastConfig, tables: Sequence[Table]) -> tuple[list[str], int]:
    targets = list(config.target) or _numeric_columns(config, tables)
    for option, names in (("target", targets), ("covariate", list(config.covariate))):
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise DataError(f"--{option} must have distinct columns, got {repeated[0]!r} twice")
    shared = [name for name in config.covariate if name in targets]
    if shared:
        raise DataError(f"--covariate must not have target columns, got {shared[0]!r}")
    return [*targets, *config.covariate], len(targets)


def _numeric_columns(config: ForecastConfig, tables: Sequence[Table]) -> list[str]:
    """All columns of numbers without another role; they must be the same in each table."""
    excluded = {config.time, config.series, *config.covariate}
    advice = "name the columns to forecast with --target"
    try:
        columns = [table.numeric_columns(excluded) for table in tables]
    except DataError as error:
        raise DataError(f"{error}; or {advice}") from None
    for table, names in zip(tables, columns, strict=True):
        if not names:
            raise DataError(
                f"{table.name}: must have a column of numbers to forecast, got "
                f"{table.column_list}; fields are separated by commas, semicolons or tabs"
            )
        if set(names) != set(columns[0]):
            name = min(set(names) ^ set(columns[0]))
            raise DataError(
                f"{table.name}: must have the columns of numbers of {tables[0].name}, got "
                f"{name!r} in only one of the two; {advice}"
            )
    return columns[0]


def _check_counters(columns: Sequence[str], targets: int, series: Sequence[Series]) -> None:
    """Refuse one of several columns if it counts the rows: it is a time or an index."""
    if targets == 1:
        return
    for column, name in enumerate(columns[:targets]):
        values = [one.values[:, column] for one in series]
        integers = all(bool((v == v.round()).all()) for v in values)
        changes = torch.cat([v.diff() for v in values])
        if integers and len(changes) and bool((changes == 1).all()):
            raise DataError(
                f"{series[0].name}, column {name!r}: must have values to forecast, got one that "
                "counts the rows; name it with --time, or name the columns to forecast with "
                "--target"
            )


def series_of(table: Table, columns: Sequence[str], config: ForecastConfig) -> list[Series]:
    """The series of a table: one, or one for each name in the column ``config.series``.

    Raises:
        DataError: a column is missing or has a cell that is not a number, the times are not in
            order, or one of several series is shorter than the window.
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
    series = [Series(name, values[numbers]) for name, numbers in rows.items()]
    for one in series:
        check_length(one, f"{table.name}, series {one.name!r}", config.window)
    return series


def check_length(series: Series, location: str, window: int) -> None:
    """Check that a series is long enough for a forecast: a shorter one could not be used.

    Raises:
        DataError: it is shorter than the window.
    """
    if len(series.values) < window:
        raise DataError(
            f"{location}: must have at least {window} rows, the window of a forecast, got "
            f"{len(series.values)}; remove it, or train with a smaller --window"
        )


def _check_order(table: Table, column: str, names: Sequence[str]) -> None:
    """Check that the times of each series are in rising order."""
    previous_row: dict[str, int] = {}
    times = table.times(column)
    cells = table.text(column)
    for row, (name, time) in enumerate(zip(names, times, strict=True)):
        previous = previous_row.get(name)
        if previous is not None and not times[previous].is_before(time):
            advice = "sort the rows"
            if time.type == LOCAL and ":" in cells[row]:
                advice += ", or append its offset from UTC to each time (02:30+02:00)"
            raise DataError(
                f"{table.location(row)}, column {column!r}: times must be in rising order, got "
                f"{cells[row]!r} after {cells[previous]!r}; {advice}"
            )
        previous_row[name] = row
