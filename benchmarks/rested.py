"""Calls that come one at a time, each after a rest of 20 ms.

    python benchmarks/rested.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

After a rest the threads of a pool sleep, as between the frames of a device that answers at once.
Peers take turns, and each call counts by itself. Ours are measured on all threads and on one.
"""

import time
from collections.abc import Mapping

import torch

import harness
from busy import Candidate, candidates, statistics_of
from harness import Row, Settings
from problems import Problem, make_case
from unrolled.bench._timing import rotated

REST_S = 0.02
CALLS = 3  # of each peer in a round
CASES = [
    ("LSTM", (10, 8, 64, 64)),
    ("LSTM", (10, 16, 128, 128)),
    ("LSTM", (40, 1, 256, 256)),
    ("GRU", (40, 1, 256, 256)),
]
QUICK_CASES = [("LSTM", (5, 2, 8, 8))]


def rows(settings: Settings) -> list[Row]:
    """Each call, without gradient."""
    cases = QUICK_CASES if settings.quick else CASES
    problems = [Problem(cell, *shape, training=False) for cell, shape in cases]
    return [row(problem, settings) for problem in problems if settings.wants(problem.name)]


def row(problem: Problem, settings: Settings) -> Row:
    """Check all peers, then time them in turns."""
    case = make_case(problem)
    peers = candidates("layer", case, settings.threads)
    with torch.inference_mode():
        errors = {}
        for who, candidate in peers.items():
            torch.set_num_threads(candidate.threads)
            errors[who] = harness.checked(
                f"{problem.name}, {who}", candidate.peer, candidate.expected
            )
        samples = sample(peers, settings)
    torch.set_num_threads(settings.threads)
    timings = {who: {**statistics_of(samples[who]), **errors[who]} for who in peers}
    texts = [f"{who} {t['mean_ms']:.3g} ({t['p90_ms']:.3g})" for who, t in timings.items()]
    print(f"{problem.name} after a rest: mean {', '.join(texts)} ms (90 % below)", flush=True)
    return {"name": problem.name, "peers": timings, **harness.describe_problem(case)}


def sample(peers: Mapping[str, Candidate], settings: Settings) -> dict[str, list[float]]:
    """The times of all calls in ms."""
    samples: dict[str, list[float]] = {who: [] for who in peers}
    for k in range(settings.plan.rounds):
        for who in rotated(list(peers), k):
            torch.set_num_threads(peers[who].threads)
            peers[who].peer.call()
            for _ in range(CALLS):
                time.sleep(REST_S)
                start = time.perf_counter()
                peers[who].peer.call()
                samples[who].append((time.perf_counter() - start) * 1e3)
    return samples


if __name__ == "__main__":
    harness.main(__doc__, {"rested": rows})
