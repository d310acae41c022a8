"""Latency of a single step without gradient: the overhead of a call.

python benchmarks/latency.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Ours and torch's are called as modules, ONNX Runtime as `session.run` with an array of NumPy.
"""

from dataclasses import replace

import harness
from harness import Row, Settings
from peers import OURS, Peer, available
from problems import CELLS, Problem, make_case

MORE = 4  # times as many rounds, because samples are short


def rows(settings: Settings) -> list[Row]:
    """T = N = 1, I = H = 64."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    makers, skipped = available()
    if "onnxruntime" in skipped:
        print(f"skipped onnxruntime: {skipped['onnxruntime']}", flush=True)
    table = []
    for cell in CELLS:
        problem = Problem(cell, 1, 1, 64, 64, training=False)
        if settings.wants(problem.name):
            case = make_case(problem)
            peers: dict[str, Peer] = {}
            for name in ("torch", OURS, "onnxruntime"):
                peer = makers[name](case, settings.threads) if name in makers else None
                if peer is not None:
                    peers[name] = peer
            truths = dict.fromkeys(peers, case.truth())
            row = harness.measure(problem.name, peers, truths, False, plan)
            table.append({**row, **harness.describe_problem(case)})
    return table


if __name__ == "__main__":
    harness.main(__doc__, {"latency": rows})
