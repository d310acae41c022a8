"""Many networks at once, and gradients of each sample: torch.func against a Python loop.

    python benchmarks/several.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

An ensemble is ``vmap`` over stacked parameters by ``functional_call``, each member on data of its
own; gradients of each sample are ``vmap(grad(loss))`` over samples of one sequence. The loops call
our layer, or torch's, once for each; torch's layers know no ``vmap``.
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
    """Ensembles forward and in training, and gradients of each sample."""
    made = []
    for what, make, sizes in (
        ("ensemble infer", ensemble, ENSEMBLES),
        ("ensemble train", ensemble, ENSEMBLES),
        ("gradients of each sample", samples, SAMPLES),
    ):
        for size in QUICK if settings.quick else sizes:
            for cell in CELLS:
                name = f"{cell} {what} {','.join(map(str, size))}"
                if settings.wants(name):
                    training = what != "ensemble infer"
                    peers, truth = make(cell, *size, training)
                    truths = dict.fromkeys(peers, truth)
                    row = harness.measure(name, peers, truths, training, settings.plan)
                    made.append({**row, "cell": cell, "what": what, "sizes": list(size)})
    return made


def ensemble(
    cell: str, count: int, T: int, N: int, H: int, training: bool
) -> tuple[dict[str, Peer], Results]:
    """Output of all members; in training the gradients of all their parameters."""
    torch.manual_seed(0)
    theirs = [getattr(nn, cell)(H, H) for _ in range(count)]
    ours = [_ours(cell, layer) for layer in theirs]
    x, slope = torch.randn(count, T, N, H), torch.randn(count, T, N, H)
    stacked = {
        name: torch.stack(parts).requires_grad_(training)
        for name, parts in _by_name(ours, torch.Tensor.detach).items()
    }

    def one(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(ours[0], weights, (x,))[0]

    def together() -> Tensor:
        return _step(lambda: vmap(one)(stacked, x), slope, stacked.values(), training)

    def results(found: Tensor) -> Results:
        return {n: p.grad for n, p in stacked.items()} if training else {"output": found}

    peers = {"unrolled vmap": Peer(together, results)}
    for who, layers in (("unrolled loop", ours), ("torch loop", theirs)):
        peers[who] = _loop(layers, x, slope, training)
    wide = [copy.deepcopy(layer).double() for layer in theirs]
    truth = _loop(wide, x.double(), slope.double(), training)
    return peers, truth.results(truth.call())


def _loop(layers: Sequence[nn.Module], x: Tensor, slope: Tensor, training: bool) -> Peer:
    """Each member by itself."""
    leaves = [p for layer in layers for p in layer.parameters()]

    def run() -> Tensor:
        outputs = [layer(part)[0] for layer, part in zip(layers, x, strict=True)]
        return torch.stack(outputs)

    def results(found: Tensor) -> Results:
        if not training:
            return {"output": found}
        return {n: torch.stack(p) for n, p in _by_name(layers, lambda p: p.grad).items()}

    return Peer(lambda: _step(run, slope, leaves, training), results)


def samples(
    cell: str, count: int, T: int, N: int, H: int, training: bool
) -> tuple[dict[str, Peer], Results]:
    """Gradients of the parameters for each sample."""
    torch.manual_seed(0)
    theirs = getattr(nn, cell)(H, H)
    ours = _ours(cell, theirs)
    x, slope = torch.randn(count, T, N, H), torch.randn(T, N, H)
    weights = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return (functional_call(ours, weights, (x,))[0] * slope).sum()

    each = vmap(grad(loss), (None, 0))
    peers = {"unrolled vmap": Peer(lambda: each(weights, x), lambda found: found)}
    for who, layer in (("unrolled loop", ours), ("torch loop", theirs)):
        peers[who] = _samples_loop(layer, x, slope)
    truth = _samples_loop(copy.deepcopy(theirs).double(), x.double(), slope.double())
    return peers, truth.results(truth.call())


def _samples_loop(layer: nn.Module, x: Tensor, slope: Tensor) -> Peer:
    """Backward sample by sample."""
    leaves = dict(layer.named_parameters())

    def run() -> list[tuple[Tensor, ...]]:
        parameters = tuple(leaves.values())
        return [torch.autograd.grad(layer(part)[0], parameters, slope) for part in x]

    def results(found: list[tuple[Tensor, ...]]) -> Results:
        return dict(zip(leaves, map(torch.stack, zip(*found, strict=True)), strict=True))

    return Peer(run, results)


def _step(run: Callable[[], Tensor], slope: Tensor, leaves: Any, training: bool) -> Tensor:
    """Forward, and in training backward from a slope into fresh gradients."""
    output = run()
    if training:
        for leaf in leaves:
            leaf.grad = None
        output.backward(slope)
    return output


def _ours(cell: str, layer: nn.Module) -> nn.Module:
    made = getattr(unrolled_nn, cell)(layer.input_size, layer.hidden_size)
    made.load_state_dict(layer.state_dict())
    return made


def _by_name(layers: Sequence[nn.Module], read: Callable[[Tensor], Any]) -> dict[str, list[Any]]:
    """What is read of each parameter, layer by layer."""
    parts = [dict(layer.named_parameters()) for layer in layers]
    return {name: [read(part[name]) for part in parts] for name in parts[0]}


if __name__ == "__main__":
    harness.main(__doc__, {"several": rows})
