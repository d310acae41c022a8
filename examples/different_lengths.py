"""Sequences of different lengths in one batch: each has the same result as alone.

With `lengths=`, the final state of a sequence is the one at its end, the reverse direction starts
there, the output after it is zero, and the padding (here NaN) has no influence.

    python examples/different_lengths.py
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.nn import LSTM


def in_one_batch(net: LSTM, sequences: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Outputs [T_n, D·H] of all sequences [T_n, I] and final states [D, N, H], in one batch."""
    lengths = [len(sequence) for sequence in sequences]
    x = pad_sequence(sequences, padding_value=float("nan"))  # [T, N, I]
    y, (h_n, _) = net(x, lengths=lengths)
    return [y[:length, n] for n, length in enumerate(lengths)], h_n


def one_by_one(net: LSTM, sequences: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The same for one sequence at a time."""
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
    outputs, h_n = in_one_batch(net, sequences)
    expected, expected_h_n = one_by_one(net, sequences)
    error = max((a - b).abs().max().item() for a, b in zip(outputs, expected, strict=True))
    print(f"lengths {[len(y) for y in outputs]} in one batch padded with NaN")
    print(f"outputs differ from those of single sequences by {error:.1e}")
    print(f"final states differ by {(h_n - expected_h_n).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
