"""Training on a single step, against a lower bound: an autograd function that only clones.

    python benchmarks/autograd_bound.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

The function takes a layer's tensors as inputs; forward clones the input, and backward clones each
tensor as its gradient. No layer that is an autograd function in Python can be faster.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import harness
from checks import Results
from harness import Row, Settings
from latency import MORE
from peers import Peer
from peers.layers import layer_peer
from problems import CELLS, Case, Problem

SIZES = (64, 256)  # I = H
QUICK_SIZES = (8,)


class Cloned(torch.autograd.Function):
    """A clone of the input; the gradients are clones of all arguments."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return tensors[0].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in ctx.saved_tensors)


def make_lower_bound(case: Case) -> dict[str, tuple[Peer, Results]]:
    """The lower bound for a layer; the expected gradients are its tensors."""
    tensors = {"input": case.x, **dict(case.layer.named_parameters())}
    expected = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def run() -> Tensor:
        cloned: Tensor = Cloned.apply(*tensors.values())
        return cloned

    return {"floor": (layer_peer(case.layer, case.x, case.output_gradient, True, run), expected)}


def rows(settings: Settings) -> list[Row]:
    """T = N = 1."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    sizes = QUICK_SIZES if settings.quick else SIZES
    problems = [Problem(cell, 1, 1, size, size, True) for size in sizes for cell in CELLS]
    return harness.measure_problems(problems, replace(settings, plan=plan), make_lower_bound)


if __name__ == "__main__":
    harness.main(__doc__, {"autograd_bound": rows})
