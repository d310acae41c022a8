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
from harness import Row, Settings
from latency import MORE
from peers import Peer, available
from peers.layers import layer_peer
from problems import CELLS, Case, Problem, make_case

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


def make_floor(case: Case) -> Peer:
    """The floor for a layer's tensors."""
    leaves = [case.x, *case.layer.parameters()]
    return layer_peer(case.layer, case.x, case.slope, True, lambda: Cloned.apply(*leaves))


def rows(settings: Settings) -> list[Row]:
    """T = N = 1."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    makers = available()[0]
    made = []
    for size in QUICK_SIZES if settings.quick else SIZES:
        for cell in CELLS:
            problem = Problem(cell, 1, 1, size, size, training=True)
            if not settings.wants(problem.name):
                continue
            case = make_case(problem)
            peers = {name: maker(case, settings.threads) for name, maker in makers.items()}
            found = {name: peer for name, peer in peers.items() if peer is not None}
            truths = dict.fromkeys(found, case.truth())
            own = {"input": case.x, **dict(case.layer.named_parameters())}
            truths["floor"] = {name: tensor.detach().clone() for name, tensor in own.items()}
            found["floor"] = make_floor(case)
            row = harness.measure(problem.name, found, truths, True, plan)
            made.append({**row, **harness.describe_problem(case)})
    return made


if __name__ == "__main__":
    harness.main(__doc__, {"floor": rows})
