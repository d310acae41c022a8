"""Sequences of different lengths in one batch: each gets what it would get alone.

With `lengths=` a row's final state is the one at its own end, the reverse direction starts there,
the output behind it is zero, and what lies in the padding (here NaN) never matters.

    python examples/different_lengths.py
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.nn import LSTM


def together(net: LSTM, sequences: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Outputs [T_n, D·H] of all sequences [T_n, I] and final states [D, N, H], in one batch."""
    lengths = [len(sequence) for sequence in sequences]
    x = pad_sequence(sequences, padding_value=float("nan"))  # [T, N, I]
    y, (h_n, _) = net(x, lengths=lengths)
    return [y[:length, n] for n, length in enumerate(lengths)], h_n


def alone(net: LSTM, sequences: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The same, one sequence at a time."""
    outputs, states = [], []
    for sequence in sequences:
        y, (h_n, _) = net(sequence)
        outputs.append(y)
        states.append(h_n)
    return outputs, torch.stack(states, dim=1)


def main() -> None:
    torch.manual_seed(0)
    net = LSTM(5, 6, bidirectional=True)
    sequences = [torch.randn(T, 5) for T in (3, 9, 1, 6)]
    outputs, h_n = together(net, sequences)
    wanted, h_wanted = alone(net, sequences)
    apart = max((a - b).abs().max().item() for a, b in zip(outputs, wanted, strict=True))
    print(f"lengths {[len(y) for y in outputs]} in one batch padded with NaN")
    print(f"outputs differ from each sequence alone by {apart:.1e}")
    print(f"final states by {(h_n - h_wanted).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
