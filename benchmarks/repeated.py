"""Calls that follow one another: with the same weights, and with weights changed before each call.

    python benchmarks/repeated.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Peers pack their weights once, when a model is loaded; ours when the same weights come again. The
fixed cost of a call is what does not grow with its steps: 2 t(T) - t(2 T), twice the time of T
steps less that of 2 T, both from the same rounds. It is a small difference of large times.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import harness
from checks import Results
from harness import Row, Settings
from peers import OURS, Peer, available
from peers.layers import layer_peer
from problems import CELLS, Case, Problem, make_case
from unrolled import nn as unrolled_nn

SHAPES = ((35, 20, 650, 650), (50, 7, 40, 100), (100, 1, 256, 256), (100, 32, 256, 256))
QUICK_SHAPES = ((9, 3, 64, 64),)
PEERS = ("torch", OURS, "onnxruntime", "openvino")
CHANGED = f"{OURS}, weights changed"
TWICE = ", 2 T"


def rows(settings: Settings) -> list[Row]:
    """Each shape and cell."""
    return [
        row(Problem(cell, *shape, training=False), settings)
        for shape in (QUICK_SHAPES if settings.quick else SHAPES)
        for cell in CELLS
        if settings.wants(Problem(cell, *shape, training=False).name)
    ]


def row(problem: Problem, settings: Settings) -> Row:
    """All peers with T and with 2 T steps, and the fixed cost of each."""
    twice = Problem(problem.cell, 2 * problem.T, problem.N, problem.I, problem.H, False)
    peers: dict[str, Peer] = {}
    truths: dict[str, Results] = {}
    for length, suffix in ((problem, ""), (twice, TWICE)):
        case = make_case(length)
        case_peers = peers_of(case, settings.threads)
        peers |= {name + suffix: peer for name, peer in case_peers.items()}
        truths |= dict.fromkeys((name + suffix for name in case_peers), case.truth())
    measured = harness.measure(problem.name, peers, truths, False, settings.plan)
    fixed = fixed_costs(measured["peers"])
    print(
        "  fixed: " + ", ".join(f"{who} {ms:.3f}" for who, ms in fixed.items()) + " ms", flush=True
    )
    return {**measured, "fixed_ms": fixed, **harness.describe_problem(make_case(problem))}


def peers_of(case: Case, threads: int) -> dict[str, Peer]:
    """The installed peers, and ours with changing weights."""
    makers, _ = available()
    peers = {name: makers[name](case, threads) for name in PEERS if name in makers}
    return {name: peer for name, peer in peers.items() if peer} | {CHANGED: changing(case)}


def changing(case: Case) -> Peer:
    """Our layer; before each call the last bit of one number of each weight matrix changes."""
    problem = case.problem
    layer = getattr(unrolled_nn, problem.cell)(problem.I, problem.H)
    layer.load_state_dict(case.layer.state_dict())
    numbers = [p.data.view(-1)[:1] for p in layer.parameters() if p.dim() == 2]
    contents = [[x.clone(), torch.nextafter(x, torch.ones(1))] for x in numbers]
    turns = itertools.cycle(range(2))

    def output() -> Tensor:
        turn = next(turns)
        for x, values in zip(numbers, contents, strict=True):
            x.copy_(values[turn])
        return layer(case.x)[0]

    return layer_peer(layer, case.x, case.output_gradient, False, output)


def fixed_costs(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """2 t(T) - t(2 T) by peer, in ms."""
    return {
        who: 2 * measured[who]["median_ms"] - measured[who + TWICE]["median_ms"]
        for who in measured
        if not who.endswith(TWICE)
    }


if __name__ == "__main__":
    harness.main(__doc__, {"repeated": rows})
