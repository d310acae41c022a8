"""Runs that tests damage, trained once; interrupts in the middle of training."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.damaged_runs import TASKS, train_runs
from unrolled.train._callbacks import Metrics


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs, which tests copy and leave as it is."""
    folder = tmp_path_factory.mktemp("runs")
    train_runs(folder)
    return folder


@pytest.fixture(params=TASKS)
def damaged(request: pytest.FixtureRequest, runs: Path, tmp_path: Path) -> Path:
    """A copy of a run, to be damaged; its folder has the task's name."""
    shutil.copytree(runs / request.param, tmp_path / request.param)
    (tmp_path / request.param / "best.safetensors").unlink()
    return tmp_path / request.param


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Send this process SIGINT while it is in the given step, or in the validation after it."""
    begin, measure = Metrics.on_train_batch_end, Metrics.on_validation_end

    def arm(step: int, validation: bool = False, number: int = signal.SIGINT) -> None:
        def on_train_batch_end(self: Metrics, trainer: Any, *options: Any) -> None:
            if trainer.global_step == step and not validation:
                signal.raise_signal(number)
            begin(self, trainer, *options)

        def on_validation_end(self: Metrics, trainer: Any, *options: Any) -> None:
            if trainer.global_step == step and validation:
                signal.raise_signal(number)
            measure(self, trainer, *options)

        monkeypatch.setattr(Metrics, "on_train_batch_end", on_train_batch_end)
        monkeypatch.setattr(Metrics, "on_validation_end", on_validation_end)

    return arm
