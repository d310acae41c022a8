"""torch.func over layers: ensembles, gradients of each sample, higher derivatives; against loops.

Many sweeps at once are one call of the core: the fixture ``batch_sizes`` checks it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from tests.support.subjects import (
    Subject,
    gradients,
    pack,
    random_like,
    run,
    states,
    tokens,
    unpack,
)
from tests.support.tolerances import close
from unrolled import _core, engines, nn
from unrolled.engines._native import functorch

CUTS = torch.tensor([[True, False], [False, True], [False, False], [False, True], [True, False]])
CALLS: list[dict[str, Any]] = [
    {},
    {"lengths": [5, 0]},
    {"resets": CUTS},
    {"lengths": [2, 4], "resets": CUTS},
]
LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"batch_first": True}),
    ("lstm", {"num_layers": 2, "bidirectional": True}),
    ("gru", {"bidirectional": True, "merge": "sum"}),
    ("peephole", {}),
    ("reset_before", {"bias": False}),
]
Weights = dict[str, Tensor]
# torch scripts its own formulas when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
cases = pytest.mark.parametrize(("layer_name", "options"), LAYERS)
calls = pytest.mark.parametrize("call", CALLS)


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sweeps each batched call of the core ran; single sweeps fail."""
    counts: list[int] = []

    def spied(run: Callable[..., Any]) -> Callable[..., Any]:
        def spy(job: Any, batch: Any, *arguments: Any) -> Any:
            counts.append(batch.count)
            return run(job, batch, *arguments)

        return spy

    def single(*_: Any) -> None:
        raise AssertionError("the core was called for one sweep")

    for name in ("forward_batched", "backward_batched"):
        monkeypatch.setattr(functorch, name, spied(getattr(functorch, name)))
    for name in ("run_forward", "run_backward"):
        monkeypatch.setattr(functorch, name, single)
    return counts


def _members(layer_name: str, options: dict[str, Any], count: int) -> list[nn.Recurrent]:
    return [Subject(layer_name, "").layer(seed=seed, **options) for seed in range(count)]


def _stacked(layers: list[nn.Recurrent]) -> Weights:
    parts = [dict(layer.named_parameters()) for layer in layers]
    return {name: torch.stack([p[name].detach() for p in parts]) for name in parts[0]}


def _input(options: dict[str, Any], *lead: int, seed: int = 1) -> Tensor:
    shape = (2, 5, 3) if options.get("batch_first") else (5, 2, 3)
    return tokens(*lead, *shape, seed=seed).detach()


