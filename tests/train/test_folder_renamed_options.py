"""Runs that earlier versions wrote: options under their former names still load."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.damaged_runs import SIZES, commands
from unrolled.cli._app import run
from unrolled.config import CONFIGS, RENAMED_OPTIONS, LanguageModelConfig
from unrolled.models import load_tree, save_tree
from unrolled.train import fit, resume
from unrolled.train._folder import config_of_values, read_config

VALUES: dict[str, Any] = {"chrono_steps": 7, "recurrent_lr_scale": 0.5}
FORMER_NAMES = {present: former for former, present in RENAMED_OPTIONS.items()}


def with_former_names(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration as an earlier version wrote them."""
    return {FORMER_NAMES.get(name, name): value for name, value in values.items()}


@pytest.fixture
def former_run(tmp_path: Path) -> Path:
    """A run of two steps whose config.json and checkpoint have the former names."""
    (tmp_path / "text").write_text("a b c d\n" * 30)
    config = LanguageModelConfig(
        paths=(str(tmp_path / "text"),), vocabulary="characters", window=8, **SIZES, **VALUES
    )
    folder = tmp_path / "lm"
    result = fit(config, folder, progress=False)
    assert result.best is not None
    result.best.unlink()
    tree = load_tree(result.last)
    tree["config"] = with_former_names(tree["config"])
    save_tree(result.last, tree)
    path = folder / "config.json"
    values = with_former_names(json.loads(path.read_text()))
    assert values.keys() >= RENAMED_OPTIONS.keys()
    assert tree["config"].keys() == values.keys()
    path.write_text(json.dumps(values))
    return folder


def test_every_renamed_option_is_tested() -> None:
    assert VALUES.keys() == FORMER_NAMES.keys()


@pytest.mark.parametrize("task", CONFIGS)
def test_values_under_former_names_give_the_configuration(task: str) -> None:
    former_values = {"task": task, **with_former_names(VALUES)}
    assert config_of_values(former_values) == (task, CONFIGS[task](**VALUES))


def test_a_config_file_with_former_names_resumes(former_run: Path) -> None:
    config = read_config(former_run / "config.json")[1]
    assert {name: getattr(config, name) for name in VALUES} == VALUES
    assert resume(former_run, steps=3, progress=False).step == 3


def test_a_checkpoint_with_former_names_is_used_without_a_config_file(
    former_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the checkpoint alone says how to read data."""
    (former_run / "config.json").unlink()
    for arguments in commands(former_run)[:2]:
        assert run([*map(str, arguments)]) == 0, capsys.readouterr().err
