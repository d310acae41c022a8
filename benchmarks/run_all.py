"""Run the grid and all other benchmarks, and write one file of results.

python benchmarks/run_all.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]
"""

import autograd_bound
import busy
import grid
import half
import harness
import heads
import latency
import memory
import published
import quantized
import ragged
import repeated
import report
import rested
import stacks
import startup
import streams
import training_step
import transforms

SECTIONS = {
    "grid": grid.rows,
    "stacks": stacks.rows,
    "ragged": ragged.rows,
    "published": published.rows,
    "heads": heads.rows,
    "latency": latency.rows,
    "streams": streams.rows,
    "startup": startup.rows,
    "quantized": quantized.rows,
    "autograd_bound": autograd_bound.rows,
    "half": half.rows,
    "repeated": repeated.rows,
    "training_step": training_step.rows,
    "busy": busy.rows,
    "rested": rested.rows,
    "functorch": transforms.rows,
    "memory": memory.rows,
}

if __name__ == "__main__":
    report.render(harness.main(__doc__, SECTIONS))
