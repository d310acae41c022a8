"""Runs that tests damage, trained once."""

import shutil
from pathlib import Path

import pytest

from tests.support.damaged_runs import TASKS, train_runs


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
