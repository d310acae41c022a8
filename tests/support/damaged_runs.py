"""Runs to damage, and the bounded reads and commands over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bounded_work import bounded_work
from unrolled.cli._app import run
from unrolled.config import ClassificationConfig, LanguageModelConfig
from unrolled.io import FileError
from unrolled.tasks import find_task, load_trained
from unrolled.train import fit

__all__ = ["SIZES", "TASKS", "commands", "error_line", "is_refused", "read", "train_runs"]

SIZES: dict[str, Any] = {
    "hidden_size": 4, "embedding_size": 3, "batch_size": 2, "steps": 2, "log_every": 1,
    "validate_every": 2, "accelerator": "cpu",
}  # fmt: skip
TASKS = ("lm", "classify")
MAX_CALLS = MAX_ELEMENTS = 1_000_000
"""Of a read or command: six times the calls, and forty times the elements, of the largest here."""


def train_runs(folder: Path) -> None:
    """Runs of two steps, of a language model and of a classifier of texts."""
    (folder / "text").write_text("a b c d\n" * 30)
    for label in ("x", "y"):
        (folder / "texts" / label).mkdir(parents=True)
        for n in range(6):
            (folder / "texts" / label / str(n)).write_text(label * (n + 1))
    language = LanguageModelConfig(
        paths=(str(folder / "text"),), vocabulary="characters", window=8, **SIZES
    )
    classification = ClassificationConfig(paths=(str(folder / "texts"),), **SIZES)
    fit(language, folder / "lm", progress=False)
    fit(classification, folder / "classify", progress=False)


def read(path: Path, name: str) -> None:
    """Load a model, and use it: what loads must be a model."""
    task = find_task(name)
    model, codec = load_trained(path, task)
    assert len(codec.state())
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def is_refused(call: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a call raises a FileError, within bounded work. No other error may be raised."""
    with bounded_work(MAX_CALLS, MAX_ELEMENTS):
        try:
            call(*arguments)
        except FileError:
            return True
    return False


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command prints, within bounded work."""
    with bounded_work(MAX_CALLS, MAX_ELEMENTS):
        code = run(list(map(str, arguments)))
    assert code == 2, arguments
    error = capsys.readouterr().err
    assert error.startswith("unrolled: "), error
    assert error.count("\n") == 1, error
    return error


def commands(folder: Path) -> list[list[object]]:
    """All commands that read a run's checkpoint."""
    use = (
        ["sample", folder, "--prime", "a", "--length", 3]
        if folder.name == "lm"
        else ["predict", folder, "--text", "xyx"]
    )
    return [use, ["evaluate", folder], ["train", folder.name, "--resume", folder, "--steps", 3]]
