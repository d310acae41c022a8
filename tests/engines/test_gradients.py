"""Gradients against finite differences, to second order, for every cell on every engine.

And torch.func's grad and jvp; more of torch.func in ``test_transforms``.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.subjects import Subject, gradients, pack, random_like, run, states, tokens
from tests.support.tolerances import assert_equal, close
from unrolled import _core, nn
from unrolled.engines import use_build

CUTS = torch.tensor([[True, False], [False, True], [False, False]])
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "lengths": ({}, {"lengths": [1, 3]}),
    "resets": ({}, {"resets": CUTS}),
    "two directions": ({"num_layers": 2, "bidirectional": True}, {}),
    "sum": ({"bidirectional": True, "merge": "sum", "batch_first": True}, {}),
    "packed": ({"bidirectional": True}, {"packed": [2, 3]}),
    "all at once": (
        {"num_layers": 2, "bidirectional": True, "bias": False},
        {"lengths": [2, 3], "resets": CUTS},
    ),
}
LARGE = ("two directions", "all at once")  # tried along random directions, not one by one


def as_function(
    subject: Subject, form: str
) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """A layer as a function of all that it can be differentiated by, and where to try it."""
    options, call = FORMS[form]
    options, call = dict(options), dict(call)
    layer = subject.layer(2, 2, **options)
    hx, reset_state = states(layer, 2), states(layer, 1, seed=9)
    names = [name for name, _ in layer.named_parameters()]
    shape = (2, 3, 2) if options.get("batch_first") else (3, 2, 2)
    packed = call.pop("packed", None)
    count = len(hx)

    def function(x: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
        passed, repeated, weights = (
            arguments[:count],
            arguments[count : 2 * count],
            arguments[2 * count :],
        )
        if "resets" in call:
            call["reset_state"] = pack(repeated)
        layer_input: Any = x
        if packed is not None:
            layer_input = pack_padded_sequence(x, packed, enforce_sorted=False)
        output, final = functional_call(
            layer, dict(zip(names, weights, strict=True)), (layer_input, pack(passed)), call
        )
        data = output.data if isinstance(output, PackedSequence) else output
        return data, *([final] if isinstance(final, Tensor) else final)

    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    return function, [tokens(*shape), *hx, *reset_state, *weights]


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(subject: Subject, form: str) -> None:
    function, inputs = as_function(subject, form)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=form in LARGE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", _core.builds())
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_weights_of_more_rows_than_are_packed_at_once(
    cell: str, build: str, dtype: torch.dtype
) -> None:
    expected_of = getattr(torch.nn, cell)(7, 390).double()
    layer = getattr(nn, cell)(7, 390).to(dtype)
    layer.load_state_dict(expected_of.state_dict())
    x = tokens(60, 5, 7)
    gradient = random_like([expected_of(x)[0]])[0]
    expected = torch.autograd.grad(expected_of(x)[0], list(expected_of.parameters()), gradient)
    with use_build(build):
        output, _ = layer(x.to(dtype))
        actual = torch.autograd.grad(output, list(layer.parameters()), gradient.to(dtype))
    for (name, _), one, other in zip(layer.named_parameters(), actual, expected, strict=True):
        close(one, other, "random", name)


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_gradients(subject: Subject, form: str) -> None:
    function, inputs = as_function(subject, form)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.sampled
@pytest.mark.parametrize("call", [{}, {"lengths": []}, {"resets": CUTS[:, :0]}], ids=list)
def test_second_derivatives_of_an_empty_batch_are_zeros(
    subject: Subject, call: dict[str, Any]
) -> None:
    layer = subject.layer(2, 2, num_layers=2)
    x, weight = tokens(3, 0, 2), layer.weight_ih_l0
    output = layer(x, **call)[0]
    output_grads = torch.autograd.grad(output.sum(), [x, weight], create_graph=True)
    assert output_grads[0].shape == (3, 0, 2)
    sum(gradient.sum() for gradient in output_grads).backward()  # type: ignore[union-attr]
    assert x.grad is None or x.grad.shape == (3, 0, 2)
    assert not output_grads[1].any()


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
def test_backward_twice_gives_equal_gradients(subject: Subject, form: str) -> None:
    function, inputs = as_function(subject, form)
    parts = function(*inputs)
    for result, second in zip(gradients(parts, inputs), gradients(parts, inputs), strict=True):
        assert_equal(result, second)


CALLS: list[dict[str, Any]] = [
    {},
    {"lengths": [3, 0]},
    {"resets": CUTS},
    {"lengths": [2, 3], "resets": CUTS},
]
LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {}),
    ("lstm", {"num_layers": 2, "bidirectional": True}),
    ("gru", {"bidirectional": True, "merge": "sum"}),
    ("peephole", {}),
]


def _layer(layer_name: str, options: dict[str, Any]) -> tuple[nn.Recurrent, dict[str, Tensor]]:
    layer = Subject(layer_name, "").layer(**options)
    return layer, {name: p.detach() for name, p in layer.named_parameters()}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("layer_name", "options"), LAYERS)
def test_func_grad_is_backward(
    layer_name: str, options: dict[str, Any], call: dict[str, Any]
) -> None:
    layer, weights = _layer(layer_name, options)
    x = tokens(3, 2, 3).detach()

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, weights, (x,), call)[0].square().sum()

    actual = grad(loss)(weights, x)
    loss(dict(layer.named_parameters()), x).backward()
    for name, parameter in layer.named_parameters():
        close(actual[name], parameter.grad, "gradient", name)


@pytest.mark.parametrize("shape", [(3, 1, 3), (3, 3), (1, 1, 3)])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("layer_name", "options"), LAYERS)
def test_gradients_of_each_sample_of_one_sequence(
    layer_name: str, options: dict[str, Any], batch_first: bool, shape: tuple[int, ...]
) -> None:
    """Their results lie side by side in one run of all samples, and are not contiguous alone."""
    layer, weights = _layer(layer_name, {**options, "batch_first": batch_first})
    samples = tokens(4, *(shape[1::-1] if batch_first and len(shape) == 3 else shape[:-1]), 3)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, weights, (x,))[0].square().sum()

    actual = vmap(grad(loss), (None, 0))(weights, samples.detach())
    for k, x in enumerate(samples.detach()):
        layer.zero_grad()
        layer(x)[0].square().sum().backward()
        for name, parameter in layer.named_parameters():
            close(actual[name][k], parameter.grad, "gradient", name)


# torch scripts its own formulas when it first differentiates forward.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("layer_name", "options"), LAYERS)
def test_forward_derivatives_are_backward_ones(
    layer_name: str, options: dict[str, Any], call: dict[str, Any]
) -> None:
    layer, _ = _layer(layer_name, options)
    x, hx = tokens(3, 2, 3), states(layer, 2)
    along = [tokens(*leaf.shape, seed=20 + k).detach() for k, leaf in enumerate((x, *hx))]

    def function(x: Tensor, *hx: Tensor) -> tuple[Tensor, ...]:
        return run(layer, x, pack(hx), **call)

    parts, tangents = jvp(function, (x, *hx), tuple(along))
    output_gradients = random_like(parts)
    back = gradients(function(x, *hx), [x, *hx], output_gradients)
    ahead = sum((t * s).sum() for t, s in zip(tangents, output_gradients, strict=True))
    close(ahead, sum((g * d).sum() for g, d in zip(back, along, strict=True)), "gradient")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("layer_name", "options"), LAYERS)
def test_jacobians_by_batched_backward(
    layer_name: str, options: dict[str, Any], call: dict[str, Any]
) -> None:
    layer, _ = _layer(layer_name, options)
    x = tokens(3, 2, 3)
    actual, expected = (
        torch.autograd.functional.jacobian(
            lambda x: run(layer, x, **call), x, vectorize=vectorize, create_graph=False
        )
        for vectorize in (True, False)
    )
    for mine, reference in zip(actual, expected, strict=True):
        close(mine, reference, "gradient")
