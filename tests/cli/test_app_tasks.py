"""The commands of every task, in process: train, evaluate, predict, and configuration files."""

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import error_of, output_of
from tests.support.small_tasks import NAMES, READ, config_of, write_data
from tests.support.tolerances import close
from unrolled.cli._app import run
from unrolled.config import CONFIGS
from unrolled.io import FileError
from unrolled.models import load_tree
from unrolled.runtime import load
from unrolled.tasks import find_task, load_trained
from unrolled.tasks._classification import class_probabilities, prefix_probabilities
from unrolled.tasks._forecasting import forecast
from unrolled.tasks._tagging import predict_tags
from unrolled.tasks._translation import translate
from unrolled.tasks.data._tables import read_table
from unrolled.train._callbacks import read_rows

pytestmark = pytest.mark.slow

EXAMPLES = ["classify", "numbers", "tag", "forecast", "seq2seq"]
STEPS = {"steps": 12, "validate_every": 4, "learning_rate": 0.02}


def options_of(example: str, folder: Path, **options: Any) -> list[str]:
    """The command line of a small configuration: what is not the default, and the data."""
    config = config_of(example, folder, **{**STEPS, **options})
    arguments = [config.paths[0]]
    for field in fields(config):
        value, name = getattr(config, field.name), field.name.replace("_", "-")
        if field.name == "paths" or value == field.default:
            continue
        arguments += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else (
            [f"--{name}", str(value)]
        )  # fmt: skip
    return arguments


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run of each kind; classifiers of texts read in one direction."""
    workspace = tmp_path_factory.mktemp("tasks")
    torch.set_num_threads(1)
    for example in EXAMPLES:
        options = {"bidirectional": False} if example == "classify" else {}
        arguments = options_of(example, workspace, **options)
        assert run(["train", NAMES[example], *arguments, "--run", str(workspace / example)]) == 0
    return workspace


def trained(workspace: Path, example: str) -> tuple[Any, Any]:
    task = find_task(NAMES[example])
    path = workspace / example / "best.safetensors"
    return load_trained(path, task)


@pytest.mark.parametrize("example", EXAMPLES)
def test_evaluate_prints_the_scores_of_training(workspace: Path, example: str, capsys: Any) -> None:
    actual = json.loads(output_of(capsys, "evaluate", workspace / example, "--json"))
    rows = [row for row in read_rows(workspace / example / "metrics.csv") if row["validation_loss"]]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    expected = {name: float(best[f"validation_{name}"]) for name in actual["model"]}
    assert actual["model"] == pytest.approx(expected, rel=1e-12)
    task = find_task(NAMES[example]).read(config_of(example, workspace, **STEPS))
    assert {name: actual[name] for name in actual if name != "model"} == task.baselines()
    lines = output_of(capsys, "evaluate", workspace / example).splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == list(actual)
    assert lines[0].endswith(task.format_scores(actual["model"]))


def test_evaluate_measures_all_of_other_data(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    """Against the library's own predictions of the same rows."""
    rows = [("soft", "aei"), ("hard", "krt"), ("soft", "ou"), ("soft", "kkk")]
    path = tmp_path / "other.csv"
    path.write_text("\n".join(["label,body", *map(",".join, rows)]))
    actual = json.loads(output_of(capsys, "evaluate", workspace / "classify", path, "--json"))
    model, codec = trained(workspace, "classify")
    guesses = codec.labels.decode(
        class_probabilities(model, codec, [text for _, text in rows]).argmax(-1)
    )
    right = [guess == label for guess, (label, _) in zip(guesses, rows, strict=True)]
    assert actual["model"]["accuracy"] == sum(right) / 4
    assert actual["majority of these data"]["accuracy"] == 3 / 4


def test_predict_prints_the_label_of_texts_and_rows(workspace: Path, capsys: Any) -> None:
    model, codec = trained(workspace, "classify")
    texts = ["aeiou", "krtpd", ""]
    printed = output_of(
        capsys, "predict", workspace / "classify", *(x for t in texts for x in ("--text", t))
    )
    for line, text in zip(printed.splitlines(), texts, strict=True):
        (chances,) = class_probabilities(model, codec, [text])
        best = int(chances.argmax())
        assert line == f"{codec.labels.entries[best]}\t{chances[best].item()!r}\t{text!r}"
    model, codec = trained(workspace, "numbers")
    table = read_table(workspace / "numbers.csv")
    lines = output_of(
        capsys, "predict", workspace / "numbers", workspace / "numbers.csv"
    ).splitlines()
    assert len(lines) == len(table) == 45
    task = find_task("classify").read(config_of("numbers", workspace))
    for line, sequence, at in zip(lines, task.data.inputs, task.data.locations, strict=True):
        (chances,) = class_probabilities(model, codec, [sequence])
        label = codec.labels.entries[int(chances.argmax())]
        assert line == f"{label}\t{chances.max().item()!r}\t{at}"


