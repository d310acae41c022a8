"""Training that is killed at any moment, and goes on to the bits of a run that was not."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.training_runs import assert_equal_trees
from unrolled.models import load_tree
from unrolled.train._callbacks import read_rows

pytestmark = pytest.mark.slow

STEPS = 200
TIMEOUT = 300  # seconds, after which a process counts as hanging


def assert_same_run(actual: Path, expected: Path) -> None:
    """Weights, optimizer, chance and carried state to the bit; metrics but for the seconds."""
    for file in ("last.safetensors", "best.safetensors"):
        trees = [load_tree(run / file) for run in (actual, expected)]
        for name in ("state_dict", "optimizer_states", "processes", "global_step"):
            assert_equal_trees(trees[0][name], trees[1][name], name)
    rows = [read_rows(run / "metrics.csv") for run in (actual, expected)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


def start(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "unrolled", "train", "lm", *arguments],
        cwd=workspace,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, error
    return error


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str], reset_state: int = 0) -> None:
    """Until there is one that was written later; whatever is seen on the way is whole."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        for file in run.glob("*.safetensors"):
            load_tree(file)
        checkpoint = run / "last.safetensors"
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns > reset_state:
            return
        time.sleep(0.005)
    assert process.poll() is not None, "no checkpoint came"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, and the run in `whole` that nothing disturbed."""
    workspace = tmp_path_factory.mktemp("kill")
    draw = random.Random(0)
    (workspace / "text").write_text("".join(draw.choice("abcd \n") for _ in range(3000)))
    finish(start(workspace, *arguments("whole")))
    return workspace


def arguments(run: str) -> list[str]:
    return [
        "text", "--run", run, "--hidden-size", "8", "--embedding-size", "4", "--batch-size", "4",
        "--window", "16", "--dropout", "0.1", "--steps", str(STEPS), "--validate-every", "20",
        "--log-every", "7", "--accelerator", "cpu",
    ]  # fmt: skip


def test_killed_again_and_again(workspace: Path) -> None:
    draw = random.Random(1)
    run = workspace / "killed"
    process = start(workspace, *arguments("killed"))
    killed = 0
    for _ in range(3):
        checkpoint = run / "last.safetensors"
        wait_for_checkpoint(
            run, process, checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        )
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        load_tree(checkpoint)
        (run / f".unrolled-{killed:016x}.tmp").write_bytes(b"what a killed process left")
        process = start(workspace, "--resume", "killed")
    assert killed >= 1
    finish(process)
    assert_same_run(run, workspace / "whole")
    assert not list(run.glob(".*"))


def test_asked_to_end(workspace: Path) -> None:
    process = start(workspace, *arguments("asked"))
    wait_for_checkpoint(workspace / "asked", process)
    process.terminate()
    error = finish(process, 143)
    assert "unrolled: interrupted after step" in error
    finish(start(workspace, "--resume", "asked"))
    assert_same_run(workspace / "asked", workspace / "whole")


def test_one_at_a_time(workspace: Path) -> None:
    """A second process is refused while the first trains, not after it was killed."""
    process = start(workspace, *arguments("busy"))
    wait_for_checkpoint(workspace / "busy", process)
    process.send_signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(process.communicate)
        stack.callback(process.kill)
        previous = sorted((workspace / "busy").iterdir())
        error = finish(start(workspace, "--resume", "busy"), 2)
        assert (
            error
            == "unrolled: busy: the folder must have one run at a time, but another process is "
            "training in it\n"
        )
        assert sorted((workspace / "busy").iterdir()) == previous
    assert (workspace / "busy" / ".lock").exists()
    finish(start(workspace, "--resume", "busy"))
    assert_same_run(workspace / "busy", workspace / "whole")
