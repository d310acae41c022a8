"""The reader of models in C++ (csrc/model) against the schema of exported files, field by field."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.support.c_steps import error_of_steps, run_steps
from tests.support.paths import STEPS
from tests.support.runtime_models import random
from unrolled import io
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.nn import GRU
from unrolled.runtime import _schema as schema

pytestmark = pytest.mark.skipif(not STEPS.exists(), reason="`make capi` builds what is tested")

NOT_IN_C = {"words": schema.WordsBlock, "forecast": schema.ForecastBlock}
WITHOUT_C = {"AttentionBlock", "TranslatorModel", "WordsBlock", "ForecastBlock"}
WRONG = {"no": "value of this field"}


def _attention() -> SequenceModel:
    return SequenceModel(
        11, 4, hidden_size=5, input="embedding", embedding_size=3, cell="GRU", pooling="attention",
        initial="learned",
    )  # fmt: skip


SCALE = {"mean": np.array([3.0, -1e3, 0.1]), "deviation": np.array([0.3, 7.0, 1e-3])}
FILES: dict[str, Callable[[Path], None]] = {
    "attention": lambda path: export(random(_attention().eval()), path),
    "scale": lambda path: export(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), path, codec=SCALE),
    "quantized": lambda path: export(nn.Sequential(GRU(3, 5)), path, weights="int8"),
}


def _class_of(values: dict[str, Any]) -> type | None:
    """The dataclass that a dictionary of a file stands for."""
    if "blocks" in values:
        return schema.ChainModel
    if "kept" in values:
        return schema.QuantizedWeight
    if "program" in values:
        return schema.LayerDirection
    name = values.get("block")
    for entry in vars(schema).values():
        if name is not None and is_dataclass(entry) and vars(entry).get("block") == name:
            return entry
    return None


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | tuple):
        for child in children:
            yield from _dictionaries(child)


def _described(tree: Any) -> list[tuple[dict[str, Any], type]]:
    """The dictionaries of a file that the schema describes."""
    pairs = ((values, _class_of(values)) for values in _dictionaries(tree))
    return [(values, schema_class) for values, schema_class in pairs if schema_class is not None]


def _cases(name: str, folder: Path) -> list[tuple[int, str]]:
    """Each dictionary and field of a file, each class once."""
    path = folder / name
    FILES[name](path)
    described, visited, cases = _described(io.load(path)), set(), []
    for index, (_, schema_class) in enumerate(described):
        if schema_class not in visited:
            visited.add(schema_class)
            cases += [(index, entry.name) for entry in fields(schema_class)]
    return cases


def _accepts(path: Path, tree: Any) -> bool:
    io.save(path, tree)
    try:
        run_steps(path, 1, b"")
    except subprocess.CalledProcessError:
        return False
    return True


def _field(schema_class: type, name: str) -> Field[Any]:
    return next(entry for entry in fields(schema_class) if entry.name == name)


@pytest.mark.parametrize("name", FILES)
def test_the_reader_knows_each_field(name: str, tmp_path: Path) -> None:
    """A value of a wrong type is refused, but in fields that readers skip; a field without a
    default must be there."""
    path = tmp_path / "m"
    cases = _cases(name, tmp_path)
    assert _accepts(path, io.load(tmp_path / name))
    for index, field_name in cases:
        tree = io.load(tmp_path / name)
        values, schema_class = _described(tree)[index]
        entry, label = _field(schema_class, field_name), f"{schema_class.__name__}.{field_name}"
        informative = bool(entry.metadata.get("informative"))
        values[field_name] = WRONG
        assert _accepts(path, tree) == informative, f"{label} of a wrong type"
        del values[field_name]
        required = entry.default is MISSING and not informative
        if required or entry.metadata.get("optional"):
            is_int8 = schema_class is schema.QuantizedWeight and field_name == "largest"
            assert _accepts(path, tree) != (required or is_int8), f"{label} is missing"


def test_all_classes_of_the_schema_are_tried(tmp_path: Path) -> None:
    tried = set()
    for name, write in FILES.items():
        write(tmp_path / name)
        tried |= {schema_class.__name__ for _, schema_class in _described(io.load(tmp_path / name))}
    with_fields = {
        entry.__name__ for entry in vars(schema).values() if is_dataclass(entry) and fields(entry)
    }
    # An activation is a name only; a file's own fields are tested in test_c_interface.
    assert with_fields - tried == WITHOUT_C | {"ActivationBlock", "ExportedFile"}


@pytest.mark.parametrize("block", NOT_IN_C)
def test_blocks_that_the_reader_does_not_support_are_named(block: str, tmp_path: Path) -> None:
    FILES["scale"](tmp_path / "m")
    tree = io.load(tmp_path / "m")
    tree["blocks"].append({"block": block})
    io.save(tmp_path / "m", tree)
    assert f"{block}: not in the C interface" in error_of_steps(tmp_path / "m")[1]
