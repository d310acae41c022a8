"""Checkpoints and configurations that are damaged or made to do harm: told in a line, or they work.

What the encoding of trees refuses is `test_io`'s; here are whole runs, and the commands over them.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.cli.app import run
from unrolled.config import ClassificationConfig, LanguageModelConfig
from unrolled.io import FileError
from unrolled.models import load_tree, save_tree
from unrolled.tasks import find_task, load_trained
from unrolled.train import fit, resume
from unrolled.train.folder import read_config

SIZES: dict[str, Any] = {
    "hidden_size": 4, "embedding_size": 3, "batch_size": 2, "steps": 2, "log_every": 1,
    "validate_every": 2, "accelerator": "cpu",
}  # fmt: skip
TASKS = ("lm", "classify")
SECONDS = 2.0
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps, of a language model and of a classifier of texts."""
    place = tmp_path_factory.mktemp("runs")
    (place / "text").write_text("a b c d\n" * 30)
    for label in ("x", "y"):
        (place / "texts" / label).mkdir(parents=True)
        for n in range(6):
            (place / "texts" / label / str(n)).write_text(label * (n + 1))
    words = LanguageModelConfig(
        paths=(str(place / "text"),), vocabulary="characters", window=8, **SIZES
    )
    fit(words, place / "lm", progress=False)
    fit(
        ClassificationConfig(paths=(str(place / "texts"),), **SIZES),
        place / "classify",
        progress=False,
    )
    return place


@pytest.fixture(params=TASKS)
def hurt(request: pytest.FixtureRequest, runs: Path, tmp_path: Path) -> Path:
    """A copy of a run, to be damaged; its folder has the task's name."""
    shutil.copytree(runs / request.param, tmp_path / request.param)
    (tmp_path / request.param / "best.safetensors").unlink()
    return tmp_path / request.param


