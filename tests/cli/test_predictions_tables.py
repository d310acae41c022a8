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

from tests.support.command_line import error_of, output_of
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


def from_stdin(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and a run on each."""
    workspace = tmp_path_factory.mktemp("predict")
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
        (workspace / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options = {
        "two": ["forecast", *FORECAST, "--series", "store"],
        "small": ["forecast", *FORECAST],
        "words": ["classify", "--label", "kind"],
        "texts": ["classify", "--label", "kind", "--text", "body"],
    }
    for name, (task, *task_options) in options.items():
        data = str(workspace / f"{name}.csv")
        assert (
            run(["train", task, data, *TRAIN, *task_options, "--run", str(workspace / name)]) == 0
        )
    return workspace


def trained(workspace: Path, name: str, task: str) -> Any:
    return load_trained(workspace / name / "best.safetensors", find_task(task))


def test_each_series_has_the_forecast_of_its_own_rows(workspace: Path, capsys: Any) -> None:
    model, codec = trained(workspace, "two", "forecast")
    table = read_table(workspace / "two.csv")
    values = table.numbers("x")[:, None]
    expected = {
        name: forecast(model, codec, values[k::2]).flatten().tolist()
        for k, name in enumerate(["north", "south"])
    }
    printed = output_of(capsys, "predict", workspace / "two", workspace / "two.csv")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["store"], row["step"], float(row["x"])) for row in rows] == [
        (name, str(step), value)
        for name, values in expected.items()
        for step, value in enumerate(values, 1)
    ]
    printed_of_file = output_of(capsys, "predict", workspace / "two", workspace / "north.csv")
    assert printed_of_file.splitlines() == printed.splitlines()[:3]
    printed_of_files = output_of(
        capsys, "predict", workspace / "two", workspace / "north.csv", workspace / "two.csv"
    )
    files = [row["file"] for row in csv.DictReader(io.StringIO(printed_of_files))]
    assert files == [f"{workspace / 'north.csv'}"] * 2 + [f"{workspace / 'two.csv'}"] * 4


@pytest.mark.parametrize("name", ["two", "words", "texts"])
def test_standard_input_is_a_file_of_the_same_bytes(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pa = pytest.importorskip("pyarrow.csv")
    import pyarrow.parquet as parquet

    expected = output_of(capsys, "predict", workspace / name, workspace / f"{name}.csv")
    parquet.write_table(pa.read_csv(workspace / f"{name}.csv"), workspace / f"{name}.parquet")
    bytes_of = (workspace / f"{name}.csv").read_bytes()
    (workspace / f"{name}.tsv").write_bytes(b"\xef\xbb\xbf" + bytes_of.replace(b",", b"\t"))
    for suffix in (".csv", ".tsv", ".parquet"):
        path = workspace / f"{name}{suffix}"
        from_stdin(monkeypatch, path)
        printed = output_of(capsys, "predict", workspace / name)
        location = re.compile(r"(?m)\t[^\t\n]*$")
        assert location.sub("", printed) == location.sub("", expected)
        if suffix != ".parquet":
            assert printed == expected.replace(str(workspace / f"{name}.csv"), "standard input")
        assert output_of(capsys, "predict", workspace / name, path) == printed.replace(
            "standard input", str(path)
        )


def test_a_damaged_table_on_standard_input_is_not_read_as_lines(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "bad.csv").write_text("body,kind\ntext 1,up\ntext, 2,down\n")
    from_stdin(monkeypatch, tmp_path / "bad.csv")
    line = error_of(capsys, "predict", workspace / "texts")
    assert "standard input, line 3: must have 2 fields as in the header, got 3" in line


def test_times_out_of_order_are_refused_as_in_training(workspace: Path, capsys: Any) -> None:
    lines = (workspace / "north.csv").read_text().splitlines()
    path = workspace / "late.csv"
    path.write_text("\n".join([*lines[:30], lines[31], lines[30], *lines[32:]]))
    line = error_of(capsys, "predict", workspace / "two", path)
    assert "late.csv, line 32, column 'day': times must be in rising order, got '29' after" in line
    assert line == error_of(capsys, "evaluate", workspace / "two", path)


def test_the_column_of_labels_is_not_a_step(workspace: Path, capsys: Any) -> None:
    lines = (workspace / "words.csv").read_text().splitlines()
    without = workspace / "without.csv"
    without.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    model, codec = trained(workspace, "words", "classify")
    printed = output_of(capsys, "predict", workspace / "words", workspace / "words.csv")
    assert output_of(capsys, "predict", workspace / "words", without) == printed.replace(
        "words.", "without."
    )
    guesses = []
    for k, line in enumerate(printed.splitlines()):
        numbers = torch.tensor([k, -k, k / 3], dtype=torch.float64)[:, None]
        (chances,) = class_probabilities(model, codec, [numbers])
        label = codec.labels.entries[int(chances.argmax())]
        at = f"{workspace / 'words.csv'}, line {k + 2}"
        assert line == f"{label}\t{chances.max().item()!r}\t{at}"
        guesses.append(label)
    right = sum(guess == ("up" if k % 2 else "down") for k, guess in enumerate(guesses))
    scores = json.loads(
        output_of(capsys, "evaluate", workspace / "words", workspace / "words.csv", "--json")
    )
    assert scores["model"]["accuracy"] == right / 40


def test_steps_have_the_names_of_the_run(workspace: Path, capsys: Any) -> None:
    """A table may have fewer steps or more, but neither others nor the same in another order."""
    text = (workspace / "words.csv").read_text()
    path = workspace / "other.csv"
    for header, row in (("a,b", "1,2"), ("a,b,c,d", "1,2,3,4"), ("a,kind,b", "1,up,2")):
        path.write_text(f"{header}\n{row}\n")
        assert len(output_of(capsys, "predict", workspace / "words", path).splitlines()) == 1
    path.write_text("id," + text.replace("\n", "\n1,").removesuffix("1,"))
    said_of = (
        r"other.csv: columns must be those of the run in their order, 'a' for step 1, got 'id'"
    )
    for command in ("predict", "evaluate"):
        assert said_of in error_of(capsys, command, workspace / "words", path)
    train = ["train", "classify", workspace / "words.csv", path, "--label", "kind"]
    assert "words.csv: columns must be those of the run in their order" in error_of(capsys, *train)


def test_texts_are_those_of_the_runs_column(workspace: Path, capsys: Any) -> None:
    model, codec = trained(workspace, "texts", "classify")
    printed = output_of(
        capsys, "predict", workspace / "texts", workspace / "texts.csv"
    ).splitlines()
    assert len(printed) == 40
    for k in (0, 39):
        (chances,) = class_probabilities(model, codec, [f"text {k}"])
        assert printed[k].split("\t")[1] == repr(chances.max().item())


def test_small_errors_are_printed_in_full(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    """In the last line of training, in metrics.csv and by evaluate: the same numbers."""
    data = workspace / "small.csv"
    printed = output_of(
        capsys, "train", "forecast", data, *TRAIN, *FORECAST, "--run", tmp_path / "run"
    )
    (line,) = (line for line in printed.splitlines() if line.startswith("validation, last"))
    row = [row for row in read_rows(tmp_path / "run" / "metrics.csv") if row["validation_mae"]][-1]
    scores = "  ".join(f"{name} {row[f'validation_{name}']}" for name in ("loss", "mae", "rmse"))
    assert line == f"validation, last {scores}  (step 4)"
    scores = json.loads(output_of(capsys, "evaluate", workspace / "small", "--json"))["model"]
    assert 1e-10 < scores["mae"] < 1e-7
    rows = [r for r in read_rows(workspace / "small" / "metrics.csv") if r["validation_loss"]]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    expected = {name: float(best[f"validation_{name}"]) for name in scores}
    assert scores == pytest.approx(expected, rel=1e-12)
