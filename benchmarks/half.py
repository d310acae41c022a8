"""bfloat16 and float32: our layers in both, and torch's in bfloat16.

    python benchmarks/half.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Results in bfloat16 are compared with torch's layer in float64, on the rounded weights and data.
"""

import copy

import torch
from torch import Tensor

import harness
from checks import Results
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import Problem, make_case, truth
from unrolled import nn as unrolled_nn

CELLS = ("GRU", "LSTM")
SHAPES = (
    (1, 1, 64, 64),
    (1, 1, 256, 256),
    (100, 1, 256, 256),
    (50, 7, 40, 100),
    (100, 32, 256, 256),
)
QUICK_SHAPES = ((3, 2, 8, 8),)


def rows(settings: Settings) -> list[Row]:
    """Each shape and cell, forward and training."""
    return [
        row(Problem(cell, *shape, training), settings)
        for shape in (QUICK_SHAPES if settings.quick else SHAPES)
        for cell in CELLS
        for training in (False, True)
        if settings.wants(Problem(cell, *shape, training).name)
    ]


def row(problem: Problem, settings: Settings) -> Row:
    """Ours in both precisions; torch's if this processor supports it."""
    case = make_case(problem)
    half_layer = copy.deepcopy(case.layer).bfloat16()
    x = case.x.detach().bfloat16().requires_grad_(problem.training)
    output_gradient = case.output_gradient.bfloat16()
    expected = truth(copy.deepcopy(half_layer).double(), x, output_gradient, problem.training)
    ours = getattr(unrolled_nn, problem.cell)(problem.I, problem.H)
    ours.load_state_dict(case.layer.state_dict())
    peers = {
        "unrolled": layer_peer(ours, case.x, case.output_gradient, problem.training),
        "unrolled bfloat16": layer_peer(
            copy.deepcopy(ours).bfloat16(), x, output_gradient, problem.training
        ),
    }
    truths: dict[str, Results] = {"unrolled": case.truth(), "unrolled bfloat16": expected}
    theirs = layer_peer(half_layer, x, output_gradient, problem.training)
    if _runs(theirs, problem.training):
        peers["torch bfloat16"], truths["torch bfloat16"] = theirs, expected
    measured = harness.measure(problem.name, peers, truths, problem.training, settings.plan)
    return {**measured, **harness.describe_problem(case)}


def _runs(peer: Peer, training: bool) -> bool:
    """Whether torch supports it; on some processors it raises."""
    try:
        with torch.inference_mode(not training):
            output: Tensor | None = peer.call()
    except RuntimeError as error:
        print(f"skipped torch in bfloat16: {str(error).splitlines()[0]}", flush=True)
        return False
    return output is None or bool(output.isfinite().all())


if __name__ == "__main__":
    harness.main(__doc__, {"half": rows})
