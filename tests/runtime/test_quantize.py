"""A quantized file gives the bits of a float32 file that is quantized when it is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.runtime_models import exported, random, run_reference
from tests.support.tolerances import close, tolerance_of_bfloat16_weights
from unrolled import cells
from unrolled.export import export
from unrolled.models import EncoderDecoder, SequenceModel
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.runtime import load
from unrolled.runtime._quantize import dequantize, quantize

MODULES: dict[str, Any] = {
    "lstm": lambda: nn.Sequential(LSTM(7, 33, num_layers=2, proj_size=5), nn.Linear(5, 70)),
    "gru": lambda: GRU(5, 100, bidirectional=True),
    "slstm": lambda: Recurrent(cells.SLSTM, 5, 12),
    "mgu": lambda: Recurrent(cells.MGU, 6, 9),
    "attention": lambda: SequenceModel(
        5, 3, hidden_size=9, input="numbers", pooling="attention", bidirectional=True
    ),
}


def with_rows_of_all_sizes(module: nn.Module, seed: int) -> nn.Module:
    """Rows of very different size."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
            size = 10 ** torch.empty(len(parameter)).uniform_(-6, 0)
            parameter *= size.view(-1, *[1] * (parameter.dim() - 1))
    return module


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", MODULES)
def test_a_quantized_file_has_the_bits_of_a_dense_one(
    name: str, weights: str, tmp_path: Path
) -> None:
    for seed in range(4):
        module = with_rows_of_all_sizes(MODULES[name](), seed).eval()
        export(module, tmp_path / "dense_file")
        export(module, tmp_path / "quantized", weights=weights)
        dense_file, quantized = (
            load(tmp_path / "dense_file", weights=weights),
            load(tmp_path / "quantized"),
        )
        x = np.random.default_rng(seed).standard_normal((9, 3, dense_file.inputs or 1), np.float32)
        output = quantized.run(x)
        assert np.array_equal(dense_file.run(x), output)
        full = load(tmp_path / "dense_file").run(x)
        assert not np.array_equal(full, output)
        # And in float32 it is what was rounded; beside int8, rows are rounded to 16 bits.
        in_float32 = load(tmp_path / "quantized", weights="float32").run(x)
        tolerance = tolerance_of_bfloat16_weights(1e-5) if weights == "bfloat16" else 1e-3
        assert np.abs(in_float32 - output).max() <= tolerance * max(1, np.abs(output).max())


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_what_lies_halfway_is_rounded_as_the_core_does(weights: str, tmp_path: Path) -> None:
    layer = RNN(64, 3)
    steps = torch.arange(-32, 32) + 0.5
    with torch.no_grad():
        # Half a step of bfloat16 above and below each number; of int8, a row's largest being 127.
        layer.weight_ih_l0.copy_(1 + steps / 128 if weights == "bfloat16" else steps)
        layer.weight_ih_l0[:, 0] = 127 if weights == "int8" else 1
        layer.weight_ih_l0[1] *= -1
    export(layer, tmp_path / "dense_file")
    export(layer, tmp_path / "quantized", weights=weights)
    x = np.eye(64, dtype=np.float32)[:, None] / 1024  # each column alone
    output = load(tmp_path / "quantized").run(x)
    assert np.array_equal(load(tmp_path / "dense_file", weights=weights).run(x), output)


def test_quantized_files_are_smaller(tmp_path: Path) -> None:
    sizes = {}
    for weights in ("float32", "bfloat16", "int8"):
        export(random(LSTM(100, 200)), tmp_path / weights, weights=weights)
        sizes[weights] = (tmp_path / weights).stat().st_size
    count = 4 * 200 * 300
    assert sizes["float32"] > 4 * count
    assert 2 * count < sizes["bfloat16"] < 2.1 * count
    assert count < sizes["int8"] < 1.1 * count


def test_a_translator_is_quantized_too(tmp_path: Path) -> None:
    model = with_rows_of_all_sizes(EncoderDecoder(9, 9, hidden_size=16), 1)
    for weights in ("bfloat16", "int8"):
        export(model, tmp_path / "dense_file")
        export(model, tmp_path / "quantized", weights=weights)
        tokens = np.random.default_rng(2).integers(0, 9, (6, 4))
        dense_file, quantized = (
            load(tmp_path / "dense_file", weights=weights),
            load(tmp_path / "quantized"),
        )
        assert dense_file.run(tokens, limit=9) == quantized.run(tokens, limit=9)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_dequantized_weight_is_quantized_to_the_same(weights: str) -> None:
    """Numbers of every size, ties, zeros; and always as near as half a step."""
    chance = np.random.default_rng(3)
    for size in 10.0 ** chance.uniform(-30, 37, 400):
        weight = (chance.standard_normal((5, 7)) * size).astype(np.float32)
        weight[1, :] = 0
        weight[2] = np.float32(size) * (np.arange(7) / 254).astype(np.float32)
        weight[3, 2:] *= np.float32(1e-3)
        quantized = quantize(weight, weights)
        assert quantized is not None
        dense = dequantize(quantized)
        requantized = quantize(dense, weights)
        assert requantized is not None
        assert np.array_equal(quantized.values, requantized.values)
        if weights == "int8":
            assert quantized.largest is not None
            assert np.array_equal(quantized.largest, requantized.largest)
        step = np.abs(weight).max(1) / 127 if weights == "int8" else np.abs(weight).T / 128
        assert (0.5001 * step >= np.abs(dense - weight).T).all()


