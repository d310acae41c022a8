"""Sizes by letter: I, H, P and numbers, wherever a declaration may have a size, on both engines
that run any cell, and in every file that a layer can become."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.onnx_files import Batch, check_layer, exported_session
from tests.support.runtime_models import exported, random, run_reference, steps
from tests.support.subjects import gradients, pack, random_like, run, states, tokens, unpack
from tests.support.tolerances import close
from unrolled import engines
from unrolled.cells import Cell, CellError, mean, product, sigmoid, tanh, vector
from unrolled.nn import Recurrent, RecurrentCell

LETTERS = ("I", "H", "P", 3)
T, N, I, H = 4, 3, 5, 7  # noqa: E741


class Wide(Cell):
    """The output, the input's product and the recurrent one are as wide as the input."""

    widths = {"h": "I"}  # noqa: RUF012
    input = product(width="I")
    recurrent = product(width="I", bias=False)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x + h) + 0.3 * mean(state.h)


class Beside(Cell):
    """A state, a vector and products of the input's width beside one of H units."""

    gates = ("a", "b")
    states = ("h", "s")
    widths = {"s": "I"}  # noqa: RUF012
    v = vector("I")
    write = product("k", "l", source="P", width="I")
    read = product(source="I", bias=False)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        actual = self.write(state.h)
        s = sigmoid(actual.k * self.v) * state.s + tanh(actual.l)
        return tanh(x.a + h.b + self.read(s)), s


def _cell(source: int | str, width: int | str, size: int | str) -> type[Cell]:
    """A cell whose own product and vector have these sizes; the projection P applies to it too."""

    class Sized(Cell):
        states = ("h", "s")
        widths = {"s": size}  # noqa: RUF012
        to_source = product(width=source, source="P")
        layer_product = product(source=source, width=width)
        to_state = product(source=width, width=size)
        back = product(source=size)
        scale = vector(size)

        def step(self, x: Any, h: Any, state: Any) -> Any:
            u = tanh(self.layer_product(sigmoid(self.to_source(state.h))))
            s = 0.5 * state.s * self.scale + tanh(self.to_state(u))
            return tanh(x + h + self.back(s)), s

    return Sized


SIZED = list(itertools.product(LETTERS, repeat=3))


@pytest.mark.parametrize("sizes", SIZED[::3], ids=str)
@pytest.mark.parametrize("projection", [0, 2])
def test_every_size(sizes: Any, projection: int) -> None:
    torch.manual_seed(0)
    layer = random(Recurrent(_cell(*sizes), I, H, proj_size=projection)).double()
    _agree_with_differences(layer)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("cell", [Wide, Beside])
def test_widths_of_the_input_in_a_stack(cell: type[Cell], options: Any) -> None:
    if cell is Beside and "num_layers" in options:
        options = {"num_layers": 2, "proj_size": I}
    layer = random(Recurrent(cell, I, H, **options)).double()
    assert layer.spec.state_widths[-1] == I
    _agree_with_differences(layer)


def _agree_with_differences(layer: Recurrent) -> None:
    """Values and gradients of the native engine: the reference's, and finite differences."""
    x, hx = tokens(T, N, I), states(layer, N)
    leaves = [x, *hx, *layer.parameters()]

    def call() -> tuple[torch.Tensor, ...]:
        return run(layer, x, pack(hx), lengths=[T, 1, 2])

    with engines.use("native"):
        actual = call()
    exact = gradients(actual, leaves)
    with engines.use("reference"):
        expected = call()
    for mine, reference in zip(actual, expected, strict=True):
        close(mine, reference, "output")
    for mine, reference in zip(exact, gradients(expected, leaves), strict=True):
        close(mine, reference, "gradient")
    torch.manual_seed(1)
    along = [torch.randn_like(leaf) for leaf in leaves]
    weights = random_like(actual)

    @torch.no_grad()
    def moved(step: float) -> float:
        for leaf, direction in zip(leaves, along, strict=True):
            leaf += step * direction
        return sum(float((p * w).sum()) for p, w in zip(call(), weights, strict=True))

    difference = (moved(1e-6) - moved(-2e-6)) / 2e-6
    derivative = sum(float((g * d).sum()) for g, d in zip(exact, along, strict=True))
    assert difference == pytest.approx(derivative, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("cell", [Wide, Beside])
def test_one_step(cell: type[Cell]) -> None:
    step = random(RecurrentCell(cell, I, H))
    x = torch.randn(N, I)
    actual = step(x)
    with engines.use("reference"):
        expected = step(x)
    for mine, reference in zip(unpack(actual), unpack(expected), strict=True):
        close(mine, reference, "output")


@pytest.mark.parametrize("cell", [Wide, Beside])
def test_compiled(cell: type[Cell]) -> None:
    layer = random(Recurrent(cell, I, H)).double()
    x = tokens(T, N, I)
    actual = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0]
    expected = layer(x)[0]
    close(actual, expected, "output")
    leaves = [x, *layer.parameters()]
    result = torch.autograd.grad(actual, leaves, *random_like([actual]))
    for mine, reference in zip(result, gradients([expected], leaves), strict=True):
        close(mine, reference, "gradient")


@pytest.mark.parametrize("cell", [Wide, Beside, _cell("I", 3, "P"), _cell(3, "I", "I")])
def test_exported_run_and_stepped(cell: type[Cell], tmp_path: Path) -> None:
    layer = random(Recurrent(cell, I, H))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(0).standard_normal((9, 4, I), np.float32)
    actual = model.run(x)
    close(torch.from_numpy(actual), run_reference(layer, x)[0], "output")
    assert np.array_equal(steps(model, x, 4), actual)


@pytest.mark.parametrize("cell", [Wide, Beside, _cell("I", 3, "P"), _cell(3, "I", "I")])
def test_exported_to_onnx(cell: type[Cell], tmp_path: Path) -> None:
    layer = random(Recurrent(cell, I, H, bidirectional=True))
    run_file = exported_session(layer, tmp_path, lengths=True, states=True)
    check_layer(layer, run_file, Batch.of(layer, 7, 3, lengths=True, states=True), exact=False)


def test_states_of_several_widths_are_refused() -> None:
    message = "state 's' must have one width in all layers, got 5 units in the first and 7"
    with pytest.raises(CellError, match=message):
        Recurrent(Beside, I, H, num_layers=2)
    with pytest.raises(CellError, match="num_layers must be 1, or input_size 10"):
        Recurrent(Wide, I, H, num_layers=2, bidirectional=True)


def test_a_step_that_fits_the_first_layer_alone_is_refused() -> None:
    class Joined(Cell):
        input = product(width="I")

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return tanh(x + h)

    Recurrent(Joined, H, H)
    with pytest.raises(CellError, match="step fails on states of widths"):
        Recurrent(Joined, H, H, num_layers=2, bidirectional=True)
