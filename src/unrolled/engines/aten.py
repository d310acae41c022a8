"""Torch's own fused recurrent functions, with our parameters: the way to cuDNN.

Only for the three cells of torch.nn. What makes a batch ragged is ``packed``'s work.
"""

from functools import partial
from typing import Any

import torch
from torch import _VF, Tensor

from unrolled.cells import GRU, LSTM, RNN, Cell, relu, tanh
from unrolled.engines.episodes import run_packed
from unrolled.engines.request import HALF, States, Sweep

name = "aten"


def supports(sweep: Sweep) -> str | None:
    """None, or why torch has no function for this sweep."""
    if fused_function(sweep.cell, sweep.sizes.projected) is None:
        return f"torch has no fused function for the cell {sweep.cell!r}"
    if sweep.sizes.H == 0:
        return "torch's fused functions take states of one unit or more"
    if sweep.transformed:
        return "torch's fused functions have no rules for vmap and forward-mode derivatives"
    if sweep.values.device.type == "cpu" and sweep.values.dtype in HALF:
        return "on the CPU torch rounds the state to half precision at each step"
    return None


def run(sweep: Sweep) -> tuple[Tensor, States]:
    """Outputs and final states, by one fused call."""
    return run_packed(sweep, partial(_fused, fused_function(sweep.cell, sweep.sizes.projected)))


def _fused(
    function: Any,
    cell: Cell,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    T, N = len(batch_sizes), batch_sizes[0]
    weights = list(parameters.values())
    hx = states if isinstance(cell, LSTM) else states[0]
    hx = tuple(s[None] for s in hx) if isinstance(hx, tuple) else hx[None]
    # cuDNN keeps what its backward needs only when told that it trains; dropout is 0 anyway.
    options = ("bias_ih" in parameters, 1, 0.0, torch.is_grad_enabled(), False)
    if batch_sizes[-1] == N:
        result = function(tokens.unflatten(0, (T, N)), hx, weights, *options, False)
        outputs = result[0].flatten(0, 1)
    else:
        result = function(tokens, torch.tensor(batch_sizes, device="cpu"), hx, weights, *options)
        outputs = result[0]
    return outputs, tuple(state[0] for state in result[1:])


def fused_function(cell: Cell, projected: bool) -> Any:
    """Torch's function for this cell, or None."""
    if type(cell) is LSTM:
        return _VF.lstm
    if projected:
        return None
    if type(cell) is GRU:
        return _VF.gru
    if type(cell) is RNN:
        functions: dict[Any, Any] = {tanh: _VF.rnn_tanh, relu: _VF.rnn_relu}
        return functions.get(cell.activation)
    return None
