"""`unrolled predict` on tables, in process: read as the run read its own, printed in full."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.cli._app import run
from unrolled.tasks import find_task, load_trained
from unrolled.tasks._classification import class_probabilities
from unrolled.tasks._forecasting import forecast
from unrolled.tasks.data._tables import read_table
from unrolled.train._callbacks import read_rows

pytestmark = pytest.mark.slow

TRAIN = ["--steps", "4", "--validate-every", "2", "--hidden-size", "4", "--batch-size", "8",
         "--accelerator", "cpu"]  # fmt: skip
FORECAST = ["--time", "day", "--window", "6", "--horizon", "2"]


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command writes that succeeds."""
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def fault(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert re.fullmatch("unrolled: .*\n", shown.err), shown.err
    return shown.err


def from_stdin(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and a run on each."""
    place = tmp_path_factory.mktemp("predict")
    torch.set_num_threads(1)
    days = range(60)
    level = {"north": 25_000_000.0, "south": -500.0}
    two = [f"{s},{t},{v + 5 * math.sin(t / 2)!r}" for t in days for s, v in level.items()]
    tables = {
        "two": ["store,day,x", *two],
        "north": ["store,day,x", *two[::2]],
        "small": ["day,x", *(f"{t},{3e-8 + 2e-8 * math.sin(t / 2)!r}" for t in days)],
        "words": ["a,b,c,kind"]
        + [f"{k},{-k},{k / 3!r},{'up' if k % 2 else 'down'}" for k in range(40)],
        "texts": ["body,kind"] + [f"text {k},{'up' if k % 2 else 'down'}" for k in range(40)],
    }
    for name, lines in tables.items():
        (place / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options = {
        "two": ["forecast", *FORECAST, "--series", "store"],
        "small": ["forecast", *FORECAST],
        "words": ["classify", "--label", "kind"],
        "texts": ["classify", "--label", "kind", "--text", "body"],
    }
    for name, (task, *given) in options.items():
        data = str(place / f"{name}.csv")
        assert run(["train", task, data, *TRAIN, *given, "--run", str(place / name)]) == 0
    return place


def trained(place: Path, name: str, task: str) -> Any:
    return load_trained(place / name / "best.safetensors", find_task(task))


def test_each_series_has_the_forecast_of_its_own_rows(place: Path, capsys: Any) -> None:
    model, codec = trained(place, "two", "forecast")
    table = read_table(place / "two.csv")
    values = table.numbers("x")[:, None]
    wanted = {
        name: forecast(model, codec, values[k::2]).flatten().tolist()
        for k, name in enumerate(["north", "south"])
    }
    shown = said(capsys, "predict", place / "two", place / "two.csv")
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [(row["store"], row["step"], float(row["x"])) for row in rows] == [
        (name, str(step), value)
        for name, each in wanted.items()
        for step, value in enumerate(each, 1)
    ]
    alone = said(capsys, "predict", place / "two", place / "north.csv")
    assert alone.splitlines() == shown.splitlines()[:3]
    both = said(capsys, "predict", place / "two", place / "north.csv", place / "two.csv")
    files = [row["file"] for row in csv.DictReader(io.StringIO(both))]
    assert files == [f"{place / 'north.csv'}"] * 2 + [f"{place / 'two.csv'}"] * 4


@pytest.mark.parametrize("name", ["two", "words", "texts"])
def test_standard_input_is_a_file_of_the_same_bytes(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pa = pytest.importorskip("pyarrow.csv")
    import pyarrow.parquet as parquet

    wanted = said(capsys, "predict", place / name, place / f"{name}.csv")
    parquet.write_table(pa.read_csv(place / f"{name}.csv"), place / f"{name}.parquet")
    bytes_of = (place / f"{name}.csv").read_bytes()
    (place / f"{name}.tsv").write_bytes(b"\xef\xbb\xbf" + bytes_of.replace(b",", b"\t"))
    for suffix in (".csv", ".tsv", ".parquet"):
        path = place / f"{name}{suffix}"
        from_stdin(monkeypatch, path)
        found = said(capsys, "predict", place / name)
        place_of = re.compile(r"(?m)\t[^\t\n]*$")
        assert place_of.sub("", found) == place_of.sub("", wanted)
        if suffix != ".parquet":
            assert found == wanted.replace(str(place / f"{name}.csv"), "standard input")
        assert said(capsys, "predict", place / name, path) == found.replace(
            "standard input", str(path)
        )


def test_a_damaged_table_on_standard_input_is_not_read_as_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "bad.csv").write_text("body,kind\ntext 1,up\ntext, 2,down\n")
    from_stdin(monkeypatch, tmp_path / "bad.csv")
    line = fault(capsys, "predict", place / "texts")
    assert "standard input, line 3: must have 2 fields as in the header, got 3" in line


def test_times_out_of_order_are_refused_as_in_training(place: Path, capsys: Any) -> None:
    lines = (place / "north.csv").read_text().splitlines()
    path = place / "late.csv"
    path.write_text("\n".join([*lines[:30], lines[31], lines[30], *lines[32:]]))
    line = fault(capsys, "predict", place / "two", path)
    assert "late.csv, line 32, column 'day': times must be in rising order, got '29' after" in line
    assert line == fault(capsys, "evaluate", place / "two", path)


def test_the_column_of_labels_is_no_number_of_a_sequence(place: Path, capsys: Any) -> None:
    lines = (place / "words.csv").read_text().splitlines()
    without = place / "without.csv"
    without.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    model, codec = trained(place, "words", "classify")
    shown = said(capsys, "predict", place / "words", place / "words.csv")
    assert said(capsys, "predict", place / "words", without) == shown.replace("words.", "without.")
    guesses = []
    for k, line in enumerate(shown.splitlines()):
        numbers = torch.tensor([k, -k, k / 3], dtype=torch.float64)[:, None]
        (chances,) = class_probabilities(model, codec, [numbers])
        label = codec.labels.entries[int(chances.argmax())]
        at = f"{place / 'words.csv'}, line {k + 2}"
        assert line == f"{label}\t{chances.max().item()!r}\t{at}"
        guesses.append(label)
    right = sum(guess == ("up" if k % 2 else "down") for k, guess in enumerate(guesses))
    found = json.loads(said(capsys, "evaluate", place / "words", place / "words.csv", "--json"))
    assert found["model"]["accuracy"] == right / 40


def test_steps_have_the_names_of_the_run(place: Path, capsys: Any) -> None:
    """A table may have fewer steps or more, but neither others nor the same in another order."""
    text = (place / "words.csv").read_text()
    path = place / "other.csv"
    for header, row in (("a,b", "1,2"), ("a,b,c,d", "1,2,3,4"), ("a,kind,b", "1,up,2")):
        path.write_text(f"{header}\n{row}\n")
        assert len(said(capsys, "predict", place / "words", path).splitlines()) == 1
    path.write_text("id," + text.replace("\n", "\n1,").removesuffix("1,"))
    said_of = (
        r"other.csv: columns must be those of the run in their order, 'a' for step 1, got 'id'"
    )
    for command in ("predict", "evaluate"):
        assert said_of in fault(capsys, command, place / "words", path)
    given = ["train", "classify", place / "words.csv", path, "--label", "kind"]
    assert "words.csv: columns must be those of the run in their order" in fault(capsys, *given)


def test_texts_are_those_of_the_runs_column(place: Path, capsys: Any) -> None:
    model, codec = trained(place, "texts", "classify")
    shown = said(capsys, "predict", place / "texts", place / "texts.csv").splitlines()
    assert len(shown) == 40
    for k in (0, 39):
        (chances,) = class_probabilities(model, codec, [f"text {k}"])
        assert shown[k].split("\t")[1] == repr(chances.max().item())


def test_small_errors_are_told_in_full(place: Path, tmp_path: Path, capsys: Any) -> None:
    """In the last line of training, in metrics.csv and by evaluate: the same numbers."""
    data = place / "small.csv"
    shown = said(capsys, "train", "forecast", data, *TRAIN, *FORECAST, "--run", tmp_path / "run")
    (line,) = (line for line in shown.splitlines() if line.startswith("validation, last"))
    row = [row for row in read_rows(tmp_path / "run" / "metrics.csv") if row["validation_mae"]][-1]
    scores = "  ".join(f"{name} {row[f'validation_{name}']}" for name in ("loss", "mae", "rmse"))
    assert line == f"validation, last {scores}  (step 4)"
    found = json.loads(said(capsys, "evaluate", place / "small", "--json"))["model"]
    assert 1e-10 < found["mae"] < 1e-7
    rows = [r for r in read_rows(place / "small" / "metrics.csv") if r["validation_loss"]]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    wanted = {name: float(best[f"validation_{name}"]) for name in found}
    assert found == pytest.approx(wanted, rel=1e-12)
