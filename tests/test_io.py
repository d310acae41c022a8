"""Trees in safetensors files: they load as they were saved; damaged files raise."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from unrolled import io
from unrolled.models import load_tree, save_tree

DTYPES = ["bool", "int8", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"]

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
some_arrays = st.sampled_from([*DTYPES, "complex64"]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
trees = st.recursive(
    plain | some_arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(got: Any, expected: Any) -> None:
    """Equal in type, structure and every bit (NaN equals NaN, -0.0 differs from 0.0)."""
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert [(type(k), k) for k in got] == [(type(k), k) for k in expected]
        for (_, a), (_, b) in zip(got.items(), expected.items(), strict=True):
            assert_same(a, b)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, float):
        assert got == expected or (math.isnan(got) and math.isnan(expected))
        assert math.copysign(1.0, got) == math.copysign(1.0, expected) or math.isnan(expected)
    else:
        assert got == expected


@given(trees)
def test_a_tree_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    io.save(path, tree)
    assert_same(io.load(path), tree)


def test_what_optimizers_hold_comes_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_tree(tmp_path / "optimizer", optimizer.state_dict())
    got = load_tree(tmp_path / "optimizer")
    assert got.keys() == optimizer.state_dict().keys()
    assert list(got["state"]) == [0, 1]
    assert got["param_groups"] == optimizer.state_dict()["param_groups"]
    expected = optimizer.state_dict()["state"][1]
    assert all(torch.equal(got["state"][1][name], expected[name]) for name in expected)


def test_the_torch_and_numpy_functions_read_each_others_files(tmp_path: Path) -> None:
    io.save(tmp_path / "numpy", {"x": np.arange(3.0)})
    assert torch.equal(load_tree(tmp_path / "numpy")["x"], torch.arange(3.0, dtype=torch.float64))
    save_tree(tmp_path / "torch", {"x": torch.arange(3.0)})
    assert_same(io.load(tmp_path / "torch"), {"x": np.arange(3.0, dtype=np.float32)})


def test_tensors_that_numpy_lacks_and_that_share_memory(tmp_path: Path) -> None:
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    base = torch.arange(6.0).view(2, 3)
    save_tree(tmp_path / "t", {"half": half, "base": base, "view": base.t(), "again": base})
    got = load_tree(tmp_path / "t")
    assert torch.equal(got["half"], half)
    assert torch.equal(got["view"], base.t())
    assert torch.equal(got["again"], base)
    with pytest.raises(io.FileError, match="not a whole safetensors file"):
        io.load(tmp_path / "t")


def test_arrays_have_readable_names_and_no_two_the_same(tmp_path: Path) -> None:
    entry = np.ones(1)
    io.save(tmp_path / "t", {"a": {"b": entry}, "a.b": entry, "list": [entry]})
    assert sorted(safetensors.numpy.load_file(tmp_path / "t")) == ["a.b", "a.b#2", "list.0"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {1, 2}}, "a must be an array or a plain value, got set"),
        ({"a": [object()]}, "a.0 must be an array or a plain value, got object"),
        ({"a": np.array(["text"])}, "a must be a boolean or numeric array, got dtype <U4"),
        ({frozenset(): 1}, "keys of tree must be plain values, got frozenset"),
        (torch.ones(1), "tree must be an array or a plain value, got Tensor"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path, tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        io.save(tmp_path / "t", tree)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io.save(tmp_path / "t", {"version": 1})

    def fails(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        io.save(tmp_path / "t", {"version": 2})
    assert io.load(tmp_path / "t") == {"version": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_what_cannot_be_written_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    for path, error in (
        (tmp_path / "no" / "m", FileNotFoundError),
        (tmp_path / "folder", IsADirectoryError),
        (tmp_path / "file" / "m", NotADirectoryError),
    ):
        with pytest.raises(error) as caught:
            io.save(path, {})
        assert caught.value.filename == str(path)
        assert caught.value.filename2 is None
        assert str(caught.value).endswith(f": {str(path)!r}")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def with_metadata(text: str | None) -> bytes:
    metadata = None if text is None else {"unrolled": text}
    return safetensors.numpy.save({"x": np.ones(2)}, metadata)


def structured(tree: Any, version: int = 1) -> bytes:
    return with_metadata(json.dumps({"version": version, "tree": tree}))


INTACT = structured({"array": "x"})
DAMAGED = {
    "empty": b"",
    "short": b"\x01\x02",
    "text": b"import antigravity\n" * 20,
    "pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins.",
    "zip": b"PK\x03\x04" + bytes(200),
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "header cut": INTACT[:40],
    "data cut": INTACT[:-1],
    "data added": INTACT + b"\0",
    "header garbled": INTACT[:9] + b"\xff" + INTACT[10:],
    "foreign": with_metadata(None),
    "structure is no JSON": with_metadata("{"),
    "structure is a list": with_metadata("[]"),
    "structure without a version": with_metadata("{}"),
    "version of the future": structured(None, version=2),
    "array missing": structured({"array": "y"}),
    "tag unknown": structured({"pickle": "x"}),
    "two tags": structured({"array": "x", "tuple": []}),
    "tuple of a number": structured({"tuple": 3}),
    "key cannot be a key": structured({"items": [[[1], 2]]}),
    "float is a word": structured({"float": "many"}),
    "one of many keys twice": with_metadata(
        "{" + ", ".join(f'"{k}": 0' for k in [*range(50_000), 49_999]) + "}"
    ),
    "nested too deep": with_metadata(
        '{"version": 1, "tree": ' + "[" * 100_000 + "]" * 100_000 + "}"
    ),
}


@pytest.mark.parametrize("load", [io.load, load_tree])
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_raises_with_its_name(tmp_path: Path, data: bytes, load: Any) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(io.FileError, match=r"bad\.safetensors: \w+") as caught:
        load(path)
    assert caught.value.path == path


@pytest.mark.parametrize("cut", range(0, len(INTACT), 7))
def test_every_truncated_file_raises(tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut").write_bytes(INTACT[:cut])
    with pytest.raises(io.FileError, match="cut: not a whole safetensors file"):
        io.load(tmp_path / "cut")


def test_missing_files_and_folders_raise(tmp_path: Path) -> None:
    with pytest.raises(io.FileError, match="absent: No such file"):
        io.load(tmp_path / "absent")
    with pytest.raises(io.FileError, match="Is a directory"):
        io.load(tmp_path)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(data)
    with pytest.raises(io.FileError):
        io.load(path)