def _call(call: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    flipped = options.get("batch_first") and "resets" in call
    return {**call, "resets": call["resets"].t()} if flipped else call


def _run(layer: nn.Recurrent, weights: Weights, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    hx, call = arguments
    output, final = functional_call(layer, weights, (x, hx), call)
    return output, *unpack(final)


@pytest.mark.sampled
@calls
@cases
@pytest.mark.parametrize("own_input", [False, True])
def test_an_ensemble_is_its_members(
    layer_name: str,
    options: dict[str, Any],
    call: dict[str, Any],
    own_input: bool,
    batch_sizes: list[int],
) -> None:
    layers = _members(layer_name, options, 3)
    call = _call(call, options)
    stacked = {name: p.requires_grad_() for name, p in _stacked(layers).items()}
    x = _input(options, *((3,) if own_input else ())).requires_grad_()
    hx = pack(states(layers[0], 2))

    def member(weights: Weights, x: Tensor) -> tuple[Tensor, ...]:
        return _run(layers[0], weights, x, hx, call)

    with engines.record() as ran:
        parts = vmap(member, (0, 0 if own_input else None))(stacked, x)
    assert set(ran) == {"native"}
    output_gradients = random_like(parts)
    grads = gradients(parts, [x, *unpack(hx), *stacked.values()], output_gradients)
    assert set(batch_sizes) == {3}
    totals = [torch.zeros_like(t) for t in (x, *unpack(hx))]
    for k, layer in enumerate(layers):
        parameters = x[k] if own_input else x
        expected = run(layer, parameters, hx, **call)
        for mine, reference in zip(parts, expected, strict=True):
            close(mine[k], reference, "output")
        leaves = [x, *unpack(hx), *layer.parameters()]
        back = gradients(expected, leaves, [s[k] for s in output_gradients])
        for total, part in zip(totals, back, strict=False):
            total += part
        for mine, reference in zip(grads[len(totals) :], back[len(totals) :], strict=True):
            close(mine[k], reference, "gradient")
    for mine, total in zip(grads, totals, strict=False):
        close(mine, total, "gradient")


@pytest.mark.parametrize("frozen", ["weight_hh_l0", "weight_ih_l0", "bias_hh_l0"])
def test_members_may_share_a_matrix(frozen: str, batch_sizes: list[int]) -> None:
    layers = _members("gru", {}, 4)
    stacked = _stacked(layers)
    shared = stacked.pop(frozen)[0].clone().requires_grad_()
    x = _input({})

    def member(weights: Weights) -> Tensor:
        return functional_call(layers[0], {**weights, frozen: shared}, (x,))[0]

    output = vmap(member)(stacked)
    (grads,) = gradients([output], [shared])
    assert set(batch_sizes) == {4}
    for k, layer in enumerate(layers):
        layer.load_state_dict({**{n: p[k] for n, p in stacked.items()}, frozen: shared.detach()})
    outputs = torch.stack([layer(x)[0] for layer in layers])
    close(output, outputs, "output")
    leaves = [getattr(layer, frozen) for layer in layers]
    close(grads, sum(gradients([outputs], leaves)), "gradient")


@calls
@cases
def test_gradients_of_each_sample(
    layer_name: str, options: dict[str, Any], call: dict[str, Any], batch_sizes: list[int]
) -> None:
    (layer,) = _members(layer_name, options, 1)
    call = _call(call, options)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    batches = _input(options, 4)

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return sum(part.sin().sum() for part in _run(layer, weights, x, None, call))

    actual = vmap(grad(loss), (None, 0))(weights, batches)
    assert set(batch_sizes) == {4}
    for k, x in enumerate(batches):
        layer.zero_grad()
        loss(dict(layer.named_parameters()), x).backward()
        for name, parameter in layer.named_parameters():
            close(actual[name][k], parameter.grad, "gradient", name)


@pytest.mark.sampled
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("build", _core.builds())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 300, 1), (40, 300, 1), (3, 270, 3), (7, 1, 1), (5, 33, 40)])
def test_sums_of_each_sample_in_chunks(
    size: tuple[int, int, int], dtype: torch.dtype, build: str, threads: int
) -> None:
    """More steps than a chunk of sums has, more samples than threads, and fewer."""
    B, T, N = size
    layer = Subject("peephole", "").layer(3, 9).to(dtype)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    x = torch.randn(B, T, N, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(layer, weights, (x,))[0].sin().sum()

    previous_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with engines.use_build(build):
            actual = vmap(grad(loss), (None, 0))(weights, x)
    finally:
        torch.set_num_threads(previous_threads)
    wide = {name: p.double() for name, p in weights.items()}
    layer.double()
    for k in {0, B // 2, B - 1}:
        expected = grad(loss)(wide, x[k].double())
        for name, parameter in expected.items():
            close(actual[name][k], parameter, "gradient", name)


def test_samples_of_each_member(batch_sizes: list[int]) -> None:
    """vmap in vmap: an ensemble's gradients for each sample, and for each pair."""
    layers = _members("lstm", {}, 3)
    stacked = _stacked(layers)
    x = _input({}, 4)

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(layers[0], weights, (x,))[0].sin().sum()

    per_sample = vmap(vmap(grad(loss), (None, 0)), (0, None))(stacked, x)
    assert set(batch_sizes) == {12}
    pairs = vmap(vmap(grad(loss), (0, None)), (None, 0))(stacked, x)
    for k, layer in enumerate(layers):
        for b in range(4):
            expected = torch.autograd.grad(layer(x[b])[0].sin().sum(), list(layer.parameters()))
            for name, reference in zip(stacked, expected, strict=True):
                close(per_sample[name][k, b], reference, "gradient", name)
                close(pairs[name][b, k], reference, "gradient", name)


def test_an_ensemble_trains_as_its_members_do() -> None:
    """Gradient of a sum over vmap, and torch's optimizer on the stacked weights."""
    layers = _members("gru", {}, 3)
    stacked = {name: p.requires_grad_() for name, p in _stacked(layers).items()}
    x = _input({}, 3)
    together = torch.optim.SGD(stacked.values(), 0.1)
    single = torch.optim.SGD([p for layer in layers for p in layer.parameters()], 0.1)

    def member(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(layers[0], weights, (x,))[0].square().sum()

    for _ in range(5):
        together.zero_grad()
        vmap(member)(stacked, x).sum().backward()
        together.step()
        single.zero_grad()
        sum(layer(x[k])[0].square().sum() for k, layer in enumerate(layers)).backward()
        single.step()
    for k, layer in enumerate(layers):
        for name, parameter in layer.named_parameters():
            close(stacked[name][k], parameter, "gradient", name)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_any_dimension_may_be_mapped(dim: int, batch_sizes: list[int]) -> None:
    (layer,) = _members("lstm", {}, 1)
    x = _input({}, 4)
    moved = x.movedim(0, dim)
    actual = vmap(lambda x: layer(x)[0], in_dims=dim, out_dims=dim)(moved)
    for k in range(4):
        close(actual.select(dim, k), layer(x[k])[0], "output")


@pytest.mark.parametrize(
    ("argument", "mapped"),
    [("lengths", torch.tensor([[5, 2]] * 3)), ("resets", torch.stack([CUTS] * 3))],
)
def test_what_decides_the_order_is_not_mapped(argument: str, mapped: Tensor) -> None:
    (layer,) = _members("lstm", {}, 1)
    with pytest.raises(RuntimeError, match=f"LSTM: {argument} must not be mapped by vmap"):
        vmap(lambda x, m: layer(x, **{argument: m})[0])(_input({}, 3), mapped)


def test_states_alone_may_be_mapped(batch_sizes: list[int]) -> None:
    (layer,) = _members("lstm", {}, 1)
    x = _input({}).requires_grad_()
    h, c = (tokens(4, 1, 2, 4, seed=seed) for seed in (5, 6))
    output = vmap(lambda h, c: layer(x, (h, c))[0])(h, c)
    expected = torch.stack([layer(x, (h[k], c[k]))[0] for k in range(4)])
    close(output, expected, "output")
    leaves = [x, h, c, *layer.parameters()]
    for mine, reference in zip(
        gradients([output], leaves), gradients([expected], leaves), strict=True
    ):
        close(mine, reference, "gradient")
    assert set(batch_sizes) == {4}


@cases
def test_jacobians(layer_name: str, options: dict[str, Any]) -> None:
    """jacrev (backward for many output gradients at once), jacfwd, and autograd's jacobian."""
    (layer,) = _members(layer_name, options, 1)
    x = _input(options)

    def function(x: Tensor) -> Tensor:
        return layer(x)[0].sum(-1)

    expected = torch.autograd.functional.jacobian(function, x)
    close(jacrev(function)(x), expected, "gradient")
    close(jacfwd(function)(x), expected, "gradient")


@pytest.mark.parametrize("call", CALLS[::3])
@cases
def test_hessians(layer_name: str, options: dict[str, Any], call: dict[str, Any]) -> None:
    """Forward over backward, backward over backward; by a weight."""
    (layer,) = _members(layer_name, options, 1)
    call = _call(call, options)
    x = _input(options)
    name = "weight_hh_l0"
    weight = getattr(layer, name).detach()

    def loss(weight: Tensor) -> Tensor:
        return functional_call(layer, {name: weight}, (x,), call)[0].sin().sum()

    along = tokens(*weight.shape, seed=8).detach()
    leaf = weight.clone().requires_grad_()
    with engines.use("reference"):
        (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        (expected,) = torch.autograd.grad((gradient * along).sum(), leaf)
    close(jvp(grad(loss), (weight,), (along,))[1], expected, "gradient")
    close(vjp(grad(loss), weight)[1](along)[0], expected, "gradient")
    for function in (hessian(loss), jacrev(grad(loss))):
        close(torch.tensordot(function(weight), along, 2), expected, "gradient")


def test_third_derivatives() -> None:
    (layer,) = _members("gru", {}, 1)
    x = _input({})

    def loss(s: Tensor) -> Tensor:
        return layer(s * x)[0].sin().sum()

    actual = grad(grad(grad(loss)))(torch.tensor(0.7, dtype=torch.float64))
    expected = s = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    with engines.use("reference"):
        expected = loss(s)
        for _ in range(3):
            (expected,) = torch.autograd.grad(expected, s, create_graph=True)
    close(actual, expected, "gradient")


def test_derivatives_of_samples_gradients() -> None:
    """A penalty on the norm of each sample's gradient, differentiated by the weights."""
    (layer,) = _members("gru", {}, 1)
    x = _input({}, 3)

    def norm(weights: Weights, x: Tensor) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return functional_call(layer, weights, (x,))[0].sin().sum()

        return grad(loss)(x).square().sum()

    def penalty(weights: Weights) -> Tensor:
        total: Tensor = vmap(norm, (None, 0))(weights, x).sum()
        return total

    weights = {name: p.detach() for name, p in layer.named_parameters()}
    actual = grad(penalty)(weights)
    with engines.use("reference"):
        y = x.clone().requires_grad_()
        loss = sum(layer(part)[0].sin().sum() for part in y)
        (gradient,) = torch.autograd.grad(loss, y, create_graph=True)
        expected = torch.autograd.grad(gradient.square().sum(), list(layer.parameters()))
    for (name, mine), second in zip(actual.items(), expected, strict=True):
        close(mine, second, "gradient", name)


def test_a_gradient_penalty_trains() -> None:
    """Improved training of Wasserstein critics (Gulrajani et al. 2017): gradient norms near 1."""
    torch.manual_seed(0)
    layer, head = nn.GRU(2, 8), torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.02)
    x = torch.randn(6, 16, 2)
    norms = []
    for _ in range(60):
        y = x.clone().requires_grad_()
        score = head(layer(y)[0][-1]).sum()
        (gradient,) = torch.autograd.grad(score, y, create_graph=True)
        norm = gradient.square().sum((0, 2)).sqrt()
        optimizer.zero_grad()
        (norm - 1).square().mean().backward()
        optimizer.step()
        norms.append((norm - 1).abs().mean().item())
    assert norms[-1] < 0.1 < norms[0]
