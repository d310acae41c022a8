"""Ensembles and per-sample gradients: torch.func against a Python loop.

    python benchmarks/transforms.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

An ensemble is `vmap` of `functional_call` over stacked parameters, with separate data for each
member; per-sample gradients are `vmap(grad(loss))` over samples of one sequence. The loops call our
layer, or torch's, once for each; torch's layers do not support `vmap`.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import harness
from checks import Results
from harness import Row, Settings
from peers import Peer
from unrolled import nn as unrolled_nn

CELLS = ("GRU", "LSTM")
ENSEMBLES = ((10, 50, 16, 64), (50, 20, 4, 32))  # members, T, N, I = H
SAMPLES = ((32, 100, 1, 64), (64, 50, 1, 128))  # samples, T, N, I = H
QUICK = ((3, 5, 2, 8),)

Weights = dict[str, Tensor]


def rows(settings: Settings) -> list[Row]:
    """Ensembles in inference and training, and per-sample gradients."""
    table = []
    for mode, make, sizes in (
        ("ensemble infer", ensemble, ENSEMBLES),
        ("ensemble train", ensemble, ENSEMBLES),
        ("per-sample gradients", samples, SAMPLES),
    ):
        for size in QUICK if settings.quick else sizes:
            for cell in CELLS:
                name = f"{cell} {mode} {','.join(map(str, size))}"
                if settings.wants(name):
                    training = mode != "ensemble infer"
                    peers, truth = make(cell, *size, training)
                    truths = dict.fromkeys(peers, truth)
                    row = harness.measure(name, peers, truths, training, settings.plan)
                    table.append({**row, "cell": cell, "what": mode, "sizes": list(size)})
    return table


def ensemble(
    cell: str, count: int, T: int, N: int, H: int, training: bool
) -> tuple[dict[str, Peer], Results]:
    """Outputs of all members; in training the gradients of all their parameters."""
    torch.manual_seed(0)
    theirs = [getattr(nn, cell)(H, H) for _ in range(count)]
    ours = [_ours(cell, layer) for layer in theirs]
    x, output_gradient = torch.randn(count, T, N, H), torch.randn(count, T, N, H)
    stacked = {
        name: torch.stack(parts).requires_grad_(training)
        for name, parts in _by_name(ours, torch.Tensor.detach).items()
    }

    def member_output(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(ours[0], weights, (x,))[0]

    def ensemble_step() -> Tensor:
        return _step(
            lambda: vmap(member_output)(stacked, x), output_gradient, stacked.values(), training
        )

    def results(output: Tensor) -> Results:
        return {n: p.grad for n, p in stacked.items()} if training else {"output": output}

    peers = {"unrolled vmap": Peer(ensemble_step, results)}
    for who, layers in (("unrolled loop", ours), ("torch loop", theirs)):
        peers[who] = _loop(layers, x, output_gradient, training)
    double_layers = [copy.deepcopy(layer).double() for layer in theirs]
    truth = _loop(double_layers, x.double(), output_gradient.double(), training)
    return peers, truth.results(truth.call())


def _loop(layers: Sequence[nn.Module], x: Tensor, output_gradient: Tensor, training: bool) -> Peer:
    """A loop over the members."""
    leaves = [p for layer in layers for p in layer.parameters()]

    def run() -> Tensor:
        outputs = [layer(part)[0] for layer, part in zip(layers, x, strict=True)]
        return torch.stack(outputs)

    def results(output: Tensor) -> Results:
        if not training:
            return {"output": output}
        return {n: torch.stack(p) for n, p in _by_name(layers, lambda p: p.grad).items()}

    return Peer(lambda: _step(run, output_gradient, leaves, training), results)


def samples(
    cell: str, count: int, T: int, N: int, H: int, training: bool
) -> tuple[dict[str, Peer], Results]:
    """Per-sample gradients of the parameters."""
    torch.manual_seed(0)
    theirs = getattr(nn, cell)(H, H)
    ours = _ours(cell, theirs)
    x, output_gradient = torch.randn(count, T, N, H), torch.randn(T, N, H)
    weights = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return (functional_call(ours, weights, (x,))[0] * output_gradient).sum()

    sample_gradients = vmap(grad(loss), (None, 0))
    peers = {
        "unrolled vmap": Peer(lambda: sample_gradients(weights, x), lambda gradients: gradients)
    }
    for who, layer in (("unrolled loop", ours), ("torch loop", theirs)):
        peers[who] = _samples_loop(layer, x, output_gradient)
    truth = _samples_loop(copy.deepcopy(theirs).double(), x.double(), output_gradient.double())
    return peers, truth.results(truth.call())


def _samples_loop(layer: nn.Module, x: Tensor, output_gradient: Tensor) -> Peer:
    """A loop of backward passes over the samples."""
    leaves = dict(layer.named_parameters())

    def run() -> list[tuple[Tensor, ...]]:
        parameters = tuple(leaves.values())
        return [torch.autograd.grad(layer(part)[0], parameters, output_gradient) for part in x]

    def results(gradients: list[tuple[Tensor, ...]]) -> Results:
        return dict(zip(leaves, map(torch.stack, zip(*gradients, strict=True)), strict=True))

    return Peer(run, results)


def _step(
    run: Callable[[], Tensor], output_gradient: Tensor, leaves: Any, training: bool
) -> Tensor:
    """A forward pass; in training also a backward pass from an output gradient."""
    output = run()
    if training:
        for leaf in leaves:
            leaf.grad = None
        output.backward(output_gradient)
    return output


def _ours(cell: str, layer: nn.Module) -> nn.Module:
    ours = getattr(unrolled_nn, cell)(layer.input_size, layer.hidden_size)
    ours.load_state_dict(layer.state_dict())
    return ours


def _by_name(layers: Sequence[nn.Module], read: Callable[[Tensor], Any]) -> dict[str, list[Any]]:
    """The result of `read` for each parameter, as a list over the layers."""
    parts = [dict(layer.named_parameters()) for layer in layers]
    return {name: [read(part[name]) for part in parts] for name in parts[0]}


if __name__ == "__main__":
    harness.main(__doc__, {"functorch": rows})
