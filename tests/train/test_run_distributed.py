"""Training in two processes from the command line: the numbers of one with the whole batch."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.training_runs import assert_equal_trees
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
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("two")
    draw = random.Random(0)
    (workspace / "text").write_text("".join(draw.choice("abcd \n") for _ in range(3000)))
    for label in ("xyz", "uvw"):
        (workspace / "texts" / label).mkdir(parents=True)
        for n in range(20):
            text = "".join(draw.choice(label) for _ in range(draw.randint(1, 30)))
            (workspace / "texts" / label / str(n)).write_text(text)
    return workspace


def call(
    workspace: Path, *arguments: object, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    loopback = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # torchrun would take --run for the beginning of an option of its own.
    module = ["-m", "--", "unrolled"] if launcher else ["-m", "unrolled"]
    return subprocess.run(
        [sys.executable, *launcher, *module, "train", *map(str, arguments)],
        cwd=workspace,
        env=os.environ | loopback,
        capture_output=True,
        text=True,
        timeout=300,
    )


def trained(workspace: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    process = call(workspace, *arguments, launcher=launcher)
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
def test_two_processes_learn_as_one_and_resume(workspace: Path, task: str) -> None:
    single, two, parts = (f"{task}-{name}" for name in ("one", "two", "parts"))
    trained(workspace, task, *TASKS[task], "--steps", 6, "--run", single)
    constant = ["--schedule", "constant", "--devices", 2]
    out = trained(workspace, task, *TASKS[task], "--steps", 6, "--run", two, "--devices", 2)
    assert out.count("run  ") == out.count("checkpoint  ") == 1
    assert_same_rows(workspace / two / "metrics.csv", workspace / single / "metrics.csv")
    if task == "lm":
        return
    complete, part = f"{task}-whole", parts
    trained(workspace, task, *TASKS[task], *constant, "--steps", 6, "--run", complete)
    trained(workspace, task, *TASKS[task], *constant, "--steps", 3, "--run", part)
    config = workspace / part / "config.json"
    config_text = config.read_text()
    config.write_text(json.dumps(json.loads(config_text) | {"devices": 1}))
    process = call(workspace, task, "--resume", part, "--steps", 6)
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "unrolled: --devices must give the number of processes that the run was started with, 2, "
        "got 1"
    ]
    config.write_text(config_text)
    trained(workspace, task, "--resume", part, "--steps", 6)
    actual, expected = (load_tree(workspace / run / "last.safetensors") for run in (part, complete))
    for name in ("state_dict", "optimizer_states", "processes"):
        assert_equal_trees(actual[name], expected[name])


def test_processes_that_torchrun_starts(workspace: Path) -> None:
    """With as many as --devices says; with another number each process says so."""
    launcher = tuple(TORCHRUN)
    arguments = [*TASKS["lm"], "--steps", 6, "--run", "torchrun"]
    process = call(workspace, "lm", *arguments, launcher=launcher)
    assert process.returncode != 0
    assert "unrolled: --devices must give (times --nodes) the 2 processes that" in process.stderr
    shutil.rmtree(workspace / "torchrun", ignore_errors=True)
    out = trained(workspace, "lm", *arguments, "--devices", 2, launcher=launcher)
    assert out.count("run  ") == out.count("checkpoint  ") == 1
    trained(workspace, "lm", *TASKS["lm"], "--steps", 6, "--run", "alone")
    assert_same_rows(workspace / "torchrun" / "metrics.csv", workspace / "alone" / "metrics.csv")
