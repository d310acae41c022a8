"""Training of one step against torch's own floor: a node of autograd that only clones.

    python benchmarks/floor.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

The floor's Function has a layer's tensors for inputs: forward clones the input, backward clones
each tensor for its gradient. A layer that is a node of autograd in Python is no faster than that.
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
    """The first of its inputs; as gradients, the inputs."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return tensors[0].clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in ctx.saved_tensors)


def make_floor(case: Case) -> dict[str, tuple[Peer, Results]]:
    """The floor for a layer's tensors, whose gradients are themselves."""
    own = {"input": case.x, **dict(case.layer.named_parameters())}
    wanted = {name: tensor.detach().clone() for name, tensor in own.items()}

    def run() -> Tensor:
        cloned: Tensor = Cloned.apply(*own.values())
        return cloned

    return {"floor": (layer_peer(case.layer, case.x, case.slope, True, run), wanted)}


def rows(settings: Settings) -> list[Row]:
    """T = N = 1."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    sizes = QUICK_SIZES if settings.quick else SIZES
    problems = [Problem(cell, 1, 1, size, size, True) for size in sizes for cell in CELLS]
    return harness.measure_problems(problems, replace(settings, plan=plan), make_floor)


if __name__ == "__main__":
    harness.main(__doc__, {"floor": rows})
