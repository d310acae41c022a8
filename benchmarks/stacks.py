"""Two layers in two directions, against every peer installed.

python benchmarks/stacks.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]
"""

import harness
from harness import Row, Settings
from problems import CELLS, Problem

SIZES = ((1, 64), (32, 256))  # N, H
T = 100


def rows(settings: Settings) -> list[Row]:
    """Small and large, each cell, inference and training."""
    problems = [
        Problem(cell, T, N, H, H, training, layers=2, bidirectional=True)
        for N, H in SIZES[: 1 if settings.quick else 2]
        for cell in CELLS
        for training in (False, True)
    ]
    return harness.measure_problems(problems, settings)


if __name__ == "__main__":
    harness.main(__doc__, {"stacks": rows})
