"""Which columns of a table are forecast, and which rows are a series, in which order."""

from pathlib import Path
from typing import Any

import pytest

from unrolled.config import ForecastConfig
from unrolled.tasks import DataError
from unrolled.tasks._forecasting import Forecasting
from unrolled.tasks.data._time_series import read_series


def write(folder: Path, text: str, name: str = "t.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def read(folder: Path, text: str, **options: Any) -> Any:
    return read_series(ForecastConfig(paths=(write(folder, text),), window=2, **options))


def test_without_targets_all_columns_of_numbers_are_forecast(tmp_path: Path) -> None:
    text = "day,x,note,flag,y\n0,1.5,,true,2\n1,2.5,dry,false,1\n"
    columns, targets, (series,) = read(tmp_path, text, time="day", covariate=("y",))
    assert (columns, targets) == (["x", "flag", "y"], 2)
    assert series.values.tolist() == [[1.5, 1, 2], [2.5, 0, 1]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "line 3, column 'x': must be a number, got ''; fill the cell"),
        ("NA", "line 3, column 'x': must be a number, got 'NA'"),
        ("inf", "line 3, column 'x': must be a finite number, got 'inf'"),
        ("closed", "line 3, column 'x': must be a number, got 'closed'"),
        ('"1,5"', "line 3, column 'x': must be a number, got '1,5'; write a point"),
    ],
)
def test_a_column_with_one_bad_cell_is_not_left_out(
    tmp_path: Path, cell: str, message: str
) -> None:
    text = f"day,x,y\n0,1,7\n1,{cell},8\n2,3,3\n"
    with pytest.raises(DataError, match=rf"t\.csv, {message}.*; or name the columns .* --target$"):
        read(tmp_path, text, time="day")
    assert read(tmp_path, text, time="day", target=("y",))[0] == ["y"]


def test_a_column_that_counts_the_rows_is_not_forecast(tmp_path: Path) -> None:
    text = "store,id,x\na,5,1\nb,1,2\na,6,3\nb,2,4\n"
    with pytest.raises(DataError, match=r"column 'id': .* got one that counts the rows; name it"):
        read(tmp_path, text, series="store")
    assert read(tmp_path, text, series="store", time="id")[0] == ["x"]
    assert read(tmp_path, text, series="store", target=("x", "id"))[0] == ["x", "id"]
    assert read(tmp_path, "x\n1\n2\n3\n")[0] == ["x"]
    with pytest.raises(DataError, match="got pandas' index '__index_level_0__'"):
        read(tmp_path, "x,__index_level_0__\n1,5\n2,9\n")


def test_columns_are_named_once_and_alike_in_each_table(tmp_path: Path) -> None:
    for name in ("target", "covariate"):
        with pytest.raises(DataError, match=f"--{name} must have distinct columns, got 'x' twice"):
            read(tmp_path, "x,y\n1,2\n", **{"target": ("y",), name: ("x", "x")})
    path_a, path_b = write(tmp_path, "x,y\n1,2\n", "a.csv"), write(tmp_path, "y\n1\n", "b.csv")
    with pytest.raises(
        DataError, match=r"b\.csv: must have the columns of numbers of .*a\.csv, got"
    ):
        read_series(ForecastConfig(paths=(path_a, path_b)))


def test_rows_of_one_name_are_a_series_however_it_is_written(tmp_path: Path) -> None:
    text = "store,x\n1,1\n2,5\n1.0,2\n 2 ,6\n"
    _, _, series = read(tmp_path, text, series="store")
    assert [(item.name, item.values.flatten().tolist()) for item in series] == [
        ("1", [1.0, 2.0]),
        ("2", [5.0, 6.0]),
    ]
    with pytest.raises(DataError, match=r"line 3, column 'store': must be the name of a series"):
        read(tmp_path, "store,x\na,1\n,2\n", series="store")


def test_a_series_that_is_too_short_is_not_left_out(tmp_path: Path) -> None:
    message = (
        r"t\.csv, series 'b': must have at least 2 rows, the window of a forecast, got 1; remove it"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, "store,x\na,1\na,2\nb,3\n", series="store")


