"""One call of one step without gradient, ours and torch's: the price of the way in and out.

python benchmarks/latency.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]
"""

from dataclasses import replace

import harness
from harness import Row, Settings
from peers.layers import make_torch, make_unrolled
from problems import CELLS, Problem, make_case

MORE = 4  # samples are short, so there are so many times the rounds


def rows(settings: Settings) -> list[Row]:
    """T = N = 1, I = H = 64."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    made = []
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
            made.append({**row, **harness.describe_problem(case)})
    return made


if __name__ == "__main__":
    harness.main(__doc__, {"latency": rows})
