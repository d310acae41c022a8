"""Block-diagonal recurrent products (heads), compared with the dense one.

    python benchmarks/heads.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

The LSTM and the GRU with a recurrent matrix of 1, 2, 4 or 8 blocks: whole calls, with few inputs,
where the recurrent product dominates, and with as many as units; and single steps of a stream.
"""

import numpy as np
import torch
from torch import Tensor

import harness
from checks import Results
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import truth
from unrolled.cells import GRU, LSTM, product
from unrolled.nn import Recurrent

BLOCKS = (1, 2, 4, 8)
T, H = 100, 512
SHAPES = ((32, 8), (32, 512), (1, 8), (1, 512))
"""N and I."""


class HeadsLSTM(LSTM):
    """The LSTM with blocks in its recurrent matrix."""

    def __init__(self, blocks: int = 1) -> None:
        self.recurrent = product(*self.gates, blocks=blocks)


class HeadsGRU(GRU):
    """The GRU with blocks in its recurrent matrix."""

    def __init__(self, blocks: int = 1) -> None:
        self.recurrent = product(*self.gates, blocks=blocks)


CELLS = {"LSTM": HeadsLSTM, "GRU": HeadsGRU}


def rows(settings: Settings) -> list[Row]:
    """Each cell and shape: inference, training, a stream."""
    table = []
    for cell in CELLS:
        for N, I in SHAPES:  # noqa: E741
            for what in ("infer", "train", *(["stream"] if N == 1 else [])):
                name = f"{cell} {T},{N},{I},{H} {what}"
                if settings.wants(name):
                    sizes = (10, N, 8, 32) if settings.quick else (T, N, I, H)
                    table.append(_row(name, cell, sizes, what, settings))
    return table


def _row(
    name: str, cell: str, sizes: tuple[int, int, int, int], what: str, settings: Settings
) -> Row:
    steps, N, I, units = sizes  # noqa: E741
    training = what == "train"
    torch.manual_seed(0)
    x = torch.randn(steps, N, I).requires_grad_(training)
    output_gradient = torch.randn(steps, N, units)
    peers: dict[str, Peer] = {}
    truths: dict[str, Results] = {}
    for blocks in BLOCKS:
        layer = Recurrent(CELLS[cell](blocks), I, units)
        if what == "stream":
            peers[str(blocks)] = _stream(layer, x)
            truths[str(blocks)] = _dense_truth(layer, blocks, x[:1], output_gradient[:1], False)
        else:
            peers[str(blocks)] = layer_peer(layer, x, output_gradient, training)
            truths[str(blocks)] = _dense_truth(layer, blocks, x, output_gradient, training)
    measured = harness.measure(name, peers, truths, training, settings.plan)
    shape = dict(zip("TNIH", sizes, strict=True))
    return {**measured, "cell": cell, "kind": what, **shape}


def _stream(layer: Recurrent, x: Tensor) -> Peer:
    """A step of a new stream for the check; later calls go on with the state."""
    step, row = layer.stream(1).step, x[0].detach().numpy()
    out = np.empty((1, layer.hidden_size), np.float32)
    return Peer(
        lambda: step(row, out), lambda result: {"output": torch.from_numpy(result.copy())[None]}
    )


def _dense_truth(
    layer: Recurrent, blocks: int, x: Tensor, output_gradient: Tensor, training: bool
) -> Results:
    """The results in float64 of the layer whose recurrent matrix is dense, with zeros."""
    dense = Recurrent(type(layer.cell)(), layer.input_size, layer.hidden_size).double()
    parts = len(layer.cell.gates)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            value = parameter.double()
            if name == "weight_hh_l0":
                rows = [torch.block_diag(*part.chunk(blocks)) for part in value.chunk(parts)]
                value = torch.cat(rows)
            dense.get_parameter(name).copy_(value)
    results = truth(dense, x, output_gradient, training)
    if training:
        width = layer.hidden_size // blocks
        gradient = results["weight_hh_l0"].view(parts, blocks, width, blocks, width)
        diagonal = [gradient[:, k, :, k] for k in range(blocks)]
        results["weight_hh_l0"] = torch.stack(diagonal, 1).reshape(-1, width)
    return results


if __name__ == "__main__":
    harness.main(__doc__, {"heads": rows})
