"""Data that cannot be used: a message with the file, the line, the requirement and the remedy."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_tasks import NAMES, config_of
from unrolled.tasks import DataError, find_task
from unrolled.tasks._forecasting import forecast
from unrolled.tasks._tagging import predict_tags
from unrolled.tasks._translation import translate
from unrolled.tasks.data._tables import read_table

FAULTS: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("classify", {}, "label,body\nsoft,a\nhard\n", "data, line 3: must have 2 fields .*, got 1"),
    ("classify", {"text": "boby"}, "label,body\nsoft,a\nhard,b\n",
     "data: column must be one of 'label', 'body', got 'boby'; did you mean 'body'?"),
    ("classify", {"text": None, "label": "kind"}, "label,a\nx,1\ny,2\n",
     "data: column must be one of 'label', 'a', got 'kind'"),
    ("classify", {}, "label,body\nsoft,a\n", "data: must have at least two examples, got 1"),
    ("numbers", {}, "label,a,b\nup,1,2\ndown,1,two\n",
     "data, line 3, column 'b': must be a number, got 'two'"),
    ("numbers", {}, "label,a,b\nup,,2\ndown,1,2\n",
     "data, line 2: must have numbers, then empty cells only at the end"),
    ("numbers", {}, "label,a\nup,1\n,2\ndown,3\n",
     "data, line 3, column 'label': must be a label, got ''; fill the cell or remove the row"),
    ("classify", {}, "label,body\nsoft,a\nhard,b\n,c\n", "data, line 4, column 'label'"),
    ("classify", {}, "label,body\n1,a\n01,b\n", "data, line 3, .* in one spelling, got '01'"),
    ("numbers", {}, "label,a\nup,1\nup,2\n", "data: must have at least two labels, got 'up' alone"),
    ("numbers", {"label": "id"}, "id,a\n1,1\n2,2\n3,3\n",
     "data: labels must occur more than once, got 3 sequences with 3 labels"),
    ("numbers", {}, "label,a,__index_level_0__\nup,1,2\n", "data: .* got pandas' index"),
    ("numbers", {}, "label\nup\ndown\n", "data: must have columns besides 'label', got none"),
    ("tag", {}, "Ada B-PER\nmet\n\nBo B-PER\n", "data, line 2: must have 2 columns"),
    ("tag", {"column": 3}, "Ada B-PER\n", "data, line 1: must have .*column"),
    ("tag", {}, "\n\n", "data: must have a token and its label on each line, got no sentence"),
    ("forecast", {}, "day,warm\n0,1\n1,2\n2,3\n",
     "data: must have a series with a window of 6 .* got at most 3 values; use more data"),
    ("forecast", {}, "day,warm\n0,1\n2,2\n1,3\n",
     "data, line 4, column 'day': times must be in rising order, got '1' after '2'; sort"),
    ("forecast", {"target": ("cold",)}, "day,warm\n0,1\n",
     "data: column must be one of 'day', 'warm', got 'cold'"),
    ("forecast", {"target": ("warm",)}, "day,warm\n0,1\n1,x\n",
     "data, line 3, column 'warm': must be a number, got 'x'"),
    ("forecast", {}, "day,warm\n0,a\n1,b\n", "data: must have a column of numbers to forecast"),
    ("forecast", {"target": ("warm",), "covariate": ("warm",)}, "day,warm\n0,1\n",
     "--covariate must not have target columns, got 'warm'"),
    ("forecast", {"season": 7}, "day,warm\n0,1\n",
     "--season must be at most 6, the steps of the window, got 7"),
    ("seq2seq", {}, "one\t1\n\ntwo 2\n", "data, line 3: must have a source, a tab and its target"),
    ("seq2seq", {}, "one\t1\ntwo\t \n", "data, line 2: must have a source, a tab and its target"),
    ("seq2seq", {}, "one\t1\ntwo\t2\t3\n", "data, line 2: must have a source, a tab and its t"),
    ("seq2seq", {"max_length": 3}, "one\t1\nthree\t3\n",
     "data, line 2: source and target must have at most 3 characters, got 5; the limit is the run"),
    ("seq2seq", {}, None, "data: cannot be read"),
]  # fmt: skip


def read(example: str, path: Path, folder: Path, **options: Any) -> Any:
    config = dataclasses.replace(config_of(example, folder, **options), paths=(str(path),))
    return find_task(NAMES[example]).read(config)


@pytest.mark.parametrize(("example", "options", "text", "message_pattern"), FAULTS)
def test_a_fault_raises_with_one_line(
    example: str, options: dict[str, Any], text: str | None, message_pattern: str, tmp_path: Path
) -> None:
    suffix = ".csv" if text is not None and example in ("classify", "numbers", "forecast") else ""
    path = tmp_path / f"data{suffix}"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        read(example, path, tmp_path, **options)
    message = str(caught.value).replace(f"{path}", "data")
    assert re.match(message_pattern.replace("?", r"\?"), message), message
    assert "\n" not in message


def test_folders_of_texts_are_checked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message_pattern in (("empty", "a folder of text files for each label, got none"),
                       ("absent", r"must be a table \(.*\) or a folder")):  # fmt: skip
        with pytest.raises(DataError, match=f"{name}: .*{message_pattern}"):
            read("classify", tmp_path / name, tmp_path)
    (tmp_path / "texts" / "soft").mkdir(parents=True)
    (tmp_path / "texts" / "soft" / "a").write_bytes(b"fine\n\xff")
    with pytest.raises(DataError, match="soft/a, line 2: must be UTF-8, got the byte 0xff"):
        read("classify", tmp_path / "texts", tmp_path)


def test_texts_and_numbers_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "texts" / "up").mkdir(parents=True)
    (tmp_path / "texts" / "up" / "a").write_text("a")
    config = config_of("numbers", tmp_path)
    paths = (*config.paths, str(tmp_path / "texts"))
    with pytest.raises(DataError, match="data: must be all texts or all numbers, got both"):
        find_task("classify").read(dataclasses.replace(config, paths=paths))


@pytest.mark.parametrize(
    ("example", "text", "message_pattern"),
    [
        ("classify", "label,body\nsoft,a\nsoff,b\n",
         "data, line 3: label must be one of 'hard', 'soft', got 'soff'; did you mean 'soft'?"),
        ("tag", "Ada B-PER\n\nBo B-PRE\n", "data, line 3: label must be one of "),
        ("numbers", "label,body\nup,hello\n", "data, line 2, column 'body': must be a number"),
    ],
)  # fmt: skip
def test_what_a_trained_model_does_not_know_raises(
    example: str, text: str, message_pattern: str, tmp_path: Path
) -> None:
    task = find_task(NAMES[example]).read(config_of(example, tmp_path))
    path = tmp_path / ("data" if example == "tag" else "data.csv")
    path.write_text(text)
    config = dataclasses.replace(task.config, paths=(str(path),))
    with pytest.raises(DataError) as caught:
        find_task(NAMES[example]).read(config, task.codec, validate_on_all=True)
    assert str(caught.value).replace(str(path), "data").startswith(message_pattern)


def test_a_model_of_texts_is_given_numbers_and_the_other_way(tmp_path: Path) -> None:
    texts, numbers = (
        find_task("classify").read(config_of(example, tmp_path))
        for example in ("classify", "numbers")
    )
    # Labels that the other knows, so that only the kind of data is at fault.
    (tmp_path / "n.csv").write_text("label,a\nsoft,1\nhard,2\n")
    (tmp_path / "t.csv").write_text("label,body\nup,a\ndown,b\n")
    for task, data, message_pattern in ((texts, "n", "reads characters, got numbers"),
                              (numbers, "t", "must be numbers, as the model reads")):  # fmt: skip
        column = None if data == "n" else "body"
        config = dataclasses.replace(task.config, paths=(str(tmp_path / f"{data}.csv"),),
                                     text=column)  # fmt: skip
        with pytest.raises(DataError, match=message_pattern):
            find_task("classify").read(config, task.codec, validate_on_all=True)


def test_what_predictions_cannot_be_made_of_raises(tmp_path: Path) -> None:
    models = {}
    for example in ("tag", "forecast", "seq2seq"):
        task = find_task(example).read(config_of(example, tmp_path))
        models[example] = (task.build_model(task.model_arguments()).eval(), task.codec)
    with pytest.raises(DataError, match="sentence 2: must have at least one token, got none"):
        predict_tags(*models["tag"], [["Ada"], []])
    with pytest.raises(DataError, match="source 2: must have at least one token, got ' '"):
        translate(*models["seq2seq"], ["one", " "])
    table = read_table(tmp_path / "forecast.csv")
    past = table.numbers("warm")[:, None].expand(-1, 2)
    with pytest.raises(DataError, match="at least 6 rows of 2 columns, got 5 of 2"):
        forecast(*models["forecast"], past[:5])
    with pytest.raises(DataError, match="at least 6 rows of 2 columns, got 80 of 1"):
        forecast(*models["forecast"], past[:, :1])