def test_a_weight_that_int8_cannot_express_stays_in_float32() -> None:
    for value in (np.nan, np.inf, 1e-44):
        weight = np.ones((2, 3), np.float32)
        weight[1] = value
        assert quantize(weight, "int8") is None
    assert quantize(np.full((2, 3), np.nan, np.float32), "bfloat16") is None


@pytest.mark.parametrize(("weights", "max_error"), [("bfloat16", 0.02), ("int8", 0.02)])
def test_low_precision_weights_are_near(weights: str, max_error: float, tmp_path: Path) -> None:
    """bfloat16 rounds to 1 part in 256, int8 to half a 127th of a row's largest."""
    layer = LSTM(20, 64)
    x = np.random.default_rng(7).standard_normal((30, 2, 20), np.float32)
    full = exported(layer, tmp_path).run(x)
    close(torch.from_numpy(full), run_reference(layer, x)[0], "output")
    error = np.abs(exported(layer, tmp_path, weights=weights).run(x) - full).max()
    assert 1e-6 < error < max_error


def as_whole(x: np.ndarray, fused: bool) -> np.ndarray:
    """Each row of x rounded to 16 bits, as the core does it: in float32, so that ties fall to the
    same side; on some processors in one operation with the half that is added."""
    largest = np.abs(x).max(-1, keepdims=True)
    largest[largest == 0] = 1
    steps = (np.float32(32767) / largest).astype(float) * x
    steps = steps if fused else steps.astype(np.float32)
    return np.trunc((steps + np.copysign(0.5, x)).astype(np.float32)) * (largest / 32767.0)


def as_tiny(weight: np.ndarray) -> np.ndarray:
    """Each row rounded to 8 bits."""
    scale = np.abs(weight).max(-1, keepdims=True) / np.float32(127)
    return np.rint(weight / scale) * scale.astype(float)


@pytest.mark.parametrize("I", [1, 7, 40, 1100])
def test_int8_is_a_product_of_rounded_numbers(I: int, tmp_path: Path) -> None:  # noqa: E741
    """Weights of 8 bits, by row; inputs and states of 16 bits, by blocks of 512."""
    layer = random(RNN(I, 5))
    export(layer, tmp_path / "m")
    chance = np.random.default_rng(8)
    x = chance.standard_normal((1, 9, I)).astype(np.float32)
    h = chance.uniform(-1, 1, (9, 5)).astype(np.float32)
    x[0, 0, : I // 2], h[0] = 0, 0
    output = torch.from_numpy(load(tmp_path / "m", weights="int8").run(x, state=[[(h,)]])[0])
    parameters = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    truths = []
    for fused in (True, False):
        blocks = [as_whole(x[0, :, k : k + 512], fused) for k in range(0, I, 512)]
        sums = np.concatenate(blocks, -1) @ as_tiny(parameters["weight_ih_l0"]).T
        sums += as_whole(h, fused) @ as_tiny(parameters["weight_hh_l0"]).T
        sums += parameters["bias_ih_l0"].astype(float) + parameters["bias_hh_l0"]
        truths.append(torch.from_numpy(np.tanh(sums)))
    close(output, min(truths, key=lambda truth: (output - truth).abs().max().item()), "output")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_nan_reach_their_own_row_only(value: float, tmp_path: Path) -> None:
    layer = random(RNN(3, 4))
    export(layer, tmp_path / "m", weights="int8")
    x = np.ones((1, 3, 3), np.float32)
    x[0, 1, 2] = value
    output = np.isnan(load(tmp_path / "m").run(x)[0])
    assert output.tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_keeps_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    layer = RNN(3, 4)
    with torch.no_grad():
        layer.weight_ih_l0[1, 2] = value
    export(layer, tmp_path / "m", weights="int8")
    output = load(tmp_path / "m").run(np.ones((1, 1, 3), np.float32))[0, 0]
    assert np.isnan(output).tolist() == [False, True, False, False]
