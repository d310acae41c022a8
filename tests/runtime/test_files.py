"""Files of the runtime: old ones load, damaged ones are refused, torch is not imported."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.paths import GOLDEN, GOLDEN_FILES
from tests.support.tolerances import tolerance_of_bfloat16_weights
from unrolled import io
from unrolled.export import export
from unrolled.models import EncoderDecoder, Tagger
from unrolled.nn import GRU, LSTM
from unrolled.runtime import load
from unrolled.tasks._forecasting import Forecaster


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
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    lines = completed.stdout.splitlines()
    assert lines[0].startswith(f"{len(GOLDEN_FILES)} ")
    assert all(repr(task) in lines[0] for task in ("lm", "classify", "tag", "forecast", "seq2seq"))
    assert lines[1:] == ["(1, 4)", "[]"]


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_old_files_keep_loading(path: Path) -> None:
    """Their names begin with the version of the schema; the expected numbers are beside them."""
    golden = json.loads(path.with_suffix(".json").read_text())
    assert path.stem.startswith(f"v{io.load(path)['version']}-")
    if "items" in golden:
        assert decoded(load(path), golden["items"]) == golden["said"]
        return
    x = [np.array(part, golden["dtype"]) for part in golden["x"]]
    x = tuple(x) if golden.get("parts") else np.stack(x)
    output = load(path).run(x, **golden.get("options", {}))
    if "translator" in path.stem or "both-ways" in path.stem:
        assert [hypothesis.tokens for hypothesis in output] == [tokens for tokens, _ in golden["y"]]
        output, golden["y"] = ([score for _, score in pairs] for pairs in (output, golden["y"]))
    tolerance = tolerance_of_bfloat16_weights(1e-6) if "bfloat16" in path.stem else 1e-6
    assert np.abs(np.array(output) - np.array(golden["y"])).max() < tolerance


def decoded(model: Any, items: Any) -> Any:
    """The labels or values that a model decodes for items; a language model returns the texts."""
    x, lengths = model.encode(items)
    if model.task == "lm":
        return model.decode(x, lengths)
    output = model.decode(model.run(x, lengths=lengths), lengths)
    if isinstance(output, dict):
        return {
            name: [pytest.approx(row.tolist()) for row in rows] for name, rows in output.items()
        }
    return output


def test_there_are_old_files_of_each_kind() -> None:
    """By version; what version 1 can say is said by version 1."""
    names = [path.stem for path in GOLDEN_FILES]
    assert sum(name.startswith("v1-") for name in names) >= 7
    assert sum(name.startswith("v2-") for name in names) >= 11


def test_a_file_of_something_else_is_reported(tmp_path: Path) -> None:
    for data, decoded in ((b"", "not a whole"), (b"x" * 100, "not a whole")):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(io.FileError, match=decoded):
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
def test_randomly_changed_bytes_load_or_raise(name: str, tmp_path: Path) -> None:
    """A file that loads also runs; another one raises a FileError."""
    path = tmp_path / "m"
    module, options, x = MODULES[name]
    export(module, path, **options)
    original = path.read_bytes()
    chance = np.random.default_rng(13)
    refused = 0
    for _ in range(200):
        data = bytearray(original)
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
