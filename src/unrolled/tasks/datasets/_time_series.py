"""Real time series without a download: those included in statsmodels and matplotlib."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._tables import Table


class _Column(Protocol):
    """A column of a pandas table."""

    def __iter__(self) -> Iterator[float]: ...

    def tolist(self) -> list[object]: ...

    def to_numpy(self, dtype: type[np.float64]) -> NDArray[np.float64]: ...


class _Frame(Protocol):
    """A pandas table."""

    @property
    def columns(self) -> Iterable[str]: ...

    @property
    def index(self) -> Iterable[datetime]: ...

    def __getitem__(self, name: str) -> _Column: ...

    def drop(self, *, columns: str) -> "_Frame": ...

    def to_numpy(self, dtype: type[np.float64]) -> NDArray[np.float64]: ...


_CURE = "pip install 'unrolled[train]'"


class SeriesDataset(NamedTuple):
    """A table, oldest row first; the column to forecast; the steps of a season; a description."""

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

    In `co2`, 59 weeks were not measured: they are interpolated linearly, and the column `filled` is
    1 there, 0 elsewhere. The prices are Google's, in dollars, with the volume. `season` is 1 for
    prices, which have none, and 11 for sunspots, whose cycle is about that long.

    Raises:
        DataError: there is no such series, or the library that includes it is not installed.
    """
    if name not in _READERS:
        raise DataError(f"series: name must be one of {', '.join(_READERS)}, got {name!r}")
    return _READERS[name]()


def _sunspots() -> SeriesDataset:
    data = _load("sunspots")
    columns: dict[str, list[object]] = {
        "year": _integers(data, "YEAR"),
        "sunspots": data["SUNACTIVITY"].tolist(),
    }
    return SeriesDataset(Table("sunspots", columns), "sunspots", 11, "yearly sunspot number")


def _co2() -> SeriesDataset:
    data = _load("co2")
    values = data["co2"].to_numpy(dtype=np.float64)
    measured, week = ~np.isnan(values), np.arange(len(values))
    columns: dict[str, list[object]] = {
        "date": [day.date().isoformat() for day in data.index],
        "co2": list(np.interp(week, week[measured], values[measured]).tolist()),
        "filled": (~measured).astype(int).tolist(),
    }
    return SeriesDataset(Table("co2", columns), "co2", 52, "weekly CO2 over Mauna Loa, ppm")


def _elnino() -> SeriesDataset:
    data = _load("elnino")
    years, months = _integers(data, "YEAR"), range(1, 13)
    columns: dict[str, list[object]] = {
        "year": [year for year in years for _ in months],
        "month": [month for _ in years for month in months],
        "temperature": list(
            data.drop(columns="YEAR").to_numpy(dtype=np.float64).flatten().tolist()
        ),
    }
    about = "monthly sea surface temperature of the eastern Pacific, °C"
    return SeriesDataset(Table("elnino", columns), "temperature", 12, about)


def _macrodata() -> SeriesDataset:
    data = _load("macrodata")
    columns: dict[str, list[object]] = {name: data[name].tolist() for name in data.columns}
    for name in ("year", "quarter"):
        columns[name] = _integers(data, name)
    return SeriesDataset(Table("macrodata", columns), "unemp", 4, "quarterly unemployment, USA, %")


def _prices() -> SeriesDataset:
    spec = find_spec("matplotlib")
    sample = Path("mpl-data", "sample_data", "goog.npz")
    path = Path(spec.origin).parent / sample if spec and spec.origin else sample
    if not path.is_file():
        raise DataError(
            f"prices: matplotlib must be installed with its sample data {sample}, got none; {_CURE}"
        )
    data = np.load(path)["price_data"]
    columns: dict[str, list[object]] = {name: data[name].tolist() for name in data.dtype.names}
    columns["date"] = [day.isoformat() for day in data["date"].tolist()]
    return SeriesDataset(Table("prices", columns), "adj_close", 1, "daily share price, dollars")


def _load(name: str) -> _Frame:
    """The table of a data set of statsmodels."""
    try:
        module = import_module(f"statsmodels.datasets.{name}")
    except ModuleNotFoundError:
        raise DataError(
            f"{name}: statsmodels must be installed, which includes it, got none; {_CURE}"
        ) from None
    data: _Frame = module.load_pandas().data
    return data


def _integers(data: _Frame, column: str) -> list[object]:
    return [int(value) for value in data[column]]


_READERS = {
    "sunspots": _sunspots,
    "co2": _co2,
    "elnino": _elnino,
    "macrodata": _macrodata,
    "prices": _prices,
}
SERIES = tuple(_READERS)
