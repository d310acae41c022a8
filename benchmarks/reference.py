"""The reference engine against torch's own unfused loop; it should take at most twice as long.

Both run in one process, interleaved, after their results have been compared. Prints a table in
Markdown with machine, versions, commit, medians and spread (half the interquartile range).

    python benchmarks/reference.py [--rounds 21] [--threads 2]
"""

import argparse
import math
import warnings

import torch
from torch import nn

from unrolled import engines
from unrolled import nn as unrolled_nn
from unrolled.bench._machine import machine
from unrolled.bench._timing import Call, Plan, interleave

T, N, I, H = 100, 32, 128, 128  # noqa: E741


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds of each (21)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (2)")
    options = parser.parse_args()
    # Disabling oneDNN makes torch warn about Intel GPUs.
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    torch.set_num_threads(options.threads)
    plan = Plan(options.rounds, budget_s=math.inf)
    print(f"{machine()}; T={T}, N={N}, I={I}, H={H}, float32;")
    print(
        f"medians of {options.rounds} interleaved rounds in ms, ± half the interquartile range.\n"
    )
    print("| | torch, unfused | reference engine | ratio |")
    print("|---|---|---|---|")
    for name in ("RNN", "GRU", "LSTM"):
        for training in (False, True):
            theirs, ours = interleave(peers(name, training), plan).values()
            mode = "forward and backward" if training else "forward"
            cells = [f"{t.median_ms:.1f} ± {t.spread_ms:.1f}" for t in (theirs, ours)]
            ratio = ours.median_ms / theirs.median_ms
            print(f"| {name}, {mode} | {' | '.join(cells)} | {ratio:.2f} |")


def peers(name: str, training: bool) -> dict[str, Call]:
    """Torch's layer without oneDNN and ours on the reference engine; results are compared first."""
    torch.manual_seed(0)
    theirs = getattr(nn, name)(I, H)
    ours = getattr(unrolled_nn, name)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, I)

    def step(layer: nn.Module) -> torch.Tensor:
        with torch.set_grad_enabled(training):
            output = layer(x)[0]
            if training:
                layer.zero_grad()
                output.square().mean().backward()
        return output

    def run_theirs() -> torch.Tensor:
        with torch.backends.mkldnn.flags(enabled=False):
            return step(theirs)

    def run_ours() -> torch.Tensor:
        with engines.use("reference"):
            return step(ours)

    torch.testing.assert_close(run_ours(), run_theirs(), rtol=1e-4, atol=1e-5)
    if training:
        for mine, theirs_parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs_parameter.grad, rtol=1e-3, atol=1e-6)
    return {"torch": run_theirs, "reference": run_ours}


if __name__ == "__main__":
    main()
