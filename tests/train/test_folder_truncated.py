"""Every file of a run cut anywhere, as by a full disk or a power failure: the run goes on, or the
message names the file."""

import errno
import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from unrolled.cli._app import run as command
from unrolled.config import LanguageModelConfig
from unrolled.io import FileError
from unrolled.models import load_tree
from unrolled.train import fit, resume
from unrolled.train._callbacks import read_rows
from unrolled.train._folder import BusyError, locked, read_config
from unrolled.train._rows import append_rows, complete_rows
from unrolled.train._watching import WATCH_COLUMNS


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with all the files that a run writes."""
    workspace = tmp_path_factory.mktemp("whole")
    (workspace / "text").write_text("a b c d\n" * 30)
    config = LanguageModelConfig(
        paths=(str(workspace / "text"),), window=8, hidden_size=4, embedding_size=3, batch_size=2,
        steps=6, log_every=1, validate_every=3, watch=3, accelerator="cpu",
    )  # fmt: skip
    fit(config, workspace / "run", progress=False)
    return workspace / "run"


@pytest.fixture
def run_copy(complete_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(complete_run, tmp_path / "run")
    return tmp_path / "run"


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"seconds": ""} for row in rows]


def test_a_row_counts_with_all_columns_and_its_line_end(complete_run: Path, tmp_path: Path) -> None:
    """At every cut the rows are those whose last byte is there: never half a number."""
    for name in ("metrics.csv", "watch.csv"):
        data = (complete_run / name).read_bytes()
        header, *rows = data.decode().splitlines()
        assert len(rows) >= 8
        for cut in range(len(data)):
            (tmp_path / name).write_bytes(data[:cut])
            complete = max(data[:cut].count(b"\n") - 1, 0)
            expected = [dict(zip(header.split(","), r.split(","), strict=True)) for r in rows]
            assert complete_rows(tmp_path / name) == expected[:complete], cut


@pytest.mark.parametrize("cut", [0, 1, 30, -1, -2, -37, -60])
def test_a_run_resumes_from_truncated_metrics(run_copy: Path, complete_run: Path, cut: int) -> None:
    for name in ("metrics.csv", "watch.csv"):
        (run_copy / name).write_bytes((run_copy / name).read_bytes()[:cut])
    complete = complete_rows(run_copy / "metrics.csv")
    result = resume(run_copy, steps=7, progress=False)
    assert result.step == 7
    rows = read_rows(run_copy / "metrics.csv")
    assert without_seconds(rows[: len(complete)]) == without_seconds(complete)
    assert [row["step"] for row in rows[len(complete) :]] == ["7", "7"]
    assert complete_rows(run_copy / "watch.csv", WATCH_COLUMNS) == complete_rows(
        run_copy / "watch.csv"
    )


@pytest.mark.parametrize("tail", [b"\0" * 300, b"\xff\xfe", b'"', b"7,1", b"9" * 5000 + b",,,\n"])
def test_what_a_power_failure_leaves_behind_the_rows_is_dropped(
    run_copy: Path, tail: bytes
) -> None:
    previous = read_rows(run_copy / "metrics.csv")
    with open(run_copy / "metrics.csv", "ab") as file:
        file.write(tail)
    resume(run_copy, steps=7, progress=False)
    assert read_rows(run_copy / "metrics.csv")[: len(previous)] == previous


def test_a_cut_configuration_or_checkpoint_is_named(run_copy: Path) -> None:
    data = (run_copy / "config.json").read_bytes()
    for cut in range(len(data) - 1):  # the last byte is a line end
        (run_copy / "config.json").write_bytes(data[:cut])
        with pytest.raises(FileError, match=r"config\.json: "):
            read_config(run_copy / "config.json")
    (run_copy / "config.json").write_bytes(data)
    data = (run_copy / "last.safetensors").read_bytes()
    for cut in range(0, len(data), 97):
        (run_copy / "last.safetensors").write_bytes(data[:cut])
        with pytest.raises(FileError, match=r"last\.safetensors: "):
            load_tree(run_copy / "last.safetensors")
    with pytest.raises(FileError, match=r"last\.safetensors: "):
        resume(run_copy, steps=7, progress=False)


@pytest.mark.parametrize("text", ["{}", "[1]", "3", '{"task": "mine"}', '{"task": null}'])
def test_a_configuration_without_a_task_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FileError, match=r"config\.json: .*task must be one of lm, classify"):
        read_config(tmp_path / "config.json")


def test_a_row_without_a_score_is_not_a_validation(run_copy: Path) -> None:
    previous = read_rows(run_copy / "metrics.csv")
    text = (run_copy / "metrics.csv").read_text()
    (run_copy / "metrics.csv").write_text(text.rpartition(",")[0] + ",\n")
    result = resume(run_copy, steps=6, progress=False)
    assert result.validation_step == 3
    head = next(row for row in previous if row["validation_loss"])
    assert result.validation["loss"] == float(head["validation_loss"])


def test_other_files_do_not_matter(run_copy: Path) -> None:
    for name in ("best.safetensors", "curve.png"):
        (run_copy / name).write_bytes((run_copy / name).read_bytes()[:40])
    (run_copy / ".lock").write_bytes(b"\0")
    assert resume(run_copy, steps=7, progress=False).step == 7
    assert (run_copy / "curve.png").read_bytes()[-8:-4] == b"IEND"


@pytest.mark.parametrize("name", ["metrics.csv", "watch.csv", "curve.png"])
def test_measurements_that_cannot_be_written_do_not_stop_a_run(run_copy: Path, name: str) -> None:
    (run_copy / name).unlink()
    (run_copy / name).mkdir()
    with pytest.warns(UserWarning, match=rf"run/{name}: Is a directory; the run continues"):
        result = resume(run_copy, steps=7, progress=False)
    assert load_tree(result.last)["global_step"] == 7


def test_rows_that_do_not_fit_on_the_disk_leave_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    append_rows(path, ("a", "b"), [["1", "2"]])
    previous = path.read_bytes()
    assert previous == b"a,b\n1,2\n"

    class Full:
        """A file of which the disk takes three bytes more."""

        def __init__(self, file: Any) -> None:
            self.file, self.written = file, False

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            return int(self.file.fileno())

        def write(self, data: bytes) -> int:
            if self.written:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.written = True
            return int(self.file.write(data[:3]))

    monkeypatch.setattr("builtins.open", lambda *args, **named: Full(open_file(*args, **named)))
    with pytest.raises(OSError, match="No space left"):
        append_rows(path, ("a", "b"), [["3", "4"]])
    monkeypatch.undo()
    assert path.read_bytes() == previous


open_file = open


def test_a_run_that_was_killed_before_its_first_checkpoint(
    run_copy: Path, complete_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts from the beginning, and equals a run that was not killed."""
    for name in ("last.safetensors", "best.safetensors"):
        (run_copy / name).unlink()
    assert command(["train", "lm", "--run", str(run_copy), "--hidden-size", "4"]) == 2
    assert f"continue it with --resume {run_copy}" in capsys.readouterr().err
    assert command(["train", "lm", "--resume", str(run_copy)]) == 0
    rows = [without_seconds(read_rows(run / "metrics.csv")) for run in (run_copy, complete_run)]
    assert rows[0] == rows[1]


def test_a_run_that_was_killed_before_its_configuration(
    complete_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes").write_bytes(b"")
    text = str(complete_run.parent / "text")
    options = ["train", "lm", text, "--run", str(folder), "--window", "8", "--steps", "1"]
    assert command(options) == 2
    assert "goes on with it" not in capsys.readouterr().err
    (folder / "notes").unlink()
    (folder / ".lock").write_bytes(b"")
    (folder / ".unrolled-0123456789abcdef.tmp").write_bytes(b"{")
    assert command([*options, "--batch-size", "2", "--hidden-size", "4"]) == 0
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_lock_that_the_file_system_refuses_is_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(code, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(OSError, match=r"file system with locks.*/\.lock") as raised,
        locked(tmp_path),
    ):
        pass
    assert not isinstance(raised.value, BusyError)
    assert raised.value.errno == code
