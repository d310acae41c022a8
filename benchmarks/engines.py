"""Our layers on the native engine against torch.nn's, over the shapes of the design's table.

Both run in one process, interleaved, after their results have been compared. Prints a table in
Markdown with machine, versions, commit, medians and spread; ratios below 1 are rows that we lose.

    python benchmarks/engines.py [--rounds 15] [--threads 2]
"""

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference import interleave, machine
from unrolled import engines
from unrolled import nn as unrolled_nn

SHAPES = [
    (1, 1, 64, 64),
    (1, 1, 256, 256),
    (100, 1, 64, 64),
    (100, 1, 256, 256),
    (100, 1, 1024, 1024),
    (50, 7, 40, 100),
    (1000, 8, 128, 128),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (35, 20, 650, 650),
    (100, 128, 256, 256),
    (100, 32, 512, 512),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of each (15)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    print(f"{machine()}; {options.threads} threads, float32;")
    print(f"medians of {options.rounds} interleaved rounds in ms, torch.nn / ours = ratio, with ±")
    print("half the quartiles' distance of each.\n")
    print("| T,N,I,H | | RNN | GRU | LSTM |\n|---|---|---|---|---|")
    for shape in SHAPES:
        for training in (False, True):
            row = [entry(name, shape, training, options.rounds) for name in ("RNN", "GRU", "LSTM")]
            kind = "train" if training else "infer"
            print(f"| {','.join(map(str, shape))} | {kind} | {' | '.join(row)} |", flush=True)


def entry(name: str, shape: tuple[int, ...], training: bool, rounds: int) -> str:
    """One cell of the table."""
    medians, spreads = interleave(peers(name, shape, training), rounds)
    (theirs, ours), (a, b) = medians, spreads
    return f"{theirs:.3g} ± {a:.1g} / {ours:.3g} ± {b:.1g} = **{theirs / ours:.2f}**"


def peers(name: str, shape: tuple[int, ...], training: bool) -> list[Callable[[], Tensor]]:
    """Torch's layer and ours, with equal weights; equal results are checked."""
    T, N, I, H = shape  # noqa: E741
    torch.manual_seed(0)
    theirs = getattr(nn, name)(I, H)
    ours = getattr(unrolled_nn, name)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, I, requires_grad=training)

    def step(layer: nn.Module) -> Tensor:
        with torch.set_grad_enabled(training):
            output = layer(x)[0]
            if training:
                layer.zero_grad()
                x.grad = None
                output.square().mean().backward()
        return output

    def native(layer: nn.Module) -> Tensor:
        with engines.use("native"):
            return step(layer)

    torch.testing.assert_close(native(ours), step(theirs), rtol=1e-4, atol=1e-5)
    if training:
        native(ours)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            scale = other.grad.abs().max().item()
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4 * scale)
    return [lambda: step(theirs), lambda: native(ours)]


if __name__ == "__main__":
    main()
