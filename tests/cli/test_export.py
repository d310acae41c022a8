"""`unrolled export` of modules in files, and its errors where a module cannot be exported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command_line import run_export
from unrolled import engines
from unrolled.cli._app import run
from unrolled.runtime import load

CODE = """
import torch
from torch import nn
from unrolled.nn import GRU

torch.manual_seed(3)


class Counter(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.rnn = GRU(3, width, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y[:, -1])


ready = Counter()


def make():
    return ready


def broken():
    raise ValueError("weights\\nare missing")


def needs(width):
    return Counter(width)


class Strange(nn.Module):
    def forward(self, x):
        return x


answer = 42
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("name", ["ready", "make"])
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_module_in_a_file(name: str, weights: str, file: Path, capsys: Any) -> None:
    """As it is, or made by a function."""
    out = file.with_name("model.safetensors")
    code, line, _ = run_export(capsys, f"{file}:{name}", out, "--weights", weights)
    assert code == 0
    assert line == f"model       {out} ({out.stat().st_size:,} bytes)\n"
    from unrolled.models._user_code import load_python_file

    x = np.random.default_rng(1).standard_normal((2, 6, 3), np.float32)
    with torch.no_grad(), engines.use("reference"):
        expected = load_python_file(file).ready(torch.from_numpy(x)).numpy()
    error = np.abs(load(out).run(x) - expected).max()
    assert error < 1e-6 if weights == "float32" else 1e-6 < error < 0.05


def test_a_class_is_called(file: Path, capsys: Any) -> None:
    out = file.with_name("m")
    assert run_export(capsys, f"{file}:Counter", out)[0] == 0
    assert load(out).run(np.ones((2, 6, 3), np.float32)).shape == (2, 2)
    for command in ("evaluate", "predict", "export"):
        assert run([command, str(out), *["x"] * (command == "export")]) == 2
        assert f"{out} is an exported model; load it with unrolled.runtime.load" in (
            capsys.readouterr().err
        )


FAULTS = [
    (
        "{file}:absent",
        [],
        "RUN_OR_MODULE: {file} must have a module 'absent', but has none",
    ),
    ("{file}:answer", [], "'answer' must be a torch.nn.Module, got int"),
    ("{file}:Strange", [], "Strange: must be a layer of unrolled.nn, an embedding"),
    ("{file}:broken", [], "models.py: broken() raised ValueError: weights are missing"),
    ("{file}:needs", [], "needs() raised TypeError: needs() missing 1 required"),
    (
        "{file}.no:make",
        [],
        "must be a Python file, there is no {file}.no",
    ),
    ("{file}:make", ["--weights", "int3"], "weights must be one of float32, bfloat16, int8"),
    ("{file}:make", ["--cell", "a.py:b"], "--cell requires a run or a checkpoint, got {file}:make"),
    ("{file}", [], "RUN_OR_MODULE must be {file}:NAME, where NAME is a module in that file"),
    ("{text}", [], "not a whole safetensors file"),
    ("{folder}", [], "RUN must be a run folder, but {folder} has no checkpoint"),
    ("{folder}/absent", [], "checkpoint file; {folder}/absent does not exist"),
]


@pytest.mark.parametrize(("source", "options", "message"), FAULTS)
def test_faults_are_reported_in_a_line(
    source: str, options: list[str], message: str, file: Path, capsys: Any
) -> None:
    names = {"file": file, "folder": file.parent, "text": file.with_suffix(".txt")}
    names["text"].write_text("no model")
    out = file.with_name("m")
    code, printed, line = run_export(capsys, source.format(**names), out, *options)
    assert (code, printed) == (2, "")
    assert line.startswith("unrolled: ")
    assert line.count("\n") == 1
    assert message.format(**names) in line
    assert not out.exists()


def test_a_file_that_cannot_be_written_or_run(file: Path, capsys: Any) -> None:
    code, _, line = run_export(capsys, f"{file}:make", file.parent / "no" / "m")
    assert (code, line.count("\n")) == (2, 1)
    assert "No such file or directory" in line
    assert line.rstrip().endswith(f"{str(file.parent / 'no' / 'm')!r}")
    (file.parent / "bad.py").write_text("1 / 0")
    code, _, line = run_export(capsys, f"{file.parent / 'bad.py'}:make", file.with_name("m"))
    assert code == 2
    assert "bad.py cannot be run (ZeroDivisionError: division by zero)" in line
