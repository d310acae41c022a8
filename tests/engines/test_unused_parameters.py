"""Gradients where a step does not use all of a cell: states, gates, products or vectors.

A parameter that the new states do not depend on has no gradient, on every way from a layer to the
core: never what its memory held before. Fresh memory is full of NaN here.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from tests.support.subjects import unpack
from tests.support.tolerances import close
from unrolled import engines, nn
from unrolled.cells import Cell, product, sigmoid, tanh, vector, where

pytestmark = pytest.mark.usefixtures("poisoned")


class FeedForward(Cell):
    """No state is read, and there is no product but the input's."""

    recurrent = None

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x)


class Gated(Cell):
    """As in a stack of convolutions; the recurrent product has parameters all the same."""

    gates = ("a", "g")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return sigmoid(x.g) * tanh(x.a)


class SRU(Cell):
    """As in Lei et al. 2018: the memory is carried on, the output is not read."""

    gates = ("z", "f", "r", "s")
    states = ("h", "c")
    recurrent = None
    v_f = vector()
    v_r = vector()

    def step(self, x: Any, h: Any, state: Any) -> Any:
        f = sigmoid(x.f + self.v_f * state.c)
        r = sigmoid(x.r + self.v_r * state.c)
        c = f * state.c + (1 - f) * x.z
        return r * c + (1 - r) * x.s, c


class Partial(Cell):
    """Of each kind of parameter some are used, some are not, one is compared alone."""

    gates = ("a", "b", "c")
    used = vector()
    unused = vector()
    compared = product(bias=False)
    left_out = product("k", "l")
    half_used = product("k", "l", width=3)
    back = product(source=3)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        chosen = where(self.compared(state.h) < 0.1, x.a, x.c)
        return tanh(chosen + h.b + self.used + self.back(self.half_used(state.h).k))


class WithoutInput(Cell):
    """The input is not read."""

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(0.5 * state.h + h)


CELLS = (FeedForward, Gated, SRU, Partial, WithoutInput)
Call = Callable[[nn.Recurrent, Tensor, Any], tuple[Tensor, ...]]


def _flat(actual: Any) -> tuple[Tensor, ...]:
    output, final = actual
    return (output if isinstance(output, Tensor) else output.data, *unpack(final))


def _resets(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0])[:, None] % 3 == torch.arange(x.shape[1])


