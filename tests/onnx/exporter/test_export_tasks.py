"""`unrolled export … out.onnx`, and the models of every task as ONNX files."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command_line import run_export
from tests.support.onnx_files import exported_session, randomize, session
from tests.support.runtime_models import exported
from tests.support.small_tasks import NAMES, config_of
from tests.support.tolerances import close
from unrolled.models._user_code import load_python_file
from unrolled.tasks import find_task

CODE = """
import torch
from torch import nn
from unrolled.nn import LSTM

torch.manual_seed(3)


class FinalStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y[:, -1])


ready = FinalStep()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(CODE)
    return path


def test_a_module_in_a_file(file: Path, capsys: Any) -> None:
    out = file.with_name("model.onnx")
    code, line, _ = run_export(capsys, f"{file}:ready", out, "--states")
    assert code == 0
    assert line == f"model       {out} ({out.stat().st_size:,} bytes)\n"
    x = torch.rand(4, 6, 3)
    with torch.no_grad():
        expected = load_python_file(file).ready(x)
    loaded = session(out)
    close(torch.from_numpy(loaded.run(["y"], {"x": x.numpy()})[0]), expected, "output")
    assert {info.name for info in loaded.get_overridable_initializers()} == {"h_0", "c_0"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.onnx", ["--weights", "int8"], "--weights must be float32 for an ONNX file, got int8"),
        ("m", ["--lengths"], "--lengths requires an output file that ends in .onnx, got"),
        ("m.safetensors", ["--states"], "--states requires an output file that ends in .onnx, got"),
        ("no/m.onnx", [], "No such file or directory"),
    ],
)
def test_errors_are_one_line(
    name: str, options: list[str], message: str, file: Path, capsys: Any
) -> None:
    out = file.with_name(name) if "/" not in name else file.parent / name
    code, output, line = run_export(capsys, f"{file}:ready", out, *options)
    assert (code, output, line.count("\n")) == (2, "", 1)
    assert message in line
    assert not out.exists()


def test_a_missing_package_is_named(
    file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "unrolled.onnx", raising=False)
    monkeypatch.delattr("unrolled.onnx", raising=False)
    code, _, line = run_export(capsys, f"{file}:ready", file.with_name("m.onnx"))
    assert (code, line.count("\n")) == (2, 1)
    assert "pip install 'unrolled[onnx]'" in line


@pytest.mark.parametrize("task_name", ["lm", "classify", "numbers", "tag", "forecast", "adding"])
def test_the_model_of_every_task(task_name: str, tmp_path: Path) -> None:
    """With its codec in the file; the results are those of the runtime."""
    task_class = find_task(NAMES[task_name])
    task = task_class.read(config_of(task_name, tmp_path))
    model = randomize(task_class.build_model(task.model_arguments())).eval()
    options = {"task": task_class.name, "codec": task.codec.state()}
    ours = exported(model, tmp_path, **options)
    rng = np.random.default_rng(8)
    T, N, lengths = 6, 3, np.array([2, 6, 4])
    x: Any = rng.integers(0, 4, (T, N))
    if ours.inputs is not None:
        x = rng.random((T, N, ours.inputs), np.float32)
    feed = {"x": x, "lengths": lengths}
    if task_name == "tag":
        feed["characters"] = rng.integers(0, 4, (5, T * N))
        feed["spellings"] = rng.integers(0, 6, T * N)
        x = tuple(feed[name] for name in ("x", "characters", "spellings"))
    theirs = exported_session(model, tmp_path, lengths=True, **options).run(["y"], feed)[0]
    expected = ours.run(x, lengths=lengths)
    close(torch.from_numpy(np.asarray(theirs, np.float32)), torch.from_numpy(expected), "output")
