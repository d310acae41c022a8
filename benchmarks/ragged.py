"""Sequences of different lengths, uniform in 1 to 200: is the cost that of the tokens only?

    python benchmarks/ragged.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Our layer with `lengths=`, our layer on padded data, torch with packed sequences (including packing
and unpacking, since the output must be padded), and torch on padded data.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import harness
from checks import Results
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import truth
from unrolled import nn as unrolled_nn

LONGEST, N, H = 200, 32, 256


def rows(settings: Settings) -> list[Row]:
    """LSTM and GRU, forward and training."""
    sizes = (20, 4, 32) if settings.quick else (LONGEST, N, H)
    return [
        row(cell, *sizes, training, settings)
        for cell in ("LSTM", "GRU")
        for training in (False, True)
        if settings.wants(row_name(cell, training))
    ]


def row_name(cell: str, training: bool) -> str:
    return f"{cell} ragged {'train' if training else 'infer'}"


def row(cell: str, longest: int, N: int, H: int, training: bool, settings: Settings) -> Row:
    """One cell on one batch: ours and torch's, with and without lengths."""
    torch.manual_seed(0)
    lengths = torch.randint(1, longest + 1, (N,))
    T = int(lengths.max())
    theirs = getattr(nn, cell)(H, H)
    ours = getattr(unrolled_nn, cell)(H, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, H).requires_grad_(training)
    output_gradient = torch.randn(T, N, H)

    def peer(layer: nn.Module, run: Callable[[], Tensor] | None = None) -> Peer:
        return layer_peer(layer, x, output_gradient, training, run)

    peers = {
        "unrolled lengths": peer(ours, lambda: ours(x, lengths=lengths)[0]),
        "unrolled padded": peer(ours),
        "torch packed": peer(theirs, lambda: packed(theirs, x, lengths)[0]),
        "torch padded": peer(theirs),
    }
    truths = _truths(theirs, x, output_gradient, lengths, training)
    expected = {who: truths[who.split()[1] == "padded"] for who in peers}
    measured = harness.measure(row_name(cell, training), peers, expected, training, settings.plan)
    fraction = lengths.sum().item() / (T * N)
    return {
        **measured,
        "cell": cell,
        "training": training,
        "T": T,
        "N": N,
        "H": H,
        "share": fraction,
    }


def packed(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's layer on a packed sequence, with a padded output."""
    sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(layer(sequence)[0], total_length=x.shape[0])


class Packed(nn.Module):
    """`packed` as a module, for the expected results."""

    def __init__(self, layer: nn.Module, lengths: Tensor) -> None:
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return packed(self.layer, x, self.lengths)


def _truths(
    layer: nn.Module, x: Tensor, output_gradient: Tensor, lengths: Tensor, training: bool
) -> tuple[Results, Results]:
    """The expected results with lengths, and those on padded data."""
    reference = Packed(copy.deepcopy(layer).double(), lengths)
    ragged = truth(reference, x, output_gradient, training)
    ragged = {name.removeprefix("layer."): tensor for name, tensor in ragged.items()}
    return ragged, truth(copy.deepcopy(layer).double(), x, output_gradient, training)


if __name__ == "__main__":
    harness.main(__doc__, {"ragged": rows})
