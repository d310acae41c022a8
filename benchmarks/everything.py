"""The grid and every further figure, one after the other, into one file of results.

python benchmarks/everything.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]
"""

import floor
import grid
import half
import harness
import latency
import memory
import published
import ragged
import report
import several
import short
import stacks
import starting
import streams

SECTIONS = {
    "grid": grid.rows,
    "stacks": stacks.rows,
    "ragged": ragged.rows,
    "published": published.rows,
    "latency": latency.rows,
    "streams": streams.rows,
    "starting": starting.rows,
    "short": short.rows,
    "floor": floor.rows,
    "half": half.rows,
    "several": several.rows,
    "memory": memory.rows,
}

if __name__ == "__main__":
    report.render(harness.main(__doc__, SECTIONS))
