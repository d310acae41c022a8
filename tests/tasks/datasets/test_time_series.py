"""Published time series: their values, and gaps."""

import numpy as np
import pytest

from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import (
    SERIES,
    series,
)


def test_series_hold_the_published_values() -> None:
    actual = {name: series(name) for name in SERIES}
    rows = {name: s.table.rows for name, s in actual.items()}
    assert rows == {"sunspots": 309, "co2": 2284, "elnino": 732, "macrodata": 203, "prices": 1047}
    for name, s in actual.items():
        values = s.table.numbers(s.column)
        assert values.isfinite().all(), name
        assert len(values) > 2 * s.season
    sunspots = actual["sunspots"].table
    assert sunspots.text("year")[::308] == ["1700", "2008"]
    assert sunspots.numbers("sunspots")[[0, 57, 257]].tolist() == [5.0, 32.4, 190.2]
    elnino = actual["elnino"].table
    assert [elnino.text(c)[13] for c in ("year", "month")] == ["1951", "2"]
    assert elnino.numbers("temperature")[[0, 11, 12]].tolist() == [23.11, 21.80, 24.19]
    assert actual["macrodata"].table.numbers("unemp")[[0, -2]].tolist() == [5.8, 9.2]
    prices = actual["prices"].table
    assert prices.text("date")[::1046] == ["2004-08-19", "2008-10-14"]
    assert prices.numbers("adj_close")[[0, -1]].tolist() == [100.34, 362.71]


def test_gaps_are_filled_along_a_straight_line_and_marked() -> None:
    from statsmodels.datasets import co2

    published = co2.load_pandas().data["co2"].to_numpy()
    table = series("co2").table
    values, filled = table.numbers("co2").numpy(), table.numbers("filled").numpy()
    assert filled.sum() == np.isnan(published).sum() == 59
    assert (values[filled == 0] == published[filled == 0]).all()
    single = [i for i in range(1, 2283) if filled[i] and not filled[i - 1] and not filled[i + 1]]
    assert single
    for i in single:
        assert values[i] == pytest.approx((values[i - 1] + values[i + 1]) / 2)
    assert table.text("date")[:2] == ["1958-03-29", "1958-04-05"]


def test_an_unknown_series_raises() -> None:
    with pytest.raises(
        DataError, match=r"series: name must be one of sunspots, .*prices, got 'gold'"
    ):
        series("gold")
