"""Changes of the trees of exported files that a reader must refuse, each with its message."""

from typing import Any

import numpy as np

from unrolled.runtime._schema import VERSION

__all__ = ["DAMAGES", "FORECASTS", "QUANTIZED", "TRANSLATORS", "WORDS"]


def pooling(name: str, keys: Any = None, query: Any = None) -> dict[str, Any]:
    return {"block": "pooling", "name": name, "width": 5, "keys": keys, "query": query}


def linear(inputs: int) -> dict[str, Any]:
    return {"block": "linear", "weight": np.ones((1, inputs), np.float32), "bias": None}


def scale(*sizes: int) -> dict[str, Any]:
    parts = zip(("mean", "deviation"), sizes, strict=True)
    return {"block": "scale"} | {name: np.ones(size) for name, size in parts}


CROP = linear(7)


def direction(tree: Any) -> Any:
    return tree["blocks"][0]["layers"][0][0]


DAMAGES: list[tuple[str, Any]] = [
    (r"file: version must be from 1 to 3, got 4", lambda t: t.update(version=VERSION + 1)),
    (r"file: version must be from 1 to 3, got '1'", lambda t: t.update(version="1")),
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
    (
        r"program, line 1 .*must be `unr",
        lambda t: direction(t).update(program="unrolled-program 9\n"),
    ),
    (
        r"program, line 14 .*must have 2 arguments, got 0",
        lambda t: direction(t).update(program=direction(t)["program"][:200]),
    ),
    (r"layers: program must be a string, got 7", lambda t: direction(t).update(program=7)),
    (r"recurrent: sizes must end with 5, .*got 7", lambda t: direction(t).update(sizes=(3, 5, 7))),
    (
        r"sizes: H and P must be from 1 to",
        lambda t: direction(t).update(sizes=(3, 1 << 40, 1 << 40)),
    ),
    (
        r"recurrent: sizes must not be negative, got \[-3, 5, 5\]",
        lambda t: direction(t).update(sizes=(-3, 5, 5)),
    ),
    (r"recurrent: arrays must be 4, .*got 3", lambda t: direction(t)["arrays"].pop()),
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
    direction(tree)["arrays"][k] = array


def head(tree: Any, **changes: Any) -> None:
    tree["blocks"][1].update(changes)


def insert(tree: Any, block: Any, at: int = 1) -> None:
    tree["blocks"].insert(at, block)


def forecast(**changes: Any) -> dict[str, Any]:
    sizes = {"horizon": 2, "targets": 1, "mean": None, "deviation": None}
    return {"block": "forecast", **sizes, **changes}


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


TRANSLATORS: list[tuple[str, Any]] = [
    (r"file: version must be from 1 to 3, got 4", lambda t: t.update(version=VERSION + 1)),
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
