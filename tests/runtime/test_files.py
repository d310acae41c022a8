"""Files of the runtime: old ones load; damaged and hostile ones are told; torch stays out."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.paths import GOLDEN
from unrolled import io
from unrolled.export import export
from unrolled.models import EncoderDecoder, Tagger
from unrolled.nn import GRU, LSTM
from unrolled.runtime import Model, load
from unrolled.runtime.schema import VERSION, ChainModel, LayerDirection, RecurrentBlock
from unrolled.tasks.forecasting import Forecaster


def test_nothing_of_torch_is_loaded() -> None:
    """Of any kind of file, nor for texts and streams."""
    code = f"""
import sys
from pathlib import Path
from unrolled.runtime import load
models = [load(path) for path in sorted(Path({str(GOLDEN)!r}).glob("*.safetensors"))]
coded = [model for model in models if model.codec and model.task]
print(len(models), {{model.task for model in coded}})
for model in coded:
    model.encode([["Ada"]] if model.task == "tag" else [[[1, 2]] * 3] if model.task == "forecast"
                 else ["ab"])
print(models[0].stream().step(models[0].encode(["a"])[0][0]).shape)
heavy = ["torch", "lightning", "typer", "matplotlib", "unrolled.nn", "unrolled.engines"]
print([name for name in (*heavy, "unrolled.tasks", "unrolled.models") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{len(FILES)} ")
    assert all(repr(task) in lines[0] for task in ("lm", "classify", "tag", "forecast", "seq2seq"))
    assert lines[1:] == ["(1, 4)", "[]"]


FILES = sorted(GOLDEN.glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_old_files_keep_loading(path: Path) -> None:
    """Written by the version of the description in their names; their numbers stand beside them."""
    told = json.loads(path.with_suffix(".json").read_text())
    assert path.stem.startswith(f"v{io.load(path)['version']}-")
    if "items" in told:
        assert said(load(path), told["items"]) == told["said"]
        return
    x = [np.array(part, told["dtype"]) for part in told["x"]]
    x = tuple(x) if told.get("parts") else np.stack(x)
    found = load(path).run(x, **told.get("options", {}))
    if "translator" in path.stem or "both-ways" in path.stem:
        assert [one.tokens for one in found] == [tokens for tokens, _ in told["y"]]
        found, told["y"] = ([score for _, score in both] for both in (found, told["y"]))
    assert np.abs(np.array(found) - np.array(told["y"])).max() < 1e-6


def said(model: Any, items: Any) -> Any:
    """What a model says of texts or numbers; of a language model the texts as they come back."""
    x, lengths = model.encode(items)
    if model.task == "lm":
        return model.decode(x, lengths)
    found = model.decode(model.run(x, lengths=lengths), lengths)
    if isinstance(found, dict):
        return {name: [pytest.approx(row.tolist()) for row in rows] for name, rows in found.items()}
    return found


def test_there_are_old_files_of_each_kind() -> None:
    """By version; what version 1 can say is said by version 1."""
    names = [path.stem for path in FILES]
    assert sum(name.startswith("v1-") for name in names) >= 7
    assert sum(name.startswith("v2-") for name in names) >= 11


def pooling(name: str, keys: Any = None, query: Any = None) -> dict[str, Any]:
    return {"block": "pooling", "name": name, "width": 5, "keys": keys, "query": query}


def linear(inputs: int) -> dict[str, Any]:
    return {"block": "linear", "weight": np.ones((1, inputs), np.float32), "bias": None}


def scale(*sizes: int) -> dict[str, Any]:
    parts = zip(("mean", "deviation"), sizes, strict=True)
    return {"block": "scale"} | {name: np.ones(size) for name, size in parts}


CROP = linear(7)


def cell(tree: Any) -> Any:
    return tree["blocks"][0]["layers"][0][0]


DAMAGES: list[tuple[str, Any]] = [
    (r"file: version must be from 1 to 2, got 3", lambda t: t.update(version=VERSION + 1)),
    (r"file: version must be from 1 to 2, got '1'", lambda t: t.update(version="1")),
    (r"file: kind must be 'unrolled model', got 'recipe'", lambda t: t.update(kind="recipe")),
    (
        r"attention: combine is missing",
        lambda t: t["blocks"][0].update(block="attention"),
    ),
    (
        r"attention: must be in the decoder of a translator, got it in a chain",
        lambda t: insert(t, {"block": "attention", "combine": linear(5)}),
    ),
    (r"file: blocks must be a list, got str", lambda t: t.update(blocks="abc")),
    (r"block: must be a dictionary of names, got str", lambda t: t.update(blocks=["abc"])),
    (r"program, line 1 .*must be `unr", lambda t: cell(t).update(program="unrolled-program 9\n")),
    (
        r"program, line 14 .*must have 2 arguments, got 0",
        lambda t: cell(t).update(program=cell(t)["program"][:200]),
    ),
    (r"layers: program must be a string, got 7", lambda t: cell(t).update(program=7)),
    (r"recurrent: sizes must end with 5, .*got 7", lambda t: cell(t).update(sizes=(3, 5, 7))),
    (r"sizes: H and P must be from 1 to", lambda t: cell(t).update(sizes=(3, 1 << 40, 1 << 40))),
    (
        r"recurrent: sizes must not be negative, got \[-3, 5, 5\]",
        lambda t: cell(t).update(sizes=(-3, 5, 5)),
    ),
    (r"recurrent: arrays must be 4, .*got 3", lambda t: cell(t)["arrays"].pop()),
    (r"recurrent: weight must be an array, got None", lambda t: set_array(t, 0, None)),
    (
        r"layers: arrays must be an array of float32, got float64",
        lambda t: set_array(t, 0, np.ones(15)),
    ),
    (r"layers: arrays must be an array of float32, got int", lambda t: set_array(t, 0, 7)),
    (
        r"recurrent: weight must have 45 numbers, got 4",
        lambda t: set_array(t, 0, np.ones((2, 2), np.float32)),
    ),
    (
        r"linear: weight must have 2 dimensions, got 1",
        lambda t: head(t, weight=np.ones(5, np.float32)),
    ),
    (r"linear: bias must have 2 numbers, got 9", lambda t: head(t, bias=np.ones(9, np.float32))),
    (r"linear: inputs must be 5, .*got 6", lambda t: head(t, weight=np.ones((2, 6), np.float32))),
    (
        r"linear: weight must not be empty, got shape \[0, 5\]",
        lambda t: head(t, weight=np.ones((0, 5), np.float32), bias=None),
    ),
    (
        r"recurrent: layers must have one direction each, or two",
        lambda t: t["blocks"][0].update(layers=[]),
    ),
    (
        r"recurrent: layers must have one direction each, or two",
        lambda t: t["blocks"][0].update(layers=[[]]),
    ),
    (
        r"recurrent: merge must be concat or sum, got 'mean'",
        lambda t: t["blocks"][0].update(merge="mean"),
    ),
    (
        r"recurrent: start must have shapes \[\[\(1, 5\)\]\], got \[\[\(1, 4\)\]\]",
        lambda t: t["blocks"][0].update(start=[(np.ones((1, 4), np.float32),)]),
    ),
    (r"blocks: one block must be recurrent, got none", lambda t: t.update(blocks=[])),
    (
        r"last: must be behind a recurrent block, got it behind linear",
        lambda t: t["blocks"].append({"block": "last"}),
    ),
    (r"recurrent: inputs must be 2, .*got 3", lambda t: t["blocks"].append(t["blocks"][0])),
    (
        r"pooling: name must be one of mean, max, attention, got 'median'",
        lambda t: insert(t, pooling("median")),
    ),
    (r"pooling: keys and query must be linear", lambda t: insert(t, pooling("attention"))),
    (r"keys and query must be None with mean", lambda t: insert(t, pooling("mean", linear(5)))),
    (
        r"pooling: keys and query must be linear blocks",
        lambda t: insert(t, pooling("attention", linear(5))),
    ),
    (
        r"pooling: inputs of keys must be width = 5, got 4",
        lambda t: insert(t, pooling("attention", linear(4), linear(4))),
    ),
    (
        r"block: must be linear here, got scale",
        lambda t: insert(t, pooling("attention", linear(5), scale(5, 5))),
    ),
    (r"scale: deviation must have shape \[3\], .*got \[1\]", lambda t: insert(t, scale(3, 1), 0)),
    (r"recurrent: inputs must be 2, .*got 3", lambda t: insert(t, scale(2, 2), 0)),
    (
        r"scale: must be the first block, got it behind linear",
        lambda t: t["blocks"].append(scale(2, 2)),
    ),
    (r"forecast: must be behind the end of sequences", lambda t: t["blocks"].append(forecast())),
    (r"file: batch_first must be a boolean, got 1", lambda t: t.update(batch_first=1)),
    (r"file: blocks is missing", lambda t: t.pop("blocks")),
    (r"file: task is missing", lambda t: t.pop("task")),
]


def set_array(tree: Any, k: int, array: Any) -> None:
    cell(tree)["arrays"][k] = array


def head(tree: Any, **changes: Any) -> None:
    tree["blocks"][1].update(changes)


def insert(tree: Any, block: Any, at: int = 1) -> None:
    tree["blocks"].insert(at, block)


def forecast(**changes: Any) -> dict[str, Any]:
    sizes = {"horizon": 2, "targets": 1, "mean": None, "deviation": None}
    return {"block": "forecast", **sizes, **changes}


def refused(module: nn.Module, damage: Any, said: str, folder: Path, **options: Any) -> None:
    """A damage is told, in one line that names file and fault."""
    path = folder / "m.safetensors"
    export(module, path, **options)
    tree = io.load(path)
    damage(tree)
    io.save(path, tree)
    with pytest.raises(io.FileError) as raised:
        load(path)
    line = str(raised.value)
    assert re.search(rf"m\.safetensors: holds no model that this version reads \(.*{said}", line), (
        line
    )
    assert "\n" not in line


@pytest.mark.parametrize(("said", "damage"), DAMAGES)
def test_a_damaged_file_is_told(said: str, damage: Any, tmp_path: Path) -> None:
    refused(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), damage, said, tmp_path)


def words(tree: Any, **changes: Any) -> None:
    tree["blocks"][0].update(changes)


WORDS: list[tuple[str, Any]] = [
    (r"words: words must be an array of float32, got NoneType", lambda t: words(t, words=None)),
    (r"words: inputs of spelling must be 4, .*got 2", lambda t: words(t, characters=TABLE)),
    (r"words: spelling must be recurrent, got linear", lambda t: words(t, spelling=linear(2))),
    (
        r"recurrent: layers must have one direction",
        lambda t: t["blocks"][0]["spelling"].update(layers=[]),
    ),
    (
        r"recurrent: inputs must be 6, .*got 8",
        lambda t: words(t, words=np.ones((9, 2), np.float32)),
    ),
    (r"words: must be the first block", lambda t: t["blocks"].append(t["blocks"][0])),
]
TABLE = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(("said", "damage"), WORDS)
def test_a_damaged_tagger_is_told(said: str, damage: Any, tmp_path: Path) -> None:
    refused(Tagger(5, 6, 3, hidden_size=4, embedding_size=4), damage, said, tmp_path)


FORECASTS: list[tuple[str, Any]] = [
    (r"forecast: horizon must be at least 1, got 0", lambda t: t["blocks"][-1].update(horizon=0)),
    (
        r"forecast: horizon must be a whole number .*got 1\.5",
        lambda t: t["blocks"][-1].update(horizon=1.5),
    ),
    (r"forecast: inputs must be 6, .*got 8", lambda t: t["blocks"][-1].update(horizon=4)),
    (
        r"forecast: targets must be at most 2, .*got 6",
        lambda t: t["blocks"][-1].update(horizon=1, targets=6, mean=None),
    ),
    (
        r"forecast: mean must have shape \[2\], .*got \[3\]",
        lambda t: t["blocks"][-1].update(mean=np.ones(3)),
    ),
    (
        r"forecast: deviation must be an array of float64",
        lambda t: t["blocks"][-1].update(deviation=None),
    ),
    (
        r"forecast: must be before the forecast, got it behind",
        lambda t: t["blocks"].append(t["blocks"][-1]),
    ),
]


@pytest.mark.parametrize(("said", "damage"), FORECASTS)
def test_a_damaged_forecaster_is_told(said: str, damage: Any, tmp_path: Path) -> None:
    scale = {"mean": torch.ones(2), "deviation": torch.ones(2)}
    refused(Forecaster(2, 2, 3, hidden_size=4), damage, said, tmp_path, codec=scale)


TRANSLATORS: list[tuple[str, Any]] = [
    (r"file: version must be from 1 to 2, got 3", lambda t: t.update(version=VERSION + 1)),
    (r"file: decoder is missing", lambda t: t.pop("decoder")),
    (
        r"encoder: blocks must be embedding, recurrent, got",
        lambda t: t["encoder"].append(linear(4)),
    ),
    (
        r"decoder: blocks must be embedding, recurrent, attention",
        lambda t: t["decoder"].append(linear(7)),
    ),
    (
        r"decoder: blocks must be .*got embedding, recurrent, linear, attention",
        lambda t: t["decoder"].append(t["decoder"].pop(2)),
    ),
    (
        r"decoder: blocks must be .*got .*attention, attention, linear",
        lambda t: t["decoder"].insert(2, t["decoder"][2]),
    ),
    (
        r"attention: weight of combine must have shape \[4, 8\]",
        lambda t: t["decoder"][2].update(combine=CROP),
    ),
    (r"Translator: begin must be a token from 0 to 6, got 7", lambda t: t.update(begin=7)),
    (r"file: end must be a whole number .*got None", lambda t: t.update(end=None)),
    (
        r"decoder: widths of its states must be \[\(4,\)\]",
        lambda t: t["encoder"][1]["layers"].pop(),
    ),
    (r"file: kind is missing", lambda t: t.pop("kind")),
]


@pytest.mark.parametrize(("said", "damage"), TRANSLATORS)
def test_a_damaged_translator_is_told(said: str, damage: Any, tmp_path: Path) -> None:
    model = EncoderDecoder(5, 7, hidden_size=4, num_layers=2, embedding_size=3)
    refused(model, damage, said, tmp_path)


def quantized(tree: Any, **changes: Any) -> None:
    tree["blocks"][1]["weight"].update(changes)


QUANTIZED: list[tuple[str, Any]] = [
    (r"weight: kept must be int8 or bfloat16, got 'int4'", lambda t: quantized(t, kept="int4")),
    (
        r"weight: values must be an array of uint16, got int8",
        lambda t: quantized(t, kept="bfloat16"),
    ),
    (
        r"weight: values must have 2 dimensions, got 1",
        lambda t: quantized(t, values=np.ones(2, np.int8)),
    ),
    (
        r"weight: largest must be an array of float32, got float64",
        lambda t: quantized(t, largest=np.ones(2)),
    ),
    (
        r"weight: largest must be 2 finite numbers of at least 0",
        lambda t: quantized(t, largest=np.ones(1, np.float32)),
    ),
    (
        r"weight: largest must be 2 finite numbers of at least 0",
        lambda t: quantized(t, largest=-np.ones(2, np.float32)),
    ),
    (
        r"weight: largest must be 2 finite numbers of at least 0",
        lambda t: quantized(t, largest=np.full(2, np.nan, np.float32)),
    ),
    (r"linear: inputs must be 5, .*got 4", lambda t: quantized(t, values=np.ones((2, 4), np.int8))),
    (r"weight: largest is missing", lambda t: t["blocks"][1]["weight"].pop("largest")),
]


@pytest.mark.parametrize(("said", "damage"), QUANTIZED)
def test_a_damaged_quantized_weight_is_reported(said: str, damage: Any, tmp_path: Path) -> None:
    chain = nn.Sequential(GRU(3, 5), nn.Linear(5, 2))
    refused(chain, damage, said, tmp_path, weights="int8")


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


MODULES: dict[str, Any] = {
    "chain": (nn.Sequential(LSTM(3, 4), nn.Linear(4, 2)), {}, np.ones((3, 1, 3), np.float32)),
    "short": (GRU(3, 4), {"weights": "int8"}, np.ones((3, 1, 3), np.float32)),
    "words": (
        Tagger(3, 3, 2, hidden_size=3, embedding_size=2, bidirectional=False),
        {},
        (np.ones((3, 1), int), np.ones((2, 3), int), np.ones(3, int)),
    ),
    "forecast": (
        Forecaster(2, 1, 2, hidden_size=3),
        {"codec": {"mean": torch.ones(2), "deviation": torch.ones(2)}},
        np.ones((3, 1, 2)),
    ),
    "translator": (EncoderDecoder(4, 5, hidden_size=3), {}, np.ones((3, 1), int)),
}


@pytest.mark.parametrize("name", MODULES)
def test_bytes_changed_at_random_do_no_harm(name: str, tmp_path: Path) -> None:
    """What loads runs; what does not says so."""
    path = tmp_path / "m"
    module, options, x = MODULES[name]
    export(module, path, **options)
    whole = path.read_bytes()
    chance = np.random.default_rng(13)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for at in chance.integers(0, len(data), chance.integers(1, 4)):
            data[at] = chance.integers(0, 256)
        path.write_bytes(data[: len(data) - int(chance.integers(0, 2)) * 7])
        try:
            model = load(path)
        except io.FileError:
            refused += 1
            continue
        with contextlib.suppress(ValueError, TypeError, IndexError), np.errstate(all="ignore"):
            model.run(x)
            model.stream().step(x[0] if isinstance(x, np.ndarray) else (x[0][:1], x[1][:, :1], [2]))
    assert 50 < refused < 200


def test_a_few_lines_do_not_take_all_memory() -> None:
    """Of a program far wider than its arrays."""
    wide = "unrolled-program 1\nstate H\n" + "state 8388608\n" * 64
    wide += f"input 1 H\nnode x H 0\nnode state 8388608 1\nforward 0 {'1 ' * 64}\n"
    wide += f"stored\nsource\ndx -\ndstate {'- ' * 65}\ndvector\n"
    direction = LayerDirection("", wide, (2, 3, 3), (np.ones((3, 2), np.float32), None))
    with pytest.raises(ValueError, match="program: wanted no more memory and work than 24 bytes"):
        Model(ChainModel((RecurrentBlock(((direction,),)),)))
