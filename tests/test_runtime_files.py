"""Files of the runtime: old ones load; damaged and hostile ones are told; torch stays out."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from runtime_models import random
from unrolled import io
from unrolled.export import export
from unrolled.nn import GRU, LSTM
from unrolled.runtime import load
from unrolled.runtime.description import VERSION

GOLDEN = Path(__file__).parent / "golden"


def test_nothing_of_torch_is_loaded(tmp_path: Path) -> None:
    export(random(LSTM(3, 5)), tmp_path / "m")
    code = f"""
import sys
import numpy as np
from unrolled.runtime import load
stream = load({str(tmp_path / "m")!r}).stream()
print(stream.step(np.ones(3, np.float32)).shape)
heavy = ["torch", "lightning", "typer", "matplotlib", "unrolled.nn", "unrolled.engines"]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1, 5)", "[]"]


def test_old_files_keep_loading() -> None:
    """Written by version 1 of the description; their numbers stand beside them."""
    for path in sorted(GOLDEN.glob("*.safetensors")):
        told = json.loads(path.with_suffix(".json").read_text())
        found = load(path).run(np.array(told["x"], told["dtype"]))
        assert np.abs(found - np.array(told["y"], np.float32)).max() < 1e-6, path.name
    assert len(list(GOLDEN.glob("*.safetensors"))) >= 3


def pooling(name: str, keys: Any = None, query: Any = None) -> dict[str, Any]:
    return {"block": "pooling", "name": name, "width": 5, "keys": keys, "query": query}


def linear(inputs: int) -> dict[str, Any]:
    return {"block": "linear", "weight": np.ones((1, inputs), np.float32), "bias": None}


def scale(*sizes: int) -> dict[str, Any]:
    parts = zip(("mean", "deviation"), sizes, strict=True)
    return {"block": "scale"} | {name: np.ones(size) for name, size in parts}


def cell(tree: Any) -> Any:
    return tree["blocks"][0]["layers"][0][0]


DAMAGES: list[tuple[str, Any]] = [
    ("version", lambda tree: tree.update(version=VERSION + 1)),
    ("version", lambda tree: tree.update(version="1")),
    ("kind", lambda tree: tree.update(kind="recipe")),
    ("block", lambda tree: tree["blocks"][0].update(block="attention")),
    ("program", lambda tree: cell(tree).update(program="unrolled-program 9\n")),
    ("program", lambda tree: cell(tree).update(program=cell(tree)["program"][:200])),
    ("program", lambda tree: cell(tree).update(program=7)),
    ("sizes", lambda tree: cell(tree).update(sizes=(3, 5, 7))),
    ("sizes", lambda tree: cell(tree).update(sizes=(3, 1 << 40, 1 << 40))),
    ("sizes", lambda tree: cell(tree).update(sizes=(-3, 5, 5))),
    ("arrays", lambda tree: cell(tree)["arrays"].pop()),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, None)),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, np.ones(15))),
    ("arrays", lambda tree: cell(tree)["arrays"].__setitem__(0, np.ones((2, 2), np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones(5, np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(bias=np.ones(9, np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones((2, 6), np.float32))),
    ("head", lambda tree: tree["blocks"][1].update(weight=np.ones((0, 5), np.float32), bias=None)),
    ("layers", lambda tree: tree["blocks"][0].update(layers=[])),
    ("layers", lambda tree: tree["blocks"][0].update(layers=[[]])),
    ("start", lambda tree: tree["blocks"][0].update(start=[(np.ones((1, 4), np.float32),)])),
    ("blocks", lambda tree: tree.update(blocks=[])),
    ("order", lambda tree: tree["blocks"].append({"block": "last"})),
    ("order", lambda tree: tree["blocks"].append(tree["blocks"][0])),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("median"))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention"))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("mean", linear(5)))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention", linear(5)))),
    ("pooling", lambda tree: tree["blocks"].insert(1, pooling("attention", linear(4), linear(4)))),
    ("scale", lambda tree: tree["blocks"].insert(0, scale(3, 1))),
    ("scale", lambda tree: tree["blocks"].insert(0, scale(2, 2))),
    ("scale", lambda tree: tree["blocks"].append(scale(2, 2))),
    ("blocks", lambda tree: tree.pop("blocks")),
    ("task", lambda tree: tree.pop("task")),
]


@pytest.mark.parametrize(("what", "damage"), DAMAGES)
def test_a_damaged_file_is_told(what: str, damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    export(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), path)
    tree = io.load(path)
    damage(tree)
    io.save(path, tree)
    with pytest.raises(io.FileError, match=r"m\.safetensors: holds no model that this"):
        load(path)


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    for data, said in ((b"", "not a whole"), (b"x" * 100, "not a whole")):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(io.FileError, match=said):
            load(tmp_path / "m")
    with pytest.raises(io.FileError, match="No such file"):
        load(tmp_path / "absent")
    io.save(tmp_path / "m", {"a": np.ones(3)})
    with pytest.raises(io.FileError, match="holds no model"):
        load(tmp_path / "m")


def test_bytes_changed_at_random_do_no_harm(tmp_path: Path) -> None:
    """What loads runs; what does not says so."""
    path = tmp_path / "m"
    export(nn.Sequential(LSTM(3, 4), nn.Linear(4, 2)), path)
    whole = path.read_bytes()
    chance = np.random.default_rng(13)
    x = np.ones((3, 1, 3), np.float32)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in chance.integers(0, len(data), chance.integers(1, 4)):
            data[at] = chance.integers(0, 256)
        path.write_bytes(data[: len(data) - int(chance.integers(0, 2)) * 7])
        try:
            model = load(path)
        except io.FileError:
            refused += 1
            continue
        with contextlib.suppress(ValueError, TypeError):
            model.run(x)
            model.stream().step(x[0])
    assert 100 < refused < 400
