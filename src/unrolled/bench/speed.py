"""Layers against what they stand in for, in turns: torch's own, or the cell's step in a loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled import engines
from unrolled.bench.timing import Plan, Timing, interleave
from unrolled.models.cell_lookup import make_stack

__all__ = ["LOOP", "TORCH", "WrongError", "compare", "table"]

TORCH, LOOP = "torch.nn", "a Python loop"
_CLASSIC = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
_NEAR = 1e-3
"""Of the largest number: float32 sums in another order, in sweeps over many steps."""

Call = Callable[[], list[Tensor]]


class WrongError(Exception):
    """The two that are to be compared do not give the same numbers."""


@dataclass(frozen=True)
class Compared:
    """One row: our layer and its peer, in ms a call."""

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
    """Time one layer of that cell, (T, N, I, H), against its peer on the same work.

    In training a call is forward, then backward from a fixed slope to parameters and input; else it
    is forward in inference mode. Both get the same weights, inputs and threads.

    Raises:
        WrongError: their results differ.
        unrolled.models.CellNameError: there is no such cell.
    """
    T, N, I, H = shape  # noqa: E741
    torch.manual_seed(0)
    layer = make_stack(cell, I, H)
    x = torch.randn(T, N, I, requires_grad=training)
    slope = torch.randn(T, N, layer.spec.output_size)
    known = _CLASSIC.get(type(layer).__name__)
    peer, theirs = LOOP, _call(layer, x, slope, training)
    if known is not None:
        twin = known(I, H)
        twin.load_state_dict(layer.state_dict())
        peer, theirs = TORCH, _call(twin, x, slope, training)
    else:
        theirs = _looped(theirs)
    calls = {"ours": _call(layer, x, slope, training), "theirs": theirs}
    with torch.inference_mode(not training):
        _check(cell, calls["ours"](), theirs())
        found = interleave(calls, plan)
    return Compared(cell, shape, training, found["ours"], peer, found["theirs"])


def _call(layer: nn.Module, x: Tensor, slope: Tensor, training: bool) -> Call:
    wanted = [x, *layer.parameters()]

    def call() -> list[Tensor]:
        output = layer(x)[0]
        if not training:
            return [output]
        return [output, *torch.autograd.grad(output, wanted, slope)]

    return call


def _looped(call: Call) -> Call:
    def looped() -> list[Tensor]:
        with engines.use("reference"):
            return call()

    return looped


def _check(cell: str, ours: list[Tensor], theirs: list[Tensor]) -> None:
    for found, wanted in zip(ours, theirs, strict=True):
        error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)
        if not error < _NEAR:
            raise WrongError(f"{cell}: results differ by {error:.2g} of the largest")


def table(rows: list[Compared]) -> str:
    """The rows as text, one line each; a ratio below 1 is a row that we lose."""
    lines = [("cell", "T,N,I,H", "", "ours, ms", "peer", "peer, ms", "peer / ours")]
    for row in rows:
        ours, theirs = (f"{t.median_ms:.3g} ± {t.spread_ms:.1g}" for t in (row.ours, row.theirs))
        shape, kind = ",".join(map(str, row.shape)), "training" if row.training else "inference"
        lines.append((row.cell, shape, kind, ours, row.peer, theirs, f"{row.ratio:.2f}"))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(f"{field:<{w}}" for field, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
