"""Time layers against their alternatives: torch.nn's layers, or a Python loop over the steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled import engines
from unrolled.bench._timing import Plan, Timing, interleave
from unrolled.models._cell_lookup import make_stack

TORCH, LOOP = "torch.nn", "a Python loop"
_TORCH_CLASSES = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
_TOLERANCE = 1e-3
"""Relative to the largest number: float32 sums in another order differ, over many steps."""

Call = Callable[[], list[Tensor]]


class WrongError(Exception):
    """The two layers to compare give different results."""


@dataclass(frozen=True)
class Compared:
    """One row: the times of our layer and its peer, in ms per call."""

    cell: str
    shape: tuple[int, int, int, int]
    training: bool
    ours: Timing
    peer: str
    theirs: Timing

    @property
    def ratio(self) -> float:
        """The peer's time over ours."""
        return self.theirs.median_ms / self.ours.median_ms


def compare(cell: str, shape: tuple[int, int, int, int], training: bool, plan: Plan) -> Compared:
    """Time one layer of a cell, with sizes (T, N, I, H), against its peer on the same work.

    In training a call is a forward pass, and a backward pass from a fixed output gradient to
    parameters and input; otherwise it is a forward pass in inference mode. Both have the same
    weights, inputs and threads.

    Raises:
        WrongError: the results differ.
        unrolled.models.CellNameError: the cell does not exist.
    """
    T, N, I, H = shape  # noqa: E741
    torch.manual_seed(0)
    layer = make_stack(cell, I, H)
    x = torch.randn(T, N, I, requires_grad=training)
    output_gradient = torch.randn(T, N, layer.spec.output_size)
    torch_class = _TORCH_CLASSES.get(type(layer).__name__)
    if torch_class is not None:
        torch_layer = torch_class(I, H)
        torch_layer.load_state_dict(layer.state_dict())
        peer, theirs = TORCH, _call(torch_layer, x, output_gradient, training)
    else:
        peer, theirs = LOOP, _with_reference_engine(_call(layer, x, output_gradient, training))
    calls = {"ours": _call(layer, x, output_gradient, training), "theirs": theirs}
    with torch.inference_mode(not training):
        _check(cell, calls["ours"](), theirs())
        timings = interleave(calls, plan)
    return Compared(cell, shape, training, timings["ours"], peer, timings["theirs"])


def _call(layer: nn.Module, x: Tensor, output_gradient: Tensor, training: bool) -> Call:
    leaves = [x, *layer.parameters()]

    def call() -> list[Tensor]:
        output = layer(x)[0]
        if not training:
            return [output]
        return [output, *torch.autograd.grad(output, leaves, output_gradient)]

    return call


def _with_reference_engine(call: Call) -> Call:
    def loop() -> list[Tensor]:
        with engines.use("reference"):
            return call()

    return loop


def _check(cell: str, ours: list[Tensor], theirs: list[Tensor]) -> None:
    for actual, expected in zip(ours, theirs, strict=True):
        error = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
        if not error < _TOLERANCE:
            raise WrongError(
                f"{cell}: results must agree with the peer's, but differ by {error:.2g} of the "
                "largest number"
            )


def table(rows: list[Compared]) -> str:
    """The rows as text, one line each; the peer is faster where the ratio is below 1."""
    lines = [("cell", "T,N,I,H", "", "ours, ms", "peer", "peer, ms", "peer / ours")]
    for row in rows:
        ours, theirs = (f"{t.median_ms:.3g} ± {t.spread_ms:.1g}" for t in (row.ours, row.theirs))
        shape, mode = ",".join(map(str, row.shape)), "training" if row.training else "inference"
        lines.append((row.cell, shape, mode, ours, row.peer, theirs, f"{row.ratio:.2f}"))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(f"{field:<{w}}" for field, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
