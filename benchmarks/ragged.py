"""A ragged batch, lengths uniform in 1..200: does the cost follow the tokens, not the padding?

    python benchmarks/ragged.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Ours with ``lengths=``, ours over the padding, torch packed (packing and unpacking included, for the
output is wanted padded) and torch over the padding.
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
    """One cell's four ways through one batch."""
    torch.manual_seed(0)
    lengths = torch.randint(1, longest + 1, (N,))
    T = int(lengths.max())
    theirs = getattr(nn, cell)(H, H)
    ours = getattr(unrolled_nn, cell)(H, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, H).requires_grad_(training)
    slope = torch.randn(T, N, H)

    def peer(layer: nn.Module, run: Callable[[], Tensor] | None = None) -> Peer:
        return layer_peer(layer, x, slope, training, run)

    peers = {
        "unrolled lengths": peer(ours, lambda: ours(x, lengths=lengths)[0]),
        "unrolled padded": peer(ours),
        "torch packed": peer(theirs, lambda: packed(theirs, x, lengths)[0]),
        "torch padded": peer(theirs),
    }
    truths = _truths(theirs, x, slope, lengths, training)
    wanted = {who: truths[who.split()[1] == "padded"] for who in peers}
    found = harness.measure(row_name(cell, training), peers, wanted, training, settings.plan)
    share = lengths.sum().item() / (T * N)
    return {**found, "cell": cell, "training": training, "T": T, "N": N, "H": H, "share": share}


def packed(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's way: pack, run, unpack."""
    sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(layer(sequence)[0], total_length=x.shape[0])


class Packed(nn.Module):
    """Torch's way as a module, for the truth."""

    def __init__(self, layer: nn.Module, lengths: Tensor) -> None:
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return packed(self.layer, x, self.lengths)


def _truths(
    layer: nn.Module, x: Tensor, slope: Tensor, lengths: Tensor, training: bool
) -> tuple[Results, Results]:
    """Of the ragged batch, and of the padded one."""
    wide = Packed(copy.deepcopy(layer).double(), lengths)
    ragged = truth(wide, x, slope, training)
    ragged = {name.removeprefix("layer."): tensor for name, tensor in ragged.items()}
    return ragged, truth(copy.deepcopy(layer).double(), x, slope, training)


if __name__ == "__main__":
    harness.main(__doc__, {"ragged": rows})
