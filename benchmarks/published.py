"""Published cells: what do they cost beside our LSTM, and beside another library of cells?

    python benchmarks/published.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

The peephole LSTM has one stage and as many products as the LSTM, the minimal gated unit has two
stages. Both also run against the layers of torchrecurrent, where that is installed.
"""

import copy
import importlib

import torch
from torch import Tensor, nn

import harness
from checks import Results
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import truth
from unrolled import engines
from unrolled import nn as unrolled_nn
from unrolled.cells import MGU, Cell, PeepholeLSTM

T, N, H = 100, 32, 128
CELLS: dict[str, type[Cell]] = {"PeepholeLSTM": PeepholeLSTM, "MGU": MGU}
# torchrecurrent's parameters (of cells.0), and ours whose rows they stack.
THEIRS = {
    "PeepholeLSTM": {
        "weight_ih": ["weight_ih"],
        "weight_hh": ["weight_hh"],
        "bias_ih": ["bias_ih"],
        "bias_hh": ["bias_hh"],
        "weight_ph": ["p_i", "p_f", "p_o"],
    },
    "MGU": {
        "weight_ih": ["weight_ih"],
        "weight_hh": ["weight_hh", "weight_candidate"],
        "bias_ih": ["bias_ih"],
        "bias_hh": ["bias_hh", "bias_candidate"],
    },
}


def rows(settings: Settings) -> list[Row]:
    """Each cell, forward and training."""
    sizes = (10, 4, 32) if settings.quick else (T, N, H)
    return [
        row(cell, *sizes, training, settings)
        for cell in CELLS
        for training in (False, True)
        if settings.wants(row_name(cell, training))
    ]


def row_name(cell: str, training: bool) -> str:
    return f"{cell} {'train' if training else 'infer'}"


def row(cell: str, T: int, N: int, H: int, training: bool, settings: Settings) -> Row:
    """Our layer of the cell, our LSTM, and torchrecurrent's layer of the cell."""
    torch.manual_seed(0)
    x = torch.randn(T, N, H).requires_grad_(training)
    slope = torch.randn(T, N, H)
    ours, lstm = unrolled_nn.Recurrent(CELLS[cell], H, H), unrolled_nn.LSTM(H, H)
    names = {f"unrolled {cell}": ours, "unrolled LSTM": lstm}
    peers = {who: layer_peer(layer, x, slope, training) for who, layer in names.items()}
    with engines.use("reference"):
        truths = {
            who: truth(copy.deepcopy(layer).double(), x, slope, training)
            for who, layer in names.items()
        }
    theirs = torchrecurrent_peer(cell, ours, x, slope, training)
    if theirs is not None:
        peers["torchrecurrent"] = theirs
        truths["torchrecurrent"] = truths[f"unrolled {cell}"]
    found = harness.measure(row_name(cell, training), peers, truths, training, settings.plan)
    return {**found, "cell": cell, "training": training, "T": T, "N": N, "H": H}


def torchrecurrent_peer(
    cell: str, ours: nn.Module, x: Tensor, slope: Tensor, training: bool
) -> Peer | None:
    """Their layer with our weights; None where it is not installed."""
    try:
        made = getattr(importlib.import_module("torchrecurrent"), cell)(x.shape[2], slope.shape[2])
    except ImportError as error:
        print(f"skipped torchrecurrent: {error}", flush=True)
        return None
    own = dict(ours.named_parameters())
    with torch.no_grad():
        for name, parts in THEIRS[cell].items():
            stacked = torch.cat([own[f"{part}_l0"] for part in parts])
            getattr(made.cells[0], name).copy_(stacked)
    peer = layer_peer(made, x, slope, training)
    return Peer(peer.call, lambda found: _named(cell, ours, peer.results(found)))


def _named(cell: str, ours: nn.Module, found: Results) -> Results:
    """Their results by our names."""
    named: Results = {name: found[name] for name in ("output", "input") if name in found}
    for name, parts in THEIRS[cell].items():
        if f"cells.0.{name}" in found:
            sizes = [len(getattr(ours, f"{part}_l0")) for part in parts]
            slopes = found[f"cells.0.{name}"].split(sizes)
            named.update({f"{p}_l0": slope for p, slope in zip(parts, slopes, strict=True)})
    return named


if __name__ == "__main__":
    harness.main(__doc__, {"published": rows})