def read(path: Path, name: str) -> None:
    """A model that is read must also be a model: it is put to use."""
    task = find_task(name)
    model, codec = load_trained(path, task)
    assert len(codec.state())
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def fails_well(call: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a FileError in one line came; nothing else may, nor may it take long."""
    began = time.process_time()
    try:
        call(*arguments)
    except FileError:
        return True
    finally:
        assert time.process_time() - began < SECONDS
    return False


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that is refused says: one line."""
    began = time.process_time()
    assert run(list(map(str, arguments))) == 2, arguments
    assert time.process_time() - began < SECONDS
    error = capsys.readouterr().err
    assert error.startswith("unrolled: "), error
    assert error.count("\n") == 1, error
    return error


def commands(folder: Path) -> list[list[object]]:
    """All that read a run's checkpoint."""
    use = (
        ["sample", folder, "--prime", "a", "--length", 3]
        if folder.name == "lm"
        else ["predict", folder, "--text", "xyx"]
    )
    return [use, ["evaluate", folder], ["train", folder.name, "--resume", folder, "--steps", 3]]


def test_what_is_not_damaged_works(hurt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or the tests below would prove nothing."""
    for arguments in commands(hurt):
        assert run(list(map(str, arguments))) == 0, capsys.readouterr().err


# Bytes


def test_every_boundary_cut(hurt: Path) -> None:
    path = hurt / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    ends = {begin + end for entry in header.values() for end in entry["data_offsets"]}
    near = {place + shift for place in (0, 8, begin, *ends) for shift in (-1, 0, 1)}
    cuts = sorted(cut for cut in near if 0 <= cut < len(data))
    assert len(cuts) > 50
    for cut in cuts:
        path.write_bytes(data[:cut])
        assert fails_well(read, path, hurt.name), cut


def test_flipped_bits(hurt: Path) -> None:
    """Half of them in the header and the metadata, where they mean something."""
    path = hurt / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    failed = 0
    for k in range(150):
        place = draw.randrange(begin if k % 2 else len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        failed += fails_well(read, path, hurt.name)
    assert 50 < failed < 150


def test_flipped_bits_in_a_run_that_goes_on(hurt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hurt / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(1)
    for _ in range(8):
        flipped = bytearray(data)
        flipped[draw.randrange(begin)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        code = run(["train", hurt.name, "--resume", str(hurt), "--steps", "3"])
        error = capsys.readouterr().err
        assert code == 0 or (code == 2 and error.count("\n") == 1), error


# Headers


def rewritten(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = change(header)
    text = json.dumps(header if found is None else found).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def entry(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the first tensor's entry."""

    def change(header: dict[str, Any]) -> None:
        header[next(name for name in header if name != "__metadata__")].update(values)

    return change


def deep(header: dict[str, Any]) -> None:
    tree = "[" * 100_000 + "]" * 100_000
    header["__metadata__"]["unrolled"] = f'{{"version": 1, "tree": {tree}}}'


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "length huge": lambda data: (2**63 - 1).to_bytes(8, "little") + data[8:],
    "length negative": lambda data: (-1).to_bytes(8, "little", signed=True) + data[8:],
    "length zero": lambda data: bytes(8) + data[8:],
    "length a byte short": lambda data: (
        (int.from_bytes(data[:8], "little") - 1).to_bytes(8, "little") + data[8:]
    ),
    "not UTF-8": lambda data: data[:20] + b"\xff\xfe" + data[22:],
    "shape huge": lambda data: rewritten(data, entry(shape=[10**12, 10**12])),
    "shape overflowing": lambda data: rewritten(data, entry(shape=[2**32, 2**32])),
    "shape negative": lambda data: rewritten(data, entry(shape=[-1])),
    "shape of words": lambda data: rewritten(data, entry(shape=["many"])),
    "offsets huge": lambda data: rewritten(data, entry(data_offsets=[0, 10**15])),
    "offsets turned": lambda data: rewritten(data, entry(data_offsets=[8, 0])),
    "dtype unknown": lambda data: rewritten(data, entry(dtype="F999")),
    "dtype of four bits": lambda data: rewritten(data, entry(dtype="F4")),
    "metadata nothing": lambda data: rewritten(data, lambda h: h | {"__metadata__": None}),
    "metadata a list": lambda data: rewritten(data, lambda h: h | {"__metadata__": []}),
    "no metadata": lambda data: rewritten(data, lambda h: h.pop("__metadata__") and None),
    "deep": lambda data: rewritten(data, deep),
    "deep header": lambda data: (200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("damage", HEADERS)
def test_headers(hurt: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = hurt / "last.safetensors"
    path.write_bytes(HEADERS[damage](path.read_bytes()))
    assert fails_well(read, path, hurt.name)
    for arguments in commands(hurt):
        assert "last.safetensors: " in told(capsys, *arguments)


def test_a_folder_in_place_of_a_file(hurt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hurt / "last.safetensors").unlink()
    (hurt / "last.safetensors").mkdir()
    assert fails_well(read, hurt / "last.safetensors", hurt.name)
    for arguments in commands(hurt):
        told(capsys, *arguments)


# Trees


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of what stands under keys; with the word "first", under whichever is first."""

    def change(tree: dict[str, Any]) -> None:
        at: Any = tree
        for key in keys[:-1]:
            at = at[key]
        last = next(iter(at)) if keys[-1] == "first" else keys[-1]
        at[last] = value(at[last]) if callable(value) else value

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
        f"hidden size {size!r}"[:30]: put("model", "hidden_size", value=size)
        for size in (10**12, 10**30, 100_000, 5, 0, -3, "4", NAN, None, [4], True)
    },
    "many layers": put("model", "num_layers", value=10**9),
    "huge embedding": put("model", "embedding_size", value=10**12),
    "no cell": put("model", "cell", value="none"),
    "cell a number": put("model", "cell", value=3),
    "cell is code": put("model", "cell", value="/etc/passwd:Mine"),
    "dropout a word": put("model", "dropout", value="all"),
    "extra argument": put("model", "colour", value=1),
    "model a list": put("model", value=[]),
    "no model": drop("model"),
    "no codec": drop("codec"),
    "codec a number": put("codec", value=3),
    "task unknown": put("task", value="paint"),
    "task a list": put("task", value=["lm"]),
    "task another": put("task", value="tag"),
    "no weights": drop("state_dict"),
    "weights a list": put("state_dict", value=[]),
    "weight missing": drop("state_dict", "first"),
    "weight of no use": put("state_dict", "model.more", value=torch.ones(2)),
    "weight a number": put("state_dict", "first", value=3.0),
    "weight too short": put("state_dict", "first", value=lambda w: w[:-1].clone()),
    "weight of one dimension": put("state_dict", "first", value=lambda w: w.flatten()),
    "weight NaN": put("state_dict", "first", value=lambda w: w * NAN),
    "weight infinite": put("state_dict", "first", value=lambda w: w / 0.0),
    "weight whole": put("state_dict", "first", value=lambda w: w.long()),
}


@pytest.mark.parametrize("damage", OF_MODEL)
def test_models(hurt: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = hurt / "last.safetensors"
    tree = load_tree(path)
    OF_MODEL[damage](tree)
    save_tree(path, tree)
    assert fails_well(read, path, hurt.name)
    for arguments in commands(hurt):
        told(capsys, *arguments)


CODECS: dict[str, dict[str, Callable[[dict[str, Any]], None]]] = {
    "lm": {
        "characters fewer": put("codec", "characters", value="ab"),
        "characters twice": put("codec", "characters", value="aabbc"),
        "characters a number": put("codec", "characters", value=5),
        "unit another": put("codec", "unit", value="piece"),
    },
    "classify": {
        "labels fewer": put("codec", "labels", "entries", value=["x"]),
        "labels numbers": put("codec", "labels", "entries", value=[1, 2]),
        "no characters": put("codec", "characters", value=None),
        "a mean": put("codec", "mean", value=torch.ones(2)),
        "length a word": put("codec", "max_length", value="all"),
    },
}


@pytest.mark.parametrize(("task", "damage"), [(t, d) for t in TASKS for d in CODECS[t]])
def test_codecs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, damage: str
) -> None:
    tree = load_tree(runs / task / "last.safetensors")
    CODECS[task][damage](tree)
    save_tree(tmp_path / "bad", tree)
    assert fails_well(read, tmp_path / "bad", task)
    told(capsys, *commands(runs / task)[0][:1], tmp_path / "bad", *commands(runs / task)[0][2:])


def test_huge_weights_do_not_sample(hurt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if hurt.name != "lm":
        pytest.skip("writes no text")
    tree = load_tree(hurt / "last.safetensors")
    tree["state_dict"]["model.head.weight"].fill_(3e38)
    tree["state_dict"]["model.head.bias"].fill_(3e38)
    tree["state_dict"]["model.encoder.weight"].fill_(3e38)
    save_tree(hurt / "last.safetensors", tree)
    run(["sample", str(hurt), "--prime", "a", "--length", "3"])
    assert capsys.readouterr().err.count("\n") <= 1


OF_TRAINING: dict[str, Callable[[dict[str, Any]], None]] = {
    "steps a word": put("global_step", value="two"),
    "steps negative": put("global_step", value=-1),
    "no steps": drop("global_step"),
    "no optimizer": drop("optimizer_states"),
    "optimizer empty": put("optimizer_states", value=[]),
    "optimizer a list": put("optimizer_states", 0, value=[]),
    "moments missing": put("optimizer_states", 0, "state", value={}),
    "moment of one": drop("optimizer_states", 0, "state", 0),
    "moment too short": put("optimizer_states", 0, "state", 0, "exp_avg", value=torch.ones(1)),
    "moment NaN": put("optimizer_states", 0, "state", 0, "exp_avg", value=lambda m: m * NAN),
    "rate a word": put("optimizer_states", 0, "param_groups", 0, "betas", value="fast"),
    "groups fewer": drop("optimizer_states", 0, "param_groups", 0),
    "no schedule": drop("lr_schedulers"),
    "schedule a word": put("lr_schedulers", 0, "last_epoch", value="late"),
    "no loops": drop("loops"),
    "loops a number": put("loops", value=1),
    "no callbacks": put("callbacks", "Metrics", value={"seconds": 1.0}),
    "metrics of words": put("callbacks", "Metrics", "seconds", value="long"),
    "no processes": drop("processes"),
    "processes a number": put("processes", value=1),
    "no process": put("processes", value=[]),
    "two processes": put("processes", value=lambda p: p * 2),
    "process a number": put("processes", 0, value=3),
    "no chance": drop("processes", 0, "random"),
    "chance of Python": put("processes", 0, "random", "python", value=(1, 2, 3)),
    "chance of torch": put("processes", 0, "random", "torch", value=torch.ones(3)),
    "version": put("pytorch-lightning_version", value="none"),
}


@pytest.mark.parametrize("damage", OF_TRAINING)
def test_training_states(hurt: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = hurt / "last.safetensors"
    tree = load_tree(path)
    OF_TRAINING[damage](tree)
    save_tree(path, tree)
    before = (hurt / "config.json").read_bytes()
    told(capsys, "train", hurt.name, "--resume", hurt, "--steps", 3)
    assert (hurt / "config.json").read_bytes() == before
    assert load_tree(path).keys() == tree.keys()


def test_a_carried_state_of_another_shape(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "lm", tmp_path / "lm")
    tree = load_tree(tmp_path / "lm" / "last.safetensors")
    for wrong in (torch.ones(3, 3, 3), "text", [1]):
        tree["processes"][0]["carried"] = wrong
        save_tree(tmp_path / "lm" / "last.safetensors", tree)
        told(capsys, "train", "lm", "--resume", tmp_path / "lm", "--steps", 3)


# Configurations and metrics


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
def test_configurations(hurt: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = hurt / "config.json"
    before = path.read_bytes()
    path.write_bytes(CONFIGS[damage](before))
    assert path.read_bytes() != before
    assert fails_well(read_config, path)
    for arguments in commands(hurt)[1:]:
        assert "config.json: " in told(capsys, *arguments)


def test_a_configuration_of_flipped_bits(hurt: Path) -> None:
    path = hurt / "config.json"
    data = path.read_bytes()
    draw = random.Random(2)
    failed = 0
    for _ in range(300):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        failed += fails_well(read_config, path)
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
    told(capsys, "train", "lm", "--resume", tmp_path / "lm")


@pytest.mark.parametrize("text", ["", "step\nx\n", "\0\xff", "step,tokens\n1\n", "a,b\n\n1,2,3\n"])
def test_damaged_metrics_do_not_hinder(hurt: Path, text: str) -> None:
    (hurt / "metrics.csv").write_bytes(text.encode("latin-1"))
    assert resume(hurt, steps=3, progress=False).step == 3
    header = (hurt / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("step,")


# Memory


CAPPED = """
import resource, sys
import torch
from unrolled.cli.app import run
import unrolled.train.run
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
for arguments in eval(sys.argv[1]):
    assert run(arguments) == 2, arguments
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages of a process")
def test_sizes_that_no_memory_holds(runs: Path, tmp_path: Path) -> None:
    """In a process that may take one gigabyte more than it has; a refusal takes a second."""
    given: list[list[str]] = []
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
            given += [list(map(str, arguments)) for arguments in commands(folder)[::2]]
    done = subprocess.run(
        [sys.executable, "-c", CAPPED, repr(given)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(given), done.stderr
    assert all(line.startswith("unrolled: ") for line in lines)
    assert int(done.stdout) * 1024 < GIGABYTE, done.stdout