def test_other_notations_of_numbers_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2, column 'x': .* got '1,5'; write a point, not a"):
        read(tmp_path, "day;x\n1;1,5\n2;2,5\n", time="day")
    with pytest.raises(DataError, match="got '1,234,567'; write nothing between thousands"):
        read(tmp_path, 'day,x\n1,"1,234,567"\n', time="day")
    with pytest.raises(
        DataError, match=r"got 'day\|x'; fields are separated by commas, semicolons"
    ):
        read(tmp_path, "day|x\n1|2\n")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-10-27 02:30+02:00", "2024-10-27 02:00+01:00"], ""),
        (["2024-9-30", "2024-10-1"], ""),
        (["9", "10"], ""),
        (
            ["9/2/2024", "10/1/2024"],
            "line 2, column 't': must be a number, or a time such as 2024-09-02",
        ),
        (["2024-01-02", "2024-01-01"], "line 3, .* got '2024-01-01' after '2024-01-02'; sort the"),
        (["2024-10-27 02:30", "2024-10-27 02:00"], "line 3, .* append its offset"),
        (["2024-01-01", "2024-01-01"], "line 3, column 't': times must be in rising order"),
        (["1", "2024-01-01"], "line 3, column 't': must be a number as in the rows above"),
        (["2024-01-01 00:00", "2024-01-02 00:00Z"], "got '2024-01-02 00:00Z', a time with offset"),
        (["1", ""], "line 3, column 't': must be a number, or a time .*, got ''"),
    ],
)
def test_times_are_in_order(tmp_path: Path, times: list[str], message: str) -> None:
    text = "t,x\n" + "".join(f"{time},{k}\n" for k, time in enumerate(times))
    if not message:
        assert read(tmp_path, text, time="t")[0] == ["x"]
        return
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, time="t")


def test_what_is_forecast_from_is_read_as_in_training(tmp_path: Path) -> None:
    """Each series for itself, its rows wherever they stand; short and unordered ones refused."""
    days = range(12)
    rows = [f"{s},{t},{v + t}" for t in days for s, v in (("north", 0.0), ("south", -500.0))]
    two_stores = write(tmp_path, "\n".join(["store,day,x", *rows]))
    north = write(tmp_path, "\n".join(["store,day,x", *rows[::2]]), "north.csv")
    config = ForecastConfig(paths=(two_stores,), time="day", series="store", window=4, horizon=2)
    codec = Forecasting.read(config).codec
    inputs = Forecasting.read_inputs(config, codec, [two_stores])
    assert [dict(item.key_columns) for item in inputs] == [{"store": "north"}, {"store": "south"}]
    assert [item.value.flatten().tolist() for item in inputs] == [
        [float(t) for t in days],
        [t - 500.0 for t in days],
    ]
    inputs_of_files = Forecasting.read_inputs(config, codec, [two_stores, north])
    assert [dict(item.key_columns) for item in inputs_of_files] == [
        {"file": two_stores, "store": "north"},
        {"file": two_stores, "store": "south"},
        {"file": north, "store": "north"},
    ]
    renamed = [write(tmp_path, "\n".join(["file,day,x", *rows]), f"{k}.csv") for k in (1, 2)]
    by_file = ForecastConfig(paths=(two_stores,), time="day", series="file", window=4, horizon=2)
    assert [
        tuple(item.key_columns.items()) for item in Forecasting.read_inputs(by_file, codec, renamed)
    ] == [
        (("forecast_file", path), ("file", name)) for path in renamed for name in ("north", "south")
    ]
    late = write(tmp_path, "\n".join(["store,day,x", *rows[:4], *rows[::-1]]), "late.csv")
    with pytest.raises(DataError, match=r"late\.csv, line 8, .* rising order, got '10' after '11'"):
        Forecasting.read_inputs(config, codec, [late])
    short = write(tmp_path, "\n".join(["store,day,x", *rows[:7]]), "short.csv")
    with pytest.raises(
        DataError, match=r"short\.csv, series 'south': must have at least 4 rows, .* got 3;"
    ):
        Forecasting.read_inputs(config, codec, [short])
