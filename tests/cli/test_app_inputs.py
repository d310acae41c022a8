"""Train, evaluate and predict read files and standard input alike; training names its scores."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import error_of, output_of
from unrolled.cli._app import run
from unrolled.models import load_tree
from unrolled.tasks import find_task, load_trained
from unrolled.tasks._translation import translate
from unrolled.train._callbacks import read_rows

pytestmark = pytest.mark.slow

LIMITS = ["--max-length", 20, "--learning-rate", 0.05]
SMALL = ["--steps", 12, "--validate-every", 4, "--hidden-size", 8, "--batch-size", 5]
# Line ends of three kinds, and a separator that does not end a line.
TAGGED = (
    "Ada B-PER\r\nmet O\r\nBo\u2028Lee B-PER\r\n\r\nBo B-PER\rsaw O\r. O\r\rBo O\r\r" * 12
).encode()
PAIRS = ("\ufeff" + "one\x0ctwo\t1\u20282\r\nsix\t6\n\n four two\t4 2\r" * 9).encode()
LINES = [f"{'nice' if k % 3 else 'bad'} day\u2028{k % 4}" for k in range(30)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: a tagger, a translator, classifiers of lines and of files."""
    workspace = tmp_path_factory.mktemp("inputs")
    (workspace / "tag.txt").write_bytes(TAGGED)
    (workspace / "seq2seq.txt").write_bytes(PAIRS)
    rows = (f'{"soft" if "nice" in line else "hard"},"{line}"' for line in LINES)
    (workspace / "lines.csv").write_text("\n".join(["label,body", *rows]))
    for k, line in enumerate(LINES):
        label = workspace / "texts" / ("soft" if "nice" in line else "hard")
        label.mkdir(parents=True, exist_ok=True)
        (label / f"{k}.txt").write_text(line)
    (workspace / "texts" / ".ipynb_checkpoints").mkdir()
    (workspace / "texts" / ".ipynb_checkpoints" / "0.txt").write_text("nice day")
    (workspace / "texts" / "soft" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\xff\xfe")
    runs = {
        "tag": ["tag", workspace / "tag.txt"],
        "seq2seq": ["seq2seq", workspace / "seq2seq.txt", *LIMITS],
        "lines": ["classify", workspace / "lines.csv", "--text", "body"],
        "folder": ["classify", workspace / "texts"],
    }
    for name, arguments in runs.items():
        assert run([*map(str, ["train", *arguments, *SMALL, "--run", workspace / name])]) == 0
    return workspace


def from_standard_input(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: object
) -> str:
    # As under an ASCII locale, which nothing may depend on.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    return output_of(capsys, *arguments)


def model_row(capsys: Any, *arguments: object) -> dict[str, float]:
    row: dict[str, float] = json.loads(output_of(capsys, "evaluate", *arguments, "--json"))["model"]
    return row


def test_a_tagger_gives_every_word_what_evaluate_counts(
    workspace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = model_row(capsys, workspace / "tag", workspace / "tag.txt")["accuracy"]
    printed = output_of(capsys, "predict", workspace / "tag", workspace / "tag.txt")
    pairs = [line.rsplit(" ", 1) for line in printed.split("\n") if line]
    lines_of_data = [line.split(" ") for line in re.split("\r\n|\r", TAGGED.decode()) if line]
    assert [token for token, _ in pairs] == [token for token, _ in lines_of_data]
    right = sum(label == true for (_, label), (_, true) in zip(pairs, lines_of_data, strict=True))
    assert right / len(lines_of_data) == pytest.approx(accuracy)
    assert from_standard_input(capsys, monkeypatch, TAGGED, "predict", workspace / "tag") == printed
    plain = "Ada met Bo\u2028Lee\r\n\r\nBo saw .".encode() + b"\n"
    first_two = "\n\n".join(printed.split("\n\n")[:2]) + "\n\n"
    for arguments in (["predict", workspace / "tag"], ["predict", workspace / "tag", "-"]):
        assert from_standard_input(capsys, monkeypatch, plain, *arguments) == first_two
    texts = ["--text", "Ada met Bo\u2028Lee", "--text", "Bo saw ."]
    assert output_of(capsys, "predict", workspace / "tag", *texts) == first_two
    line = error_of(capsys, "predict", workspace / "tag", "--text", " ")
    assert "--text must have at least one token, got ' '" in line


def test_a_translator_reads_lines_as_in_training(
    workspace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets of a file of pairs may stay where they are; what is exact is what evaluate
    counts."""
    exact = model_row(capsys, workspace / "seq2seq", workspace / "seq2seq.txt")["exact"]
    printed = output_of(capsys, "predict", workspace / "seq2seq", workspace / "seq2seq.txt")
    _, codec = load_trained(workspace / "seq2seq" / "best.safetensors", find_task("seq2seq"))
    lines = re.split("\r\n|\r|\n", PAIRS.decode("utf-8-sig"))[:-1]
    expected = [codec.target.normalize(line.split("\t")[1]) if line else "" for line in lines]
    targets = printed.split("\n")[:-1]
    assert len(targets) == len(expected)
    right = sum(a == b for a, b in zip(targets, expected, strict=True) if b)
    assert right > 0
    assert right / 27 == pytest.approx(exact)
    assert all(not target for target, line in zip(targets, lines, strict=True) if not line)
    predict = ["predict", workspace / "seq2seq"]
    assert from_standard_input(capsys, monkeypatch, PAIRS, *predict) == printed
    sources = re.sub(b"\t[^\r\n]*", b"", PAIRS)
    assert from_standard_input(capsys, monkeypatch, sources, *predict) == printed


def test_a_translators_limits_are_the_runs(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "long").write_text(f"one\n{'x' * 21}\n")
    (tmp_path / "pairs").write_text(f"one\t1\n{'x' * 21}\t1\n")
    for command, name in (("predict", "long"), ("evaluate", "pairs")):
        line = error_of(capsys, command, workspace / "seq2seq", tmp_path / name)
        assert f"{name}, line 2: source and target must have at most 20 characters, got 21" in line
    assert "--text: source and target must have at most 20" in error_of(
        capsys, "predict", workspace / "seq2seq", "--text", "x" * 21
    )
    model, codec = load_trained(workspace / "seq2seq" / "best.safetensors", find_task("seq2seq"))
    assert codec.limit == 8  # twice the longest target, of three characters and an end
    with torch.no_grad():  # always writes the first character, and never ends
        model.head.bias[codec.target.tokens.encode(["1"])] = 1e9
    assert translate(model, codec, ["one"]) == ["1" * 8]


def test_lines_are_texts_where_the_runs_texts_were_cells(
    workspace: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a folder is one text, a folder all of its own."""
    accuracy = model_row(capsys, workspace / "lines", workspace / "lines.csv")["accuracy"]
    data = "\r\n".join([*LINES, ""]).encode()
    (tmp_path / "lines.txt").write_bytes(data)
    rows = output_of(capsys, "predict", workspace / "lines", tmp_path / "lines.txt").split("\n")[
        :-1
    ]
    labels = ["soft" if "nice" in line else "hard" for line in LINES]
    guesses = [row.split("\t")[0] for row in rows]
    assert sum(a == b for a, b in zip(guesses, labels, strict=True)) / 30 == pytest.approx(accuracy)
    printed = from_standard_input(capsys, monkeypatch, data, "predict", workspace / "lines")
    named = f"{tmp_path / 'lines.txt'}, line "
    assert printed == "".join(f"{row}\n".replace(named, "standard input, line ") for row in rows)

    printed = output_of(capsys, "predict", workspace / "folder", tmp_path / "lines.txt")
    assert len(printed.split("\n")) == 2
    files = output_of(capsys, "predict", workspace / "folder", workspace / "texts").split("\n")[:-1]
    assert len(files) == len(LINES)
    accuracy = model_row(capsys, workspace / "folder", workspace / "texts")["accuracy"]
    right = sum(Path(row.split("\t")[2]).parent.name == row.split("\t")[0] for row in files)
    assert right / len(files) == pytest.approx(accuracy)
    (tmp_path / "empty").mkdir()
    assert "empty: must have text files, got none" in error_of(
        capsys, "predict", workspace / "folder", tmp_path / "empty"
    )


def test_hidden_files_are_neither_labels_nor_texts(workspace: Path) -> None:
    _, codec = load_trained(workspace / "folder" / "best.safetensors", find_task("classify"))
    assert codec.labels.entries == ("hard", "soft")


@pytest.mark.parametrize("example", ["tag", "seq2seq", "lines", "folder"])
def test_training_ends_with_the_scores_of_both_checkpoints(
    workspace: Path, example: str, tmp_path: Path, capsys: Any
) -> None:
    """Resumed for two steps, so that the best may be of the part before."""
    run_folder = tmp_path / "run"
    shutil.copytree(workspace / example, run_folder)
    name = find_task("classify" if example in ("lines", "folder") else example).name
    out = output_of(capsys, "train", name, "--resume", run_folder, "--steps", 14)
    rows = [row for row in read_rows(run_folder / "metrics.csv") if row["validation_loss"]]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    for title, row, file in (
        ("validation, best", best, "best"),
        ("validation, last", rows[-1], "last"),
    ):
        (line,) = [line for line in out.split("\n") if line.startswith(f"{title} ")]
        measured = model_row(capsys, run_folder / f"{file}.safetensors")
        loss = float(re.search("loss ([^ ]+) ", line).group(1))  # type: ignore[union-attr]
        assert loss == float(row["validation_loss"]) == pytest.approx(measured["loss"], rel=1e-5)
        assert line.endswith(f"(step {row['step']})")
        assert load_tree(run_folder / f"{file}.safetensors")["global_step"] == int(row["step"])


@pytest.mark.parametrize(
    ("text", "vocabulary", "prime"),
    [("你好世界\n", "characters", "\n"), ("ab", "characters", "a"), ("f: e d", "characters", None)],
)
def test_sample_begins_with_what_the_vocabulary_knows(
    text: str, vocabulary: str, prime: str | None, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "text").write_text(text * 100)
    options = ["--vocabulary", vocabulary, "--window", 8, "--steps", 1, "--hidden-size", 4]
    options_of_run = [*options, "--batch-size", 2, "--run", tmp_path / "run"]
    output_of(capsys, "train", "lm", tmp_path / "text", *options_of_run)
    printed = output_of(capsys, "sample", tmp_path / "run", "--length", 5)
    assert printed.startswith("def " if prime is None else prime)
    assert len(printed) == (4 if prime is None else 1) + 5 + 1
    line = error_of(capsys, "sample", tmp_path / "run", "--prime", "§")
    assert "--prime: characters must be in the vocabulary, got '§'" in line


def test_commands_write_utf_8_under_an_ascii_locale(workspace: Path) -> None:
    text = "Ada met Bo\u2028Lee\n"
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-m", "unrolled", "predict", str(workspace / "tag")],
        input=text.encode(),
        capture_output=True,
        env={**os.environ, **ascii_locale},
        check=True,
    )
    tokens = [line.split(" ")[0] for line in ran.stdout.decode().split("\n") if line]
    assert tokens == ["Ada", "met", "Bo\u2028Lee"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full stands for a full disk")
def test_output_that_does_not_fit_on_the_disk_is_a_fault(workspace: Path) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "unrolled",
                "predict",
                str(workspace / "tag"),
                "--text",
                "Ada met",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stderr == b"unrolled: No space left on device\n"


def test_labels_are_checked_before_training(tmp_path: Path, workspace: Path, capsys: Any) -> None:
    """Whichever share the sentence falls in; of a trained model, against those it knows."""
    sentences = ["Ada B-PER\nmet O\n"] * 20
    for k in (0, 7, 19):
        broken = [*sentences[:k], "Bo PER\nmet O\n", *sentences[k + 1 :]]
        (tmp_path / "data").write_text("\n".join(broken))
        line = error_of(capsys, "train", "tag", tmp_path / "data", "--run", tmp_path / "run")
        assert f"data, line {3 * k + 1}: must be O, or one of B, I, L, U, E, S with" in line
        assert not (tmp_path / "run").exists()
        line = error_of(capsys, "evaluate", workspace / "tag", tmp_path / "data")
        assert f"data, line {3 * k + 1}: label must be one of 'B-PER', 'O', got 'PER'" in line
    (tmp_path / "data").write_text("Ada O\nmet O\n")
    assert "entity_f1" in model_row(capsys, workspace / "tag", tmp_path / "data")
    assert "entity f1" in output_of(capsys, "evaluate", workspace / "tag", tmp_path / "data")


def test_the_column_of_the_tokens_is_the_runs(tmp_path: Path, capsys: Any) -> None:
    rows = "x Ada B-PER\ny met O\n\nx Bo B-PER\ny saw O\n"
    (tmp_path / "data").write_text("\n".join([rows] * 8))
    options = ["--token-column", 1, *SMALL, "--min-count", 1, "--run", tmp_path / "run"]
    output_of(capsys, "train", "tag", tmp_path / "data", *options)
    _, codec = load_trained(tmp_path / "run" / "best.safetensors", find_task("tag"))
    assert codec.words.entries == ("Ada", "Bo", "met", "saw")
    printed = output_of(capsys, "predict", tmp_path / "run", tmp_path / "data")
    assert [line.split(" ")[0] for line in printed.split("\n") if line][:4] == [
        *["Ada", "met", "Bo", "saw"]
    ]
    accuracy = model_row(capsys, tmp_path / "run", tmp_path / "data")["accuracy"]
    guesses = [line.split(" ")[1] for line in printed.split("\n") if line]
    labels = [line.split()[-1] for _ in range(8) for line in rows.split("\n") if line]
    right = sum(a == b for a, b in zip(guesses, labels, strict=True))
    assert right / len(labels) == pytest.approx(accuracy)


def test_tags_that_are_printed_are_read_again(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens with blanks, and what would begin a comment."""
    (tmp_path / "data").write_text("New York\tB-LOC\nis\tO\n\n#\tO\nbig\tO\n\n" * 8)
    output_of(capsys, "train", "tag", tmp_path / "data", *SMALL, "--run", tmp_path / "run")
    printed = output_of(capsys, "predict", tmp_path / "run", tmp_path / "data")
    assert re.findall(r"(?m)^(.+)[ \t]\S+$", printed)[:4] == ["New York", "is", "#", "big"]
    printed_again = from_standard_input(
        capsys, monkeypatch, printed.encode(), "predict", tmp_path / "run"
    )
    assert printed_again == printed


@pytest.mark.parametrize("name", ["tag", "seq2seq", "lines"])
def test_a_checkpoint_alone_reads_as_in_its_run(
    workspace: Path, tmp_path: Path, capsys: Any, name: str
) -> None:
    shutil.copy(workspace / name / "best.safetensors", tmp_path / "model.safetensors")
    (data,) = workspace.glob(f"{name}.*")
    printed = output_of(capsys, "predict", tmp_path / "model.safetensors", data)
    assert printed == output_of(capsys, "predict", workspace / name, data) != ""
