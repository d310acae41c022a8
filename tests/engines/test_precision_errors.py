"""Every published cell in bfloat16 against float64 on the rounded weights and data."""

import copy
import inspect
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.tolerances import close
from tests.support.weights import flat
from unrolled import _core, cells, engines, nn
from unrolled.cells import _bound
from unrolled.engines import use_build

BUILDS = [build for build in _core.builds() if _core.multiplies_bfloat16(build)]
PUBLISHED = [
    name
    for name, cell in vars(cells).items()
    if inspect.isclass(cell) and issubclass(cell, cells.Cell) and cell is not cells.Cell
]
SENSITIVE = {"ExpRNN": ("random", "stepwise gradient"), "LayerNormLSTM": ("random", "random")}
"""A matrix exponential in float32 is rounded as well; normalization magnifies small sums."""
SIZES = [(1, 1, 1, 1), (6, 9, 3, 7), (9, 4, 33, 33), (3, 2, 16, 64)]  # T, N, I, H
CASES = [
    (name, size)
    for name in PUBLISHED
    for size in SIZES
    if name != "SLSTM" or size[3] % 4 == 0  # its four heads divide the units
]


def results(layer: Any, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and final states; gradients of all parameters and the input."""
    x = x.detach().requires_grad_()
    parts = flat(layer(x))
    torch.manual_seed(2)
    seeds = [torch.randn(part.shape).bfloat16().to(part.dtype) for part in parts]
    leaves = [x, *layer.parameters()]
    grads = torch.autograd.grad(parts, leaves, seeds, allow_unused=True)
    return parts, [grad for grad in grads if grad is not None]


@pytest.mark.sampled
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("name", "size"), CASES)
def test_published_cells(name: str, size: tuple[int, int, int, int], build: str) -> None:
    """The reference engine in bfloat16, which computes in float32, tells what rounding does to
    cells that pass on more than they got."""
    T, N, I, H = size  # noqa: E741
    torch.manual_seed(0)
    layer = nn.Recurrent(getattr(cells, name), I, H).bfloat16()
    x = torch.randn(T, N, I).bfloat16()
    with engines.use("reference"):
        expected = results(copy.deepcopy(layer).double(), x.double())
        rounded = results(layer, x)
    with use_build(build), engines.use("native"):
        actual = results(layer, x)
        for threads in (1, 3):
            old = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                again = results(layer, x)
            finally:
                torch.set_num_threads(old)
            for mine, other in zip(chain(*again), chain(*actual), strict=True):
                assert torch.equal(mine, other)
    labels = SENSITIVE.get(name, ("output", "gradient"))
    for kind, label in enumerate(labels):
        for k, mine in enumerate(actual[kind]):
            close(mine, expected[kind][k], label, f"{name} {label} {k}", rounded[kind][k])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_errors_are_smaller_than_those_of_torch(name: str, build: str) -> None:
    """Of output, final states and each gradient, as the root of the mean square over draws."""
    squares: dict[str, list[Tensor]] = {"ours": [], "torch": []}
    for seed in range(8):
        torch.manual_seed(seed)
        layer = getattr(nn, name)(33, 64).bfloat16()
        theirs = getattr(torch.nn, name)(33, 64).bfloat16()
        theirs.load_state_dict(layer.state_dict())
        x = torch.randn(20, 5, 33).bfloat16()
        with engines.use("reference"):
            expected = [*chain(*results(copy.deepcopy(layer).double(), x.double()))]
        with use_build(build), engines.use("native"):
            squares["ours"].append(relative_squares(chain(*results(layer, x)), expected))
        squares["torch"].append(relative_squares(chain(*results(theirs, x)), expected))
    rms = {library: torch.stack(errors).mean(0).sqrt() for library, errors in squares.items()}
    assert torch.all(rms["ours"] < rms["torch"]), rms


class RoundedProduct(torch.autograd.Function):
    """A product of operands rounded to bfloat16, forward and backward."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor) -> Tensor:
        operands = round_bfloat16(v), round_bfloat16(weight)
        ctx.save_for_backward(*operands)
        return operands[0] @ operands[1].t()

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor, Tensor]:
        v, weight = ctx.saved_tensors
        grad = round_bfloat16(output_grads[0])
        return grad @ weight, grad.flatten(0, -2).t() @ v.flatten(0, -2)


def round_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


def linear_of_rounded(v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = RoundedProduct.apply(v, weight)
    return product if bias is None else product + bias


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", SENSITIVE)
def test_large_errors_come_from_rounded_operands(
    name: str, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float64 that rounds nothing but the operands of products has the same errors."""
    squares: dict[str, list[Tensor]] = {"ours": [], "rounded": []}
    for seed in range(8):
        torch.manual_seed(seed)
        layer = nn.Recurrent(getattr(cells, name), 33, 64).bfloat16()
        exact = copy.deepcopy(layer).double()
        x = torch.randn(20, 5, 33).bfloat16()
        with engines.use("reference"):
            expected = [*chain(*results(exact, x.double()))]
            with monkeypatch.context() as patch:
                patch.setattr(_bound, "linear", linear_of_rounded)
                rounded = chain(*results(exact, x.double()))
        with use_build(build), engines.use("native"):
            squares["ours"].append(relative_squares(chain(*results(layer, x)), expected))
        squares["rounded"].append(relative_squares(rounded, expected))
    rms = {engine: torch.stack(errors).mean(0).sqrt() for engine, errors in squares.items()}
    assert torch.all(rms["ours"] < 1.15 * rms["rounded"]), rms
    assert torch.all(rms["ours"] > 0.85 * rms["rounded"]), rms


def relative_squares(actual: Iterable[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """The squared distance of each tensor, relative to its squared norm."""
    return torch.stack(
        [
            (a.double() - b).square().sum() / b.square().sum()
            for a, b in zip(actual, expected, strict=True)
        ]
    )


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("H", [1, 7, 33])
def test_a_sequence_s_infinities_reach_no_other(H: int, value: float, build: str) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, H).bfloat16()
    x = torch.randn(5, 9, 3).bfloat16()
    spoiled = x.clone()
    spoiled[2, 4] = value
    with use_build(build), torch.no_grad():
        clean, output = layer(x)[0], layer(spoiled)[0]
    others = [n for n in range(9) if n != 4]
    assert torch.equal(output[:, others], clean[:, others])
    assert torch.equal(output[:2], clean[:2])
