"""Torch's layers and ours, called as a user calls them."""

from collections.abc import Callable

from torch import Tensor, nn

from peers import Peer
from problems import Case, gradients
from unrolled import nn as unrolled_nn


def make_torch(case: Case, threads: int) -> Peer:
    """The layer of torch.nn."""
    return layer_peer(case.layer, case.x, case.output_gradient, case.problem.training)


def make_unrolled(case: Case, threads: int) -> Peer:
    """Our layer with torch's weights, on the engine that it selects."""
    problem = case.problem
    layer = getattr(unrolled_nn, problem.cell)(
        problem.I, problem.H, problem.layers, bidirectional=problem.bidirectional
    )
    layer.load_state_dict(case.layer.state_dict())
    return layer_peer(layer, case.x, case.output_gradient, problem.training)


def layer_peer(
    layer: nn.Module,
    x: Tensor,
    output_gradient: Tensor,
    training: bool,
    run: Callable[[], Tensor] | None = None,
) -> Peer:
    """A module as a peer: a forward pass, and in training a backward pass from the output gradient.

    `run` computes the output if that is not `layer(x)[0]`.
    """
    leaves = [x, *layer.parameters()]

    def output() -> Tensor:
        return layer(x)[0]

    forward = run or output

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().backward(output_gradient)

    if training:
        return Peer(step, lambda _: gradients(layer, x))
    return Peer(forward, lambda output: {"output": output})
