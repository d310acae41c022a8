"""Block-diagonal products in the core: the numbers and gradients of dense matrices with zeros."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.support.block_cells import Heads
from tests.support.tolerances import assert_equal, close
from unrolled import _core, engines, io
from unrolled.engines._native.fast_path import fast_sweeps
from unrolled.export import export
from unrolled.nn import Recurrent
from unrolled.runtime import load

SIZES = [(12, 2), (12, 3), (12, 12), (20, 2), (20, 4), (48, 3), (48, 8), (96, 4), (96, 8), (512, 4)]
"""[H, blocks]: blocks of 1 to 128 units, multiples of a vector or not."""
CALLS = [(1, 1), (1, 2), (3, 1), (2, 4), (5, 3), (4, 7), (9, 40)]
"""[T, N]: few tokens, which read weights unpacked, rows of whole tiles and others."""
I = 24  # noqa: E741


def expand(weight: Tensor, parts: int, blocks: int) -> Tensor:
    """The dense matrix of a weight [parts * width, K / blocks]."""
    return torch.cat([torch.block_diag(*part.chunk(blocks)) for part in weight.chunk(parts)])


def compact(weight: Tensor, parts: int, blocks: int) -> Tensor:
    """The blocks on the diagonals of a dense matrix."""
    K = weight.shape[1] // blocks
    rows = [part.chunk(blocks) for part in weight.chunk(parts)]
    return torch.cat(
        [block[:, k * K : (k + 1) * K] for part in rows for k, block in enumerate(part)]
    )


def forms(layer: Recurrent) -> dict[str, tuple[int, int]]:
    """Parts and blocks of each weight."""
    products = layer.cell.products(layer.spec.sizes(0))
    short = {"input": "ih", "recurrent": "hh"}
    return {f"weight_{short.get(key, key)}_l0": (p.parts, p.blocks) for key, p in products.items()}


def pair(H: int, dtype: torch.dtype, *blocks: int) -> tuple[Recurrent, Recurrent]:
    """A layer with blocks, and the dense one with the same numbers in float64."""
    torch.manual_seed(H)
    layer = Recurrent(Heads(*blocks), I, H, dtype=dtype)
    dense = Recurrent(Heads(), I, H, dtype=torch.float64)
    shapes = forms(layer)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            value = expand(parameter, *shapes[name]) if name in shapes else parameter
            dense.get_parameter(name).copy_(value)
    return layer, dense


def run(layer: Recurrent, x: Tensor, h: Tensor, **options: Any) -> list[Tensor]:
    """Output, final state, and the gradients of x, h and the parameters."""
    x, h = (v.to(layer.weight_hh_l0.dtype).requires_grad_() for v in (x, h))
    output, final = layer(x, h, **options)
    scale = torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype)
    loss = (output * scale).sum() + (final * scale.flip(0)).sum()
    return [output, final, *torch.autograd.grad(loss, [x, h, *layer.parameters()])]


def compare(layer: Recurrent, dense: Recurrent, x: Tensor, h: Tensor, **options: Any) -> None:
    """Compare a layer with the dense one, and inference with training."""
    shapes = forms(layer)
    actual, expected = run(layer, x, h, **options), run(dense, x, h, **options)
    names = ["output", "final", "x", "h", *(name for name, _ in layer.named_parameters())]
    for name, a, e in zip(names, actual, expected, strict=True):
        e = compact(e, *shapes[name]) if name in shapes else e
        close(a, e.to(a.dtype), "output" if name in ("output", "final") else "random", name)
    with torch.no_grad():
        output, _ = layer(x.to(actual[0].dtype), h.to(actual[0].dtype), **options)
    assert_equal(output, actual[0].detach(), "output without gradient")


def data(T: int, N: int, H: int) -> tuple[Tensor, Tensor]:
    return torch.randn(T, N, I).double(), torch.randn(1, N, H).double()


@pytest.mark.parametrize("build", _core.builds())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("H", "blocks"), SIZES)
def test_blocks_compute_what_the_dense_matrices_compute(
    H: int, blocks: int, dtype: torch.dtype, build: str
) -> None:
    layer, dense = pair(H, dtype, blocks)
    for T, N in CALLS if H < 512 else CALLS[-2:]:
        with engines.use_build(build):
            compare(layer, dense, *data(T, N, H))


@pytest.mark.parametrize("build", _core.builds())
@pytest.mark.parametrize(("H", "input_blocks"), [(12, 3), (48, 2), (48, 8), (96, 12)])
def test_blocks_of_the_input_product(H: int, input_blocks: int, build: str) -> None:
    layer, dense = pair(H, torch.float64, 2, input_blocks)
    for T, N in [(1, 1), (3, 2), (4, 7), (9, 40)]:
        with engines.use_build(build):
            compare(layer, dense, *data(T, N, H))


@pytest.mark.parametrize(("H", "blocks"), [(20, 2), (96, 8)])
def test_lengths_and_resets(H: int, blocks: int) -> None:
    layer, dense = pair(H, torch.float64, blocks)
    T, N = 7, 11
    lengths = torch.randint(0, T + 1, (N,))
    resets = torch.rand(T, N) < 0.3
    for options in ({"lengths": lengths}, {"resets": resets}):
        compare(layer, dense, *data(T, N, H), **options)


@pytest.mark.parametrize("build", _core.builds())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("H", "blocks"), [(12, 3), (12, 12), (20, 2), (36, 4), (48, 8), (96, 3), (96, 4)]
)
def test_half_precision(H: int, blocks: int, dtype: torch.dtype, build: str) -> None:
    layer, dense = pair(H, dtype, blocks, 2)
    shapes = forms(layer)
    for T, N in CALLS:
        x, h = (v.to(dtype) for v in data(T, N, H))
        names = ["output", "final", "x", "h", *(name for name, _ in layer.named_parameters())]
        with engines.use_build(build):
            actual = run(layer, x, h)
        for name, a, e in zip(names, actual, run(dense, x, h), strict=True):
            close(a, compact(e, *shapes[name]) if name in shapes else e, "random", name)


@pytest.mark.parametrize(("N", "H", "blocks"), [(40, 96, 4), (2, 512, 4), (3, 480, 5), (1, 512, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_number_of_threads(
    N: int, H: int, blocks: int, dtype: torch.dtype
) -> None:
    layer, _ = pair(H, dtype, blocks)
    x, h = data(20, N, H)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(layer, x, h))
    torch.set_num_threads(1)
    for other in results[1:]:
        for k, (a, b) in enumerate(zip(results[0], other, strict=True)):
            assert_equal(a, b, f"result {k}")


def test_calls_take_the_fast_path_and_hold_no_dense_matrix() -> None:
    layer = Recurrent(Heads(4), I, 96)
    x = torch.randn(3, 2, I)
    with torch.no_grad(), engines.record() as ran:
        layer(x)
    assert set(ran) == {"native"}
    assert fast_sweeps(layer.spec, False)
    layer(x)[0].sum().backward()
    assert layer.weight_hh_l0.grad is not None
    assert layer.weight_hh_l0.grad.shape == (4 * 96, 24)


def test_gradients_of_each_sample() -> None:
    layer, _ = pair(20, torch.float64, 2)
    parameters = dict(layer.named_parameters())
    x = torch.randn(4, 6, I).double()

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output, _ = torch.func.functional_call(layer, parameters, (x[:, None],))
        return output.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x)
    for n in range(x.shape[1]):
        output, _ = layer(x[:, n : n + 1])
        expected = torch.autograd.grad(output.square().sum(), list(parameters.values()))
        for (name, value), e in zip(each.items(), expected, strict=True):
            close(value[n], e, "gradient", name)


def test_second_derivatives() -> None:
    layer, dense = pair(12, torch.float64, 3)
    x = torch.randn(2, 2, I).double().requires_grad_()

    def second(layer: Recurrent) -> Tensor:
        (first,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        (result,) = torch.autograd.grad(first.square().sum(), x)
        return result

    close(second(layer), second(dense), "gradient")


def test_compiled_and_exported_graphs_have_the_bits_of_eager_mode() -> None:
    torch._dynamo.reset()
    layer = Recurrent(Heads(4, 2), I, 20)
    x = torch.randn(3, 5, I)
    expected = layer(x)
    for graph in (
        torch.compile(layer, backend="aot_eager", fullgraph=True),
        torch.export.export(layer, (x,)).module(),
    ):
        for a, e in zip(graph(x), expected, strict=True):
            assert_equal(a, e)


def test_flops_count_the_blocks() -> None:
    counts = []
    for blocks in (1, 4):
        layer = Recurrent(Heads(blocks), I, 96)
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(3, 2, I))
        counts.append(counter.get_total_flops())
    of_products = 2 * 3 * 2 * (6 * 96 * 96 + 2 * 24 * 96)
    assert counts[0] - counts[1] == of_products * 3 // 4


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("H", "blocks"), [(12, 3), (20, 2), (96, 4)])
def test_files_streams_and_whole_sequences(
    H: int, blocks: int, weights: str, tmp_path: Path
) -> None:
    layer, _ = pair(H, torch.float32, blocks, 2)
    path = tmp_path / "m.safetensors"
    export(layer, path, weights=weights)
    tree = io.load(path)
    assert tree["version"] == 3
    model = load(path)
    x = torch.randn(9, 3, I)
    whole = model.run(x.numpy())
    with torch.no_grad():
        tolerance = {"float32": 1e-6, "bfloat16": 2e-2, "int8": 4e-2}[weights]
        torch.testing.assert_close(torch.from_numpy(whole), layer(x)[0], rtol=0, atol=tolerance)
    for stream in (model.stream(3), layer.stream(3, weights)):
        steps = np.stack([stream.step(row).copy() for row in x.numpy()])
        assert (steps == whole).all()
    assert tree["blocks"][0]["layers"][0][0]["program"].startswith("unrolled-program 2\n")
