"""Training in two processes from the command line: the numbers of one with the whole batch."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.test_checkpoint_after_kill import assert_same_tree
from unrolled.models import load_tree
from unrolled.train._callbacks import read_rows

pytestmark = pytest.mark.slow

ROUNDING = 1e-5
"""Of losses, relative: float32 sums of a batch in two parts, over six steps; 6 digits written."""
SMALL = [
    "--hidden-size", "8", "--embedding-size", "4", "--batch-size", "6", "--validate-every", "3",
    "--log-every", "1", "--accelerator", "cpu",
]  # fmt: skip
TASKS = {"lm": ["text", *SMALL, "--window", "8"], "classify": ["texts", *SMALL, "--dropout", "0"]}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("two")
    draw = random.Random(0)
    (place / "text").write_text("".join(draw.choice("abcd \n") for _ in range(3000)))
    for label in ("xyz", "uvw"):
        (place / "texts" / label).mkdir(parents=True)
        for n in range(20):
            text = "".join(draw.choice(label) for _ in range(draw.randint(1, 30)))
            (place / "texts" / label / str(n)).write_text(text)
    return place


def call(
    place: Path, *arguments: object, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    loopback = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # torchrun would take --run for the beginning of an option of its own.
    module = ["-m", "--", "unrolled"] if launcher else ["-m", "unrolled"]
    return subprocess.run(
        [sys.executable, *launcher, *module, "train", *map(str, arguments)],
        cwd=place,
        env=os.environ | loopback,
        capture_output=True,
        text=True,
        timeout=300,
    )


def trained(place: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    process = call(place, *arguments, launcher=launcher)
    assert process.returncode == 0, process.stderr
    return process.stdout


def assert_same_rows(actual: Path, expected: Path) -> None:
    """But for the seconds, and for rounding."""
    rows, expected_rows = read_rows(actual), read_rows(expected)
    assert len(rows) == len(expected_rows) >= 8
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row.keys() == expected_row.keys()
        for name in row.keys() - {"seconds"}:
            assert (row[name] == "") == (expected_row[name] == ""), name
            if row[name]:
                assert float(row[name]) == pytest.approx(float(expected_row[name]), rel=ROUNDING), (
                    name
                )


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_learn_as_one_and_go_on(place: Path, task: str) -> None:
    single, two, parts = (f"{task}-{name}" for name in ("one", "two", "parts"))
    trained(place, task, *TASKS[task], "--steps", 6, "--run", single)
    constant = ["--schedule", "constant", "--devices", 2]
    out = trained(place, task, *TASKS[task], "--steps", 6, "--run", two, "--devices", 2)
    assert out.count("run  ") == out.count("checkpoint  ") == 1
    assert_same_rows(place / two / "metrics.csv", place / single / "metrics.csv")
    if task == "lm":
        return
    complete, part = f"{task}-whole", parts
    trained(place, task, *TASKS[task], *constant, "--steps", 6, "--run", complete)
    trained(place, task, *TASKS[task], *constant, "--steps", 3, "--run", part)
    config = place / part / "config.json"
    config_text = config.read_text()
    config.write_text(json.dumps(json.loads(config_text) | {"devices": 1}))
    process = call(place, task, "--resume", part, "--steps", 6)
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "unrolled: --devices must give the number of processes that the run was started with, 2, "
        "got 1"
    ]
    config.write_text(config_text)
    trained(place, task, "--resume", part, "--steps", 6)
    actual, expected = (load_tree(place / run / "last.safetensors") for run in (part, complete))
    for name in ("state_dict", "optimizer_states", "processes"):
        assert_same_tree(actual[name], expected[name])


def test_processes_that_torchrun_starts(place: Path) -> None:
    """With as many as --devices says; with another number each process says so."""
    launcher = tuple(TORCHRUN)
    arguments = [*TASKS["lm"], "--steps", 6, "--run", "torchrun"]
    process = call(place, "lm", *arguments, launcher=launcher)
    assert process.returncode != 0
    assert "unrolled: --devices must give (times --nodes) the 2 processes that" in process.stderr
    shutil.rmtree(place / "torchrun", ignore_errors=True)
    out = trained(place, "lm", *arguments, "--devices", 2, launcher=launcher)
    assert out.count("run  ") == out.count("checkpoint  ") == 1
    trained(place, "lm", *TASKS["lm"], "--steps", 6, "--run", "alone")
    assert_same_rows(place / "torchrun" / "metrics.csv", place / "alone" / "metrics.csv")