def _checkpoint(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    layer.checkpoint = 2
    return _flat(layer(x, hx))


def _recorded(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    with engines.record():
        return _flat(layer(x, hx))


def _autocast(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    with torch.autocast("cpu", torch.bfloat16):
        return _flat(layer(x, hx))


def _packed(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    return _flat(layer(pack_padded_sequence(x, [5, 4, 2]), hx))


def _dropout(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    torch.manual_seed(4)
    layer.dropout = 0.5
    return _flat(layer(x, hx))


def _compiled(layer: nn.Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, ...]:
    return _flat(torch.compile(layer, backend="aot_eager", fullgraph=True)(x, hx))


CALLS: dict[str, Call] = {
    "plain": lambda layer, x, hx: _flat(layer(x, hx)),
    "recorded": _recorded,
    "lengths": lambda layer, x, hx: _flat(layer(x, hx, lengths=[5, 0, 3])),
    "resets": lambda layer, x, hx: _flat(layer(x, hx, resets=_resets(x))),
    "packed": _packed,
    "dropout": _dropout,
    "checkpoint": _checkpoint,
    "autocast": _autocast,
    "compiled": _compiled,
}


def _subject(cell: type[Cell], **options: Any) -> tuple[nn.Recurrent, Tensor, tuple[Tensor, ...]]:
    torch.manual_seed(1)
    layer = nn.Recurrent(cell, 3, 4, num_layers=2, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.8, 0.8)
    D = layer.spec.num_directions
    hx = tuple(torch.randn(2 * D, 3, width) for width in layer.spec.state_widths)
    return layer, torch.randn(5, 3, 3), hx


def _gradients(
    call: Call, cell: type[Cell], engine: str, dtype: torch.dtype, **options: Any
) -> dict[str, Tensor | None]:
    layer, x, hx = _subject(cell, **options)
    layer.to(dtype)
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (x, *hx)]
    with engines.use(engine):
        results = call(layer, leaves[0], leaves[1] if len(hx) == 1 else tuple(leaves[1:]))
        torch.manual_seed(2)
        sum((part * torch.randn(part.shape)).sum() for part in results).backward()
    actual = {name: parameter.grad for name, parameter in layer.named_parameters()}
    inputs = {f"input {k}": leaf.grad for k, leaf in enumerate(leaves)}
    return actual | {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, grad), leaf in zip(inputs.items(), leaves, strict=True)
    }


@pytest.mark.sampled
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "compiled"])
def test_gradients_are_those_of_the_reference_on_every_way(
    name: str, cell: type[Cell], bidirectional: bool
) -> None:
    dtype = torch.float32 if name == "autocast" else torch.float64
    options = {"bidirectional": bidirectional}
    grads = _gradients(CALLS[name], cell, "native", dtype, **options)
    expected_output = _gradients(CALLS[name], cell, "reference", dtype, **options)
    for key, grad in grads.items():
        expected = expected_output[key]
        assert (grad is None) == (expected is None), key
        if grad is None or expected is None:
            continue
        # Autocast computes in bfloat16 and hands out float32.
        layer_name = grad.bfloat16() if name == "autocast" else grad
        close(layer_name, expected.to(torch.float64), "gradient", key)


@pytest.mark.parametrize("cell", [SRU, Partial])
def test_gradients_in_a_graph_are_those_of_the_reference(cell: type[Cell]) -> None:
    grads = _gradients(_compiled, cell, "native", torch.float64)
    expected_output = _gradients(CALLS["plain"], cell, "reference", torch.float64)
    for key, grad in grads.items():
        expected = expected_output[key]
        assert (grad is None) == (expected is None), key
        if grad is not None and expected is not None:
            close(grad, expected, "gradient", key)


def test_the_parameters_that_have_no_gradient_are_those_that_no_step_uses() -> None:
    grads = _gradients(CALLS["lengths"], Partial, "native", torch.float64)
    absent = {name for name, grad in grads.items() if grad is None}
    names = ("unused", "weight_compared", "weight_left_out", "bias_left_out")
    assert absent == {f"{name}_l{layer}" for name in names for layer in (0, 1)}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("per_sample", [False, True])
def test_per_sample_gradients(cell: type[Cell], per_sample: bool) -> None:
    """By torch.func, which has zeros where there is no gradient; ``each`` with own parameters."""
    layer, x, _ = _subject(cell)
    layer.double()
    inputs = torch.stack([x.double(), x.double() + 1])
    parameters = dict(layer.named_parameters())
    if per_sample:
        parameters = {name: torch.stack([p, 1.1 * p]) for name, p in parameters.items()}

    def loss(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
        return torch.func.functional_call(layer, weights, (tokens,))[0].sin().sum()

    run = torch.func.vmap(torch.func.grad(loss, (0, 1)), in_dims=(0 if per_sample else None, 0))
    results = []
    for engine in ("native", "reference"):
        with engines.use(engine):
            results.append(run(parameters, inputs))
    (actual, tokens), (expected_output, expected) = results
    close(tokens, expected, "gradient", "input")
    for name, grad in actual.items():
        close(grad, expected_output[name], "gradient", name)


def test_clipping_by_norm_leaves_the_gradients_as_large_as_it_says() -> None:
    layer, x, _ = _subject(Partial)
    layer(x, lengths=[5, 3, 2])[0].square().sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
    assert norm.isfinite()
    clipped = [p.grad.norm() for p in layer.parameters() if p.grad is not None]
    assert torch.stack(clipped).norm() == pytest.approx(0.1, rel=1e-4)
