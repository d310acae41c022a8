"""Optimizers of all kinds: the next call computes with the weights after each step."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import clip_grad_norm_

from tests.support.subjects import gradients, random_like
from tests.support.tolerances import close
from tests.support.weights import (
    MAKERS,
    check,
    expected_results,
    flat,
    inputs,
    make_module,
    warm,
)


def optimizers() -> Iterator[tuple[str, dict[str, bool]]]:
    """All of torch's, with each implementation that it has on the CPU."""
    for name, layer_name in vars(torch.optim).items():
        # SparseAdam wants sparse gradients, and Optimizer is the base of all.
        if not inspect.isclass(layer_name) or name in ("SparseAdam", "Optimizer"):
            continue
        options = inspect.signature(layer_name).parameters
        yield name, {}
        if "foreach" in options:
            yield name, {"foreach": True}
        if "fused" in options:
            yield name, {"fused": True}


OPTIMIZERS = list(optimizers())


def test_all_optimizers_are_tried() -> None:
    modes = [(name, *options) for name, options in OPTIMIZERS]
    for name in ("SGD", "Adam", "AdamW", "Adagrad"):
        assert {(name,), (name, "foreach"), (name, "fused")} <= set(modes)
    assert {("RMSprop", "foreach"), ("LBFGS",), ("Muon",), ("Rprop",)} <= set(modes)


@pytest.mark.parametrize(
    ("name", "options"),
    OPTIMIZERS,
    ids=["-".join((name, *options)) for name, options in OPTIMIZERS],
)
def test_every_step_of_an_optimizer_is_seen(name: str, options: dict[str, bool]) -> None:
    for layer_name in ("projected", "peephole", "gru step"):
        module, x = make_module(layer_name), inputs(layer_name)[1].detach()
        warm(layer_name, module)
        weights = [p for p in module.parameters() if name != "Muon" or p.dim() == 2]
        optimizer = getattr(torch.optim, name)(weights, lr=0.05, **options)

        def closure(module: Module = module, x: Tensor = x, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = torch.stack([part.square().sum() for part in flat(module(x))]).sum()
            loss.backward()
            return loss

        copies = weights[0].detach().clone()
        optimizer.step(closure)
        assert not torch.equal(weights[0], copies)
        check(layer_name, module)


@pytest.mark.parametrize("layer_name", MAKERS)
def test_an_optimizer_may_step_inside_of_backward(layer_name: str) -> None:
    """As soon as a gradient is there, its weight changes; all gradients are those before it."""
    module, x = make_module(layer_name), inputs(layer_name)[1].detach()
    warm(layer_name, module)
    weights = dict(module.named_parameters())
    parts = flat(module(x))
    output_gradients = random_like(parts)
    grads = dict(
        zip(weights, gradients(parts, list(weights.values()), output_gradients), strict=True)
    )
    right = {name: weight.detach() - 0.1 * grads[name] for name, weight in weights.items()}
    for weight in weights.values():
        step = torch.optim.SGD([weight], lr=0.1).step
        weight.register_post_accumulate_grad_hook(lambda _, step=step: step())
    torch.autograd.backward(flat(module(x)), output_gradients)
    for name, weight in weights.items():
        close(weight, right[name], "output", name)
        weight.grad = None
    check(layer_name, module)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("layer_name", MAKERS)
def test_clipped_gradients(layer_name: str, foreach: bool) -> None:
    """Clipping scales each gradient in place: no two of them may share memory."""
    module, x = make_module(layer_name), inputs(layer_name)[1]
    warm(layer_name, module)
    weights = dict(module.named_parameters())
    parts = flat(module(x))
    torch.autograd.backward(parts, random_like(parts))
    right = expected_results(layer_name, weights, x)[len(parts) + 1 :]
    unsplit = torch.cat([grad.flatten() for grad in right]).norm()
    norm = clip_grad_norm_(module.parameters(), 0.1, foreach=foreach)
    close(norm, unsplit, "gradient")
    for weight, grad in zip(weights.values(), right, strict=True):
        assert weight.grad is not None
        close(weight.grad, grad * (0.1 / (unsplit + 1e-6)), "gradient")
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    check(layer_name, module)
