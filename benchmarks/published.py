"""Published cells, compared with our LSTM and with another library of cells.

    python benchmarks/published.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

The peephole LSTM has one stage and as many products as the LSTM; the minimal gated unit has two
stages. Both are also compared with the layers of torchrecurrent, if that is installed.
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
# For each parameter of torchrecurrent (of cells.0), our parameters that it concatenates.
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
    output_gradient = torch.randn(T, N, H)
    ours, lstm = unrolled_nn.Recurrent(CELLS[cell], H, H), unrolled_nn.LSTM(H, H)
    names = {f"unrolled {cell}": ours, "unrolled LSTM": lstm}
    peers = {who: layer_peer(layer, x, output_gradient, training) for who, layer in names.items()}
    with engines.use("reference"):
        truths = {
            who: truth(copy.deepcopy(layer).double(), x, output_gradient, training)
            for who, layer in names.items()
        }
    theirs = torchrecurrent_peer(cell, ours, x, output_gradient, training)
    if theirs is not None:
        peers["torchrecurrent"] = theirs
        truths["torchrecurrent"] = truths[f"unrolled {cell}"]
    measured = harness.measure(row_name(cell, training), peers, truths, training, settings.plan)
    return {**measured, "cell": cell, "training": training, "T": T, "N": N, "H": H}


def torchrecurrent_peer(
    cell: str, ours: nn.Module, x: Tensor, output_gradient: Tensor, training: bool
) -> Peer | None:
    """Their layer with our weights; None if it is not installed."""
    try:
        layer = getattr(importlib.import_module("torchrecurrent"), cell)(
            x.shape[2], output_gradient.shape[2]
        )
    except ImportError as error:
        print(f"skipped torchrecurrent: {error}", flush=True)
        return None
    parameters = dict(ours.named_parameters())
    with torch.no_grad():
        for name, parts in THEIRS[cell].items():
            stacked = torch.cat([parameters[f"{part}_l0"] for part in parts])
            getattr(layer.cells[0], name).copy_(stacked)
    peer = layer_peer(layer, x, output_gradient, training)
    return Peer(peer.call, lambda output: _with_our_names(cell, ours, peer.results(output)))


def _with_our_names(cell: str, ours: nn.Module, results: Results) -> Results:
    """Their results under our names."""
    named: Results = {name: results[name] for name in ("output", "input") if name in results}
    for name, parts in THEIRS[cell].items():
        if f"cells.0.{name}" in results:
            sizes = [len(getattr(ours, f"{part}_l0")) for part in parts]
            gradients = results[f"cells.0.{name}"].split(sizes)
            named.update(
                {f"{p}_l0": gradient for p, gradient in zip(parts, gradients, strict=True)}
            )
    return named


if __name__ == "__main__":
    harness.main(__doc__, {"published": rows})
