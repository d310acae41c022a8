"""Real time series without a download: those that statsmodels and matplotlib bring with them.

Windows, scaling and the split in time are left to the task.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.tables import Table

__all__ = ["SERIES", "SeriesDataset", "series"]

_CURE = "pip install 'unrolled[train]'"


class SeriesDataset(NamedTuple):
    """A table, oldest row first; the column to forecast; the steps of a season; what it is."""

    table: Table
    column: str
    season: int
    about: str


def series(name: str) -> SeriesDataset:
    """A time series by name.

    | name | source | size |
    |---|---|---|
    | `sunspots` | statsmodels: yearly sunspot number, 1700 to 2008 | 309 |
    | `co2` | statsmodels: weekly CO2 over Mauna Loa, ppm, 1958 to 2001 | 2284 |
    | `elnino` | statsmodels: monthly sea surface temperature, °C, 1950 to 2010 | 732 |
    | `macrodata` | statsmodels: quarterly economy of the USA, 1959 to 2009 | 203 x 14 |
    | `prices` | matplotlib's sample data: a share's trading days, 2004 to 2008 | 1047 x 7 |

    In `co2`, 59 weeks were not measured: they are filled along a straight line between their
    neighbours, and the column `filled` is 1 there, 0 elsewhere. statsmodels has no daily prices;
    matplotlib's are Google's, in dollars, with the volume. `season` is 1 for prices, where nothing
    returns, and 11 for sunspots, whose cycle is only about that long.

    Raises:
        DataError: no such series; the message lists those there are. Or the library that brings it
            is not installed.
    """
    if name not in _READERS:
        raise DataError(f"series: wanted one of {', '.join(_READERS)}, got {name!r}")
    return _READERS[name]()


def _sunspots() -> SeriesDataset:
    data = _load("sunspots")
    columns = {"year": _integers(data["YEAR"]), "sunspots": data["SUNACTIVITY"].tolist()}
    return SeriesDataset(Table("sunspots", columns), "sunspots", 11, "yearly sunspot number")


def _co2() -> SeriesDataset:
    data = _load("co2")
    values = data["co2"].to_numpy(dtype=np.float64)
    known, week = ~np.isnan(values), np.arange(len(values))
    columns = {
        "date": [day.date().isoformat() for day in data.index],
        "co2": np.interp(week, week[known], values[known]).tolist(),
        "filled": (~known).astype(int).tolist(),
    }
    return SeriesDataset(Table("co2", columns), "co2", 52, "weekly CO2 over Mauna Loa, ppm")


def _elnino() -> SeriesDataset:
    data = _load("elnino")
    years, months = _integers(data["YEAR"]), range(1, 13)
    columns = {
        "year": [year for year in years for _ in months],
        "month": [month for _ in years for month in months],
        "temperature": data.drop(columns="YEAR").to_numpy(dtype=np.float64).flatten().tolist(),
    }
    about = "monthly sea surface temperature of the eastern Pacific, °C"
    return SeriesDataset(Table("elnino", columns), "temperature", 12, about)


def _macrodata() -> SeriesDataset:
    data = _load("macrodata")
    columns: dict[str, list[Any]] = {name: data[name].tolist() for name in data.columns}
    for name in ("year", "quarter"):
        columns[name] = _integers(data[name])
    return SeriesDataset(Table("macrodata", columns), "unemp", 4, "quarterly unemployment, USA, %")


def _prices() -> SeriesDataset:
    found = find_spec("matplotlib")
    sample = Path("mpl-data", "sample_data", "goog.npz")
    path = Path(found.origin).parent / sample if found and found.origin else sample
    if not path.is_file():
        raise DataError(f"prices: wanted matplotlib's sample data {sample}, got none; {_CURE}")
    data = np.load(path)["price_data"]
    columns = {name: data[name].tolist() for name in data.dtype.names}
    columns["date"] = [day.isoformat() for day in columns["date"]]
    return SeriesDataset(Table("prices", columns), "adj_close", 1, "daily share price, dollars")


def _load(name: str) -> Any:
    """A pandas frame from statsmodels."""
    try:
        module = import_module(f"statsmodels.datasets.{name}")
    except ModuleNotFoundError:
        raise DataError(f"{name}: wanted statsmodels, which brings it, got none; {_CURE}") from None
    return module.load_pandas().data


def _integers(column: Any) -> list[int]:
    return [int(value) for value in column]


_READERS = {
    "sunspots": _sunspots,
    "co2": _co2,
    "elnino": _elnino,
    "macrodata": _macrodata,
    "prices": _prices,
}
SERIES = tuple(_READERS)