def test_predict_each_ends_with_the_prediction_of_the_text(workspace: Path, capsys: Any) -> None:
    text = "aekrtiou"
    complete = output_of(capsys, "predict", workspace / "classify", "--text", text).split("\t")
    lines = output_of(
        capsys, "predict", workspace / "classify", "--text", text, "--each"
    ).splitlines()
    _, label, chance = lines[-1].split("\t")
    assert label == complete[0]
    assert float(chance) == pytest.approx(float(complete[1]), rel=1e-6)
    assert [line.split("\t")[0] for line in lines] == [repr(c) for c in text]
    model, codec = trained(workspace, "classify")
    chances = prefix_probabilities(model, codec, text).max(-1).values.tolist()
    assert [float(line.split("\t")[2]) for line in lines] == chances
    refused = error_of(
        capsys, "predict", workspace / "numbers", workspace / "numbers.csv", "--each"
    )
    assert "--each requires a model that reads in one direction" in refused


def test_predict_tags_tokens(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    model, codec = trained(workspace, "tag")
    sentences = [["Ada", "Lee", "met"], ["Bo", "slept"]]
    expected = "".join(
        "".join(f"{token} {label}\n" for token, label in zip(tokens, labels, strict=True)) + "\n"
        for tokens, labels in zip(sentences, predict_tags(model, codec, sentences), strict=True)
    )
    texts = [x for tokens in sentences for x in ("--text", " ".join(tokens))]
    assert output_of(capsys, "predict", workspace / "tag", *texts) == expected
    (tmp_path / "tokens").write_text("\n\n".join("\n".join(tokens) for tokens in sentences))
    assert output_of(capsys, "predict", workspace / "tag", tmp_path / "tokens") == expected


def test_predict_forecasts_the_next_rows(workspace: Path, capsys: Any) -> None:
    model, codec = trained(workspace, "forecast")
    table = read_table(workspace / "forecast.csv")
    past = torch.stack([table.numbers("warm"), table.numbers("wet")], 1)
    head, *rows = output_of(
        capsys, "predict", workspace / "forecast", workspace / "forecast.csv"
    ).splitlines()
    assert head == "step,warm,wet"
    actual = [[float(cell) for cell in row.split(",")] for row in rows]
    assert [row[0] for row in actual] == [1, 2, 3]
    expected = forecast(model, codec, past).flatten().tolist()
    assert [x for row in actual for x in row[1:]] == expected


@pytest.mark.parametrize("beam", [1, 3])
def test_predict_translates_lines(workspace: Path, tmp_path: Path, beam: int, capsys: Any) -> None:
    model, codec = trained(workspace, "seq2seq")
    sources = ["one two", "six"]
    (tmp_path / "sources").write_text("\n".join(sources))
    expected = translate(model, codec, sources, width=beam)
    arguments = ["predict", workspace / "seq2seq", tmp_path / "sources", "--beam", beam]
    assert output_of(capsys, *arguments).splitlines() == expected


# Configuration files


@pytest.mark.parametrize("name", CONFIGS)
def test_a_printed_configuration_is_read_back(name: str, tmp_path: Path, capsys: Any) -> None:
    data = [write_data(name, tmp_path)] if name in READ else []
    arguments = ["--steps", 7, "--learning-rate", 1e-5, "--cell", "LSTM", "--precision", "bf16"]
    printed = output_of(capsys, "train", name, *data, *arguments, "--print-config")
    (tmp_path / "file.yaml").write_text(printed)
    arguments_again = ["train", name, "--config", tmp_path / "file.yaml", "--print-config"]
    assert output_of(capsys, *arguments_again) == printed
    for line in (
        *(f"- {path}" for path in data),
        "steps: 7",
        "learning_rate: 1.0e-05",
        "cell: LSTM",
    ):
        assert f"{line}\n" in printed
    changed = output_of(capsys, *arguments_again, "--steps", 9, "--cell", "GRU")
    assert changed == printed.replace("steps: 7", "steps: 9").replace("cell: LSTM", "cell: GRU")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hiden: 3", "has the unknown option hiden; options are cell, "),
        ("one_direction: x", "unknown option one_direction"),
        ("steps: many", "steps must be an integer, got 'many'"),
        ("steps: true", "steps must be an integer, got True"),
        ("patience: 1.5", "patience must be an integer or null, got 1.5"),
        ("target: [1]", "target must be a list of strings, got [1]"),
        ("- steps", "must have options by name, got a sequence"),
        ("steps: [", "must be a YAML file of options ("),
        ("steps: 0", "--steps must be at least 1, got 0"),
        ("precision: 8", "--precision must be one of 32, bf16, 16, got '8'"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_reported(
    text: str, expected: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "file.yaml").write_text(text)
    assert expected in error_of(capsys, "train", "forecast", "--config", tmp_path / "file.yaml")
    assert "No such file" in error_of(capsys, "train", "lm", "--config", tmp_path / "absent.yaml")


def test_two_directions_are_refused_with_the_reason(capsys: Any) -> None:
    for name in ("lm", "forecast"):
        line = error_of(capsys, "train", name, "--bidirectional")
        assert f"--bidirectional must be False, got True: {CONFIGS[name].one_direction}" in line


def test_data_of_the_task_beside_data_of_the_user_are_refused(tmp_path: Path, capsys: Any) -> None:
    for name in ("co2", "sunspots"):
        line = error_of(capsys, "train", "forecast", tmp_path / "a.csv", "--data", name)
        assert f"--data must be omitted if DATA is given, got {name}" in line
    (tmp_path / "file.yaml").write_text("data: co2")
    arguments = [tmp_path / "a.csv", "--config", tmp_path / "file.yaml"]
    assert "--data must be omitted if DATA is given, got co2" in error_of(
        capsys, "train", "forecast", *arguments
    )


# A cell of the user

CELL_FILE = """
from unrolled.cells import Cell, tanh

class MyCell(Cell):
    def step(self, x, h, state):
        return 0.5 * state.h + 0.5 * tanh(x + h)
"""


@pytest.mark.parametrize("example", ["classify", "forecast"])
def test_a_cell_of_a_file_trains_and_runs_only_where_it_is_allowed(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(CELL_FILE)
    output_of(
        capsys,
        "train",
        example,
        *options_of(example, tmp_path, cell="own.py:MyCell"),
        "--run",
        "run",
    )
    cell_path = f"{tmp_path / 'own.py'}:MyCell"
    assert load_tree(tmp_path / "run" / "best.safetensors")["model"]["cell"] == cell_path
    Path("own.py").write_text("raise SystemExit('the code ran')")
    for arguments in (["evaluate", "run"], ["predict", "run", f"{example}.csv"]):
        assert f"not run without your consent: --cell {cell_path}" in error_of(capsys, *arguments)
    Path("own.py").write_text(CELL_FILE)
    actual = output_of(capsys, "evaluate", "run", "--json", "--cell", "own.py:MyCell")
    rows = [row for row in read_rows(Path("run/metrics.csv")) if row["validation_loss"]]
    expected = min(float(row["validation_loss"]) for row in rows)
    assert json.loads(actual)["model"]["loss"] == pytest.approx(expected, rel=1e-12)


def test_lines_of_both_sides_go_together(
    workspace: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty line is translated by an empty line; standard input is read like a file."""
    data = json.loads((workspace / "seq2seq" / "config.json").read_text())["paths"][0]
    sources = [line.split("\t")[0] for line in Path(data).read_text().splitlines()][:70]
    lines = [sources[0], "", *sources[1:], ""]
    file = tmp_path / "sources"
    file.write_text("\n".join([*lines, ""]))
    model, codec = trained(workspace, "seq2seq")
    # Alone, each is what it is beside the others.
    expected = [translate(model, codec, [line])[0] if line else "" for line in lines]
    printed = output_of(capsys, "predict", workspace / "seq2seq", file)
    assert printed.split("\n") == [*expected, ""]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert output_of(capsys, "predict", workspace / "seq2seq") == printed


# Export


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_exported_run_has_the_outputs_of_the_run(
    workspace: Path, example: str, tmp_path: Path, capsys: Any
) -> None:
    """Of the user's own texts and numbers, in a few lines without torch."""
    line = output_of(capsys, "export", workspace / example, tmp_path / "model.safetensors")
    assert line.startswith(f"model       {tmp_path / 'model.safetensors'} (")
    with pytest.raises(FileError, match=r"best\.safetensors: is a checkpoint of a run, not"):
        load(workspace / example / "best.safetensors")
    runtime = load(tmp_path / "model.safetensors")
    assert runtime.task == NAMES[example]
    model, codec = trained(workspace, example)
    items: Any = {
        "classify": ["aeiou", "k", "tpuoi"],
        "numbers": [torch.arange(4.0)[:, None], torch.tensor([[5.0], [1.0], [-2.0]])],
        "tag": [["Ada", "Lee", "met", "Zoe"], ["left"]],
        "forecast": [torch.linspace(0, 60, 20).view(10, 2)],
        "seq2seq": ["one two", "six"],
    }[example]
    x, lengths = runtime.encode(items)
    decoded = runtime.decode(runtime.run(x, lengths=lengths), lengths)
    if example == "forecast":
        expected = forecast(model, codec, items[0])
        for k, name in enumerate(("warm", "wet")):
            close(torch.from_numpy(decoded[name][0]).float(), expected[:, k].float(), "output")
    elif NAMES[example] == "classify":
        assert decoded == codec.labels.decode(class_probabilities(model, codec, items).argmax(-1))
    else:
        says: Any = {"tag": predict_tags, "seq2seq": translate}[example]
        assert decoded == says(model, codec, items)


def test_what_cannot_be_exported_is_reported(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m"
    line = error_of(capsys, "export", workspace / "numbers", out, "--weights", "int2")
    assert "weights must be one of float32, bfloat16, int8, got 'int2'" in line
    assert not out.exists()
