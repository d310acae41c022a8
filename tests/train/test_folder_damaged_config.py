"""Configurations and metrics of a run that are damaged or made to do harm."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.damaged_runs import commands, error_line, is_refused
from unrolled.train import resume
from unrolled.train._folder import read_config

CONFIGS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "not UTF-8": lambda data: data[:30] + b"\xff" + data[31:],
    "a list": lambda data: b"[]",
    "deep": lambda data: b"[" * 100_000 + b"]" * 100_000,
    "no task": lambda data: data.replace(b'"task"', b'"tusk"'),
    "task unknown": lambda data: data.replace(b'"task": "', b'"task": "un'),
    "task a list": lambda data: b'{"task": ["lm"]}',
    "extra": lambda data: data.replace(b'"seed"', b'"sead"'),
    "infinite": lambda data: data.replace(b'"seed": 0', b'"seed": Infinity'),
    "many digits": lambda data: data.replace(b'"steps": 2', b'"steps": ' + b"9" * 5000),
    **{
        f"hidden size {value}"[:30]: lambda data, value=value: data.replace(  # type: ignore[misc]
            b'"hidden_size": 4', b'"hidden_size": ' + value.encode()
        )
        for value in ("null", '"4"', "4.5", "-1", "[4]", "{}", "true", "NaN", "9" * 40)
    },
    "paths of numbers": lambda data: data.replace(b'"paths": [', b'"paths": [1, '),
}


@pytest.mark.parametrize("damage", CONFIGS)
def test_configurations(damaged: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = damaged / "config.json"
    previous = path.read_bytes()
    path.write_bytes(CONFIGS[damage](previous))
    assert path.read_bytes() != previous
    assert is_refused(read_config, path)
    for arguments in commands(damaged)[1:]:
        assert "config.json: " in error_line(capsys, *arguments)


def test_a_configuration_of_flipped_bits(damaged: Path) -> None:
    path = damaged / "config.json"
    data = path.read_bytes()
    draw = random.Random(2)
    failed = 0
    for _ in range(300):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        failed += is_refused(read_config, path)
    assert 100 < failed < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_size", 10**12), ("hidden_size", 5), ("num_layers", 10**9), ("devices", 2),
     ("nodes", 2), ("window", 10**12), ("cell", "LSTM"), ("cell", "none.py:Mine")],
)  # fmt: skip
def test_a_configuration_of_another_model(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    shutil.copytree(runs / "lm", tmp_path / "lm")
    path = tmp_path / "lm" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    error_line(capsys, "train", "lm", "--resume", tmp_path / "lm")


@pytest.mark.parametrize("text", ["", "step\nx\n", "\0\xff", "step,tokens\n1\n", "a,b\n\n1,2,3\n"])
def test_damaged_metrics_do_not_hinder(damaged: Path, text: str) -> None:
    (damaged / "metrics.csv").write_bytes(text.encode("latin-1"))
    assert resume(damaged, steps=3, progress=False).step == 3
    header = (damaged / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("step,")
