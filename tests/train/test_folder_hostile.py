"""Checkpoints whose values are made to do harm: refused in a line, within bounded work and memory.

What the encoding of trees refuses is tested with `io`; here are whole runs, and the commands over
them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.damaged_runs import TASKS, commands, error_line, is_refused, read
from unrolled.cli._app import run
from unrolled.models import load_tree, save_tree

GIGABYTE = 1 << 30


def replace(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A function that replaces the value under keys; the key "first" is the first one there is."""

    def change(tree: dict[str, Any]) -> None:
        at: Any = tree
        for key in keys[:-1]:
            at = at[key]
        final = next(iter(at)) if keys[-1] == "first" else keys[-1]
        at[final] = value(at[final]) if callable(value) else value

    return change


def drop(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        at: Any = tree
        for key in keys[:-1]:
            at = at[key]
        del at[next(iter(at)) if keys[-1] == "first" else keys[-1]]

    return change


NAN = float("nan")
OF_MODEL: dict[str, Callable[[dict[str, Any]], None]] = {
    **{
        f"hidden size {size!r}"[:30]: replace("model", "hidden_size", value=size)
        for size in (10**12, 10**30, 100_000, 5, 0, -3, "4", NAN, None, [4], True)
    },
    "many layers": replace("model", "num_layers", value=10**9),
    "huge embedding": replace("model", "embedding_size", value=10**12),
    "no cell": replace("model", "cell", value="none"),
    "cell a number": replace("model", "cell", value=3),
    "cell is code": replace("model", "cell", value="/etc/passwd:Mine"),
    "dropout a word": replace("model", "dropout", value="all"),
    "extra argument": replace("model", "colour", value=1),
    "model a list": replace("model", value=[]),
    "no model": drop("model"),
    "no codec": drop("codec"),
    "codec a number": replace("codec", value=3),
    "task unknown": replace("task", value="paint"),
    "task a list": replace("task", value=["lm"]),
    "task another": replace("task", value="tag"),
    "no weights": drop("state_dict"),
    "weights a list": replace("state_dict", value=[]),
    "weight missing": drop("state_dict", "first"),
    "weight of no use": replace("state_dict", "model.more", value=torch.ones(2)),
    "weight a number": replace("state_dict", "first", value=3.0),
    "weight too short": replace("state_dict", "first", value=lambda w: w[:-1].clone()),
    "weight of one dimension": replace("state_dict", "first", value=lambda w: w.flatten()),
    "weight NaN": replace("state_dict", "first", value=lambda w: w * NAN),
    "weight infinite": replace("state_dict", "first", value=lambda w: w / 0.0),
    "weight whole": replace("state_dict", "first", value=lambda w: w.long()),
}


@pytest.mark.parametrize("damage", OF_MODEL)
def test_models(damaged: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = damaged / "last.safetensors"
    tree = load_tree(path)
    OF_MODEL[damage](tree)
    save_tree(path, tree)
    assert is_refused(read, path, damaged.name)
    for arguments in commands(damaged):
        error_line(capsys, *arguments)


CODECS: dict[str, dict[str, Callable[[dict[str, Any]], None]]] = {
    "lm": {
        "characters fewer": replace("codec", "characters", value="ab"),
        "characters twice": replace("codec", "characters", value="aabbc"),
        "characters a number": replace("codec", "characters", value=5),
        "unit another": replace("codec", "unit", value="piece"),
    },
    "classify": {
        "labels fewer": replace("codec", "labels", "entries", value=["x"]),
        "labels numbers": replace("codec", "labels", "entries", value=[1, 2]),
        "no characters": replace("codec", "characters", value=None),
        "a mean": replace("codec", "mean", value=torch.ones(2)),
        "length a word": replace("codec", "max_length", value="all"),
    },
}


@pytest.mark.parametrize(("task", "damage"), [(t, d) for t in TASKS for d in CODECS[t]])
def test_codecs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, damage: str
) -> None:
    tree = load_tree(runs / task / "last.safetensors")
    CODECS[task][damage](tree)
    save_tree(tmp_path / "bad", tree)
    assert is_refused(read, tmp_path / "bad", task)
    error_line(
        capsys, *commands(runs / task)[0][:1], tmp_path / "bad", *commands(runs / task)[0][2:]
    )


def test_huge_weights_do_not_sample(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if damaged.name != "lm":
        pytest.skip("writes no text")
    tree = load_tree(damaged / "last.safetensors")
    tree["state_dict"]["model.head.weight"].fill_(3e38)
    tree["state_dict"]["model.head.bias"].fill_(3e38)
    tree["state_dict"]["model.encoder.weight"].fill_(3e38)
    save_tree(damaged / "last.safetensors", tree)
    run(["sample", str(damaged), "--prime", "a", "--length", "3"])
    assert capsys.readouterr().err.count("\n") <= 1


OF_TRAINING: dict[str, Callable[[dict[str, Any]], None]] = {
    "steps a word": replace("global_step", value="two"),
    "steps negative": replace("global_step", value=-1),
    "no steps": drop("global_step"),
    "no optimizer": drop("optimizer_states"),
    "optimizer empty": replace("optimizer_states", value=[]),
    "optimizer a list": replace("optimizer_states", 0, value=[]),
    "moments missing": replace("optimizer_states", 0, "state", value={}),
    "moment of one": drop("optimizer_states", 0, "state", 0),
    "moment too short": replace("optimizer_states", 0, "state", 0, "exp_avg", value=torch.ones(1)),
    "moment NaN": replace("optimizer_states", 0, "state", 0, "exp_avg", value=lambda m: m * NAN),
    "rate a word": replace("optimizer_states", 0, "param_groups", 0, "betas", value="fast"),
    "groups fewer": drop("optimizer_states", 0, "param_groups", 0),
    "no schedule": drop("lr_schedulers"),
    "schedule a word": replace("lr_schedulers", 0, "last_epoch", value="late"),
    "no loops": drop("loops"),
    "loops a number": replace("loops", value=1),
    "no callbacks": replace("callbacks", "Metrics", value={"seconds": 1.0}),
    "metrics of words": replace("callbacks", "Metrics", "seconds", value="long"),
    "no processes": drop("processes"),
    "processes a number": replace("processes", value=1),
    "no process": replace("processes", value=[]),
    "two processes": replace("processes", value=lambda p: p * 2),
    "process a number": replace("processes", 0, value=3),
    "no chance": drop("processes", 0, "random"),
    "chance of Python": replace("processes", 0, "random", "python", value=(1, 2, 3)),
    "chance of torch": replace("processes", 0, "random", "torch", value=torch.ones(3)),
    "version": replace("pytorch-lightning_version", value="none"),
}


@pytest.mark.parametrize("damage", OF_TRAINING)
def test_training_states(damaged: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = damaged / "last.safetensors"
    tree = load_tree(path)
    OF_TRAINING[damage](tree)
    save_tree(path, tree)
    previous = (damaged / "config.json").read_bytes()
    error_line(capsys, "train", damaged.name, "--resume", damaged, "--steps", 3)
    assert (damaged / "config.json").read_bytes() == previous
    assert load_tree(path).keys() == tree.keys()


def test_a_carried_state_of_another_shape(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "lm", tmp_path / "lm")
    tree = load_tree(tmp_path / "lm" / "last.safetensors")
    for wrong in (torch.ones(3, 3, 3), "text", [1]):
        tree["processes"][0]["carried"] = wrong
        save_tree(tmp_path / "lm" / "last.safetensors", tree)
        error_line(capsys, "train", "lm", "--resume", tmp_path / "lm", "--steps", 3)


CAPPED = """
import resource, sys
import torch
from unrolled.cli._app import run
import unrolled.train._run
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
for arguments in eval(sys.argv[1]):
    assert run(arguments) == 2, arguments
# Not ru_maxrss, which begins with the resident memory of the process that started this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages of a process")
def test_sizes_that_no_memory_holds(runs: Path, tmp_path: Path) -> None:
    """In a process that may take one gigabyte more than it has; a refusal takes a second."""
    command_lines: list[list[str]] = []
    for task in TASKS:
        for name, size in (("hidden_size", 20_000), ("num_layers", 10**8)):
            folder = tmp_path / f"{task}-{name}-{size}" / task
            shutil.copytree(runs / task, folder)
            (folder / "best.safetensors").unlink()
            tree = load_tree(folder / "last.safetensors")
            tree["model"][name] = size
            save_tree(folder / "last.safetensors", tree)
            values = json.loads((folder / "config.json").read_text()) | {name: size}
            (folder / "config.json").write_text(json.dumps(values))
            command_lines += [list(map(str, arguments)) for arguments in commands(folder)[::2]]
    finished = subprocess.run(
        [sys.executable, "-c", CAPPED, repr(command_lines)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    lines = finished.stderr.splitlines()
    assert len(lines) == len(command_lines), finished.stderr
    assert all(line.startswith("unrolled: ") for line in lines)
    assert int(finished.stdout) * 1024 < GIGABYTE, finished.stdout
