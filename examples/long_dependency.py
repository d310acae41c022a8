"""A dependency over up to 100 steps, which an LSTM learns and a simple RNN does not.

The adding problem (Hochreiter & Schmidhuber 1997): at each of 100 steps the network reads a random
number and a mark; two steps are marked, one in each half, and after the last step it must output
the sum of the two marked numbers. Both networks have the same batches, updates and learning rate.
Errors are relative to that of the mean: at 1 nothing has been learned.

The LSTM's gates are initialized for dependencies of T steps by the "chrono" biases of Tallec &
Ollivier (2018): b_f = log u, u uniform in (1, T - 1), and b_i = -b_f.

    python examples/long_dependency.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.nn import LSTM, RNN, init

T, N, H = 100, 32, 32


def batch(rows: int) -> tuple[Tensor, Tensor]:
    """Numbers and marks [T, rows, 2], and the sums of the marked numbers [rows]."""
    numbers, marks = torch.rand(T, rows), torch.zeros(T, rows)
    marks.scatter_(0, torch.randint(T // 2, (1, rows)), 1.0)
    marks.scatter_(0, torch.randint(T // 2, T, (1, rows)), 1.0)
    return torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(0)


def learn(net: RNN | LSTM, seed: int = 0, updates: int = 600) -> float:
    """Train; returns the squared error on 1000 new rows, relative to that of the mean."""
    torch.manual_seed(seed)
    head = nn.Linear(H, 1)
    parameters = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)

    def error(rows: int) -> tuple[Tensor, Tensor]:
        x, targets = batch(rows)
        y, _ = net(x)
        return F.mse_loss(head(y[-1]).squeeze(-1), targets), targets.var()

    for _ in range(updates):
        optimizer.zero_grad()
        loss, _ = error(N)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    with torch.no_grad():
        loss, variance = error(1000)
        return (loss / variance).item()


def compare(seed: int = 0) -> dict[str, float]:
    """The relative errors of the two networks."""
    torch.manual_seed(seed)
    simple, gated = RNN(2, H), LSTM(2, H)
    init.chrono_(gated, T)
    return {"RNN": learn(simple, seed), "LSTM": learn(gated, seed)}


def main() -> None:
    torch.set_num_threads(1)  # more threads are slower at these sizes
    for name, error in compare().items():
        print(f"{name:4} error {error:.3f} relative to the mean")


if __name__ == "__main__":
    main()
