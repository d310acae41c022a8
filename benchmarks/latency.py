"""Latency of a single step without gradient, ours and torch's: the overhead of a call.

python benchmarks/latency.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]
"""

from dataclasses import replace

import harness
from harness import Row, Settings
from peers.layers import make_torch, make_unrolled
from problems import CELLS, Problem, make_case

MORE = 4  # times as many rounds, because samples are short


def rows(settings: Settings) -> list[Row]:
    """T = N = 1, I = H = 64."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    table = []
    for cell in CELLS:
        problem = Problem(cell, 1, 1, 64, 64, training=False)
        if settings.wants(problem.name):
            case = make_case(problem)
            peers = {
                "torch": make_torch(case, settings.threads),
                "unrolled": make_unrolled(case, settings.threads),
            }
            truths = dict.fromkeys(peers, case.truth())
            row = harness.measure(problem.name, peers, truths, False, plan)
            table.append({**row, **harness.describe_problem(case)})
    return table


if __name__ == "__main__":
    harness.main(__doc__, {"latency": rows})
