"""The grid: twelve shapes, three cells, inference and training, against every peer installed.

    python benchmarks/grid.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Our layers run as a user calls them, on the engine that they choose. Writes JSON, and beside it a
table in Markdown and a picture; ``report.py`` brings them into the docs.
"""

import harness
import report
from harness import Row, Settings
from problems import SHAPES, grid

SMALL = tuple(shape for shape in SHAPES if shape[0] * shape[1] * shape[2] * shape[3] < 5e7)


def rows(settings: Settings) -> list[Row]:
    """Every cell of the grid."""
    return harness.measure_problems(grid(SMALL if settings.quick else SHAPES), settings)


if __name__ == "__main__":
    report.render(harness.main(__doc__, {"grid": rows}))
