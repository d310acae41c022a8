"""Damaged files are refused with a message that names the field; files are written as read."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.damaged_models import DAMAGES, FORECASTS, QUANTIZED, TRANSLATORS, WORDS
from tests.support.paths import GOLDEN
from unrolled import io
from unrolled.export import export
from unrolled.models import EncoderDecoder, Tagger
from unrolled.nn import GRU
from unrolled.runtime import Model, load
from unrolled.runtime._decode import decode_file
from unrolled.runtime._encode import encode_file
from unrolled.runtime._schema import ChainModel, LayerDirection, RecurrentBlock
from unrolled.tasks._forecasting import Forecaster


def check_refusal(
    module: nn.Module, damage: Any, message: str, folder: Path, **options: Any
) -> None:
    """A damage is reported in one line that names the file and the fault."""
    path = folder / "m.safetensors"
    export(module, path, **options)
    tree = io.load(path)
    damage(tree)
    io.save(path, tree)
    with pytest.raises(io.FileError) as raised:
        load(path)
    line = str(raised.value)
    assert re.search(
        rf"m\.safetensors: holds no model that this version reads \(.*{message}", line
    ), line
    assert "\n" not in line


@pytest.mark.parametrize(("message", "damage"), DAMAGES)
def test_a_damaged_file_is_reported(message: str, damage: Any, tmp_path: Path) -> None:
    check_refusal(nn.Sequential(GRU(3, 5), nn.Linear(5, 2)), damage, message, tmp_path)


@pytest.mark.parametrize(("message", "damage"), WORDS)
def test_a_damaged_tagger_is_reported(message: str, damage: Any, tmp_path: Path) -> None:
    check_refusal(Tagger(5, 6, 3, hidden_size=4, embedding_size=4), damage, message, tmp_path)


@pytest.mark.parametrize(("message", "damage"), FORECASTS)
def test_a_damaged_forecaster_is_reported(message: str, damage: Any, tmp_path: Path) -> None:
    scale = {"mean": torch.ones(2), "deviation": torch.ones(2)}
    check_refusal(Forecaster(2, 2, 3, hidden_size=4), damage, message, tmp_path, codec=scale)


@pytest.mark.parametrize(("message", "damage"), TRANSLATORS)
def test_a_damaged_translator_is_reported(message: str, damage: Any, tmp_path: Path) -> None:
    model = EncoderDecoder(5, 7, hidden_size=4, num_layers=2, embedding_size=3)
    check_refusal(model, damage, message, tmp_path)


@pytest.mark.parametrize(("message", "damage"), QUANTIZED)
def test_a_damaged_quantized_weight_is_reported(message: str, damage: Any, tmp_path: Path) -> None:
    chain = nn.Sequential(GRU(3, 5), nn.Linear(5, 2))
    check_refusal(chain, damage, message, tmp_path, weights="int8")


def test_a_few_lines_do_not_take_all_memory() -> None:
    """Of a program far wider than its arrays."""
    wide = "unrolled-program 1\nstate H\n" + "state 8388608\n" * 64
    wide += f"input 1 H\nnode x H 0\nnode state 8388608 1\nforward 0 {'1 ' * 64}\n"
    wide += f"stored\nsource\ndx -\ndstate {'- ' * 65}\ndvector\n"
    direction = LayerDirection("", wide, (2, 3, 3), (np.ones((3, 2), np.float32), None))
    with pytest.raises(ValueError, match="program: memory and work must be at most what 24 bytes"):
        Model(ChainModel((RecurrentBlock(((direction,),)),)))


INFORMATIVE = ("cell", "states")  # written for people and ONNX, not read


def without_informative(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: without_informative(v) for k, v in tree.items() if k not in INFORMATIVE}
    if isinstance(tree, list | tuple):
        return type(tree)(without_informative(value) for value in tree)
    return (tree.dtype, tree.tolist()) if isinstance(tree, np.ndarray) else tree


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_file_is_written_as_it_was_read(path: Path) -> None:
    """Version, keys, types and arrays; quantized weights to the bit."""
    tree = io.load(path)
    assert without_informative(encode_file(decode_file(tree))) == without_informative(tree)
