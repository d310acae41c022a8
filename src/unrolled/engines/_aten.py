"""The aten engine: torch's fused recurrent functions (cuDNN on CUDA), for the cells of torch.nn.

Ragged batches are run by ``_packed``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import _VF, Tensor

from unrolled._spec import Spec
from unrolled.cells import GRU, LSTM, RNN, Cell, relu, tanh
from unrolled.engines._packed import run_packed
from unrolled.engines._precision import HALF, States
from unrolled.engines._records import is_allowed, record_run
from unrolled.engines._request import Engine, Sweep, TracedStack
from unrolled.engines._torch_modes import is_transformed

FusedFunction = Callable[..., tuple[Tensor, ...]]
"""A function such as ``torch._VF.lstm``: returns output, then the final states."""


class AtenEngine(Engine):
    """Torch's fused functions."""

    name = "aten"

    def supports(self, sweep: Sweep) -> str | None:
        """None, or why torch has no function for this sweep."""
        if fused_function(sweep.cell, sweep.sizes.projected) is None:
            return f"torch has no fused function for the cell {sweep.cell!r}"
        if sweep.sizes.H == 0:
            return "torch's fused functions take states of one unit or more"
        if sweep.is_transformed:
            return "torch's fused functions have no rules for vmap and forward-mode derivatives"
        if _rounds_states(sweep.tokens):
            return "on the CPU torch rounds the state to half precision at each step"
        return None

    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs and final states, by one fused call."""
        function = fused_function(sweep.cell, sweep.sizes.projected)
        assert function is not None
        return run_packed(sweep, partial(_run_fused, function))

    def arithmetic(self, sweep: Sweep) -> str:
        """That of torch's function, which depends on the device."""
        return f"that of torch for {str(sweep.tokens.dtype).removeprefix('torch.')}"

    def traced_stack(self, spec: Spec) -> TracedStack | None:
        """The whole stack as torch.nn's layers run it."""
        function = fused_function(spec.cell, spec.proj_size > 0)
        return None if function is None or spec.merge != "concat" else _FusedStack(spec, function)


class _FusedStack:
    """A whole stack by one call of torch's function: a trace of it works for any T and N, and does
    not need this library."""

    def __init__(self, spec: Spec, function: FusedFunction) -> None:
        self.spec = spec
        self.function = function

    def supports(self, tokens: Tensor) -> bool:
        """Whether torch's function gives the right numbers for these tokens."""
        return not _rounds_states(tokens) and not is_transformed() and is_allowed("aten")

    def run(
        self,
        tokens: Tensor,
        batch_sizes: Tensor | None,
        states: States,
        parameters: Sequence[Mapping[str, Tensor]],
        dropout: float,
        batch_first: bool,
        training: bool,
    ) -> tuple[Tensor, States]:
        """``tokens`` [T, N, I], [N, T, I] with ``batch_first``, or packed [rows, I] with
        ``batch_sizes``; ``states`` [L·D, N, width]."""
        spec = self.spec
        weights = [weight for sweep in parameters for weight in sweep.values()]
        hx = states if isinstance(spec.cell, LSTM) else states[0]
        for _ in spec.sweeps:
            record_run("aten")
        options = (spec.bias, spec.num_layers, dropout, training, spec.num_directions == 2)
        if batch_sizes is None:
            outputs, *final = self.function(tokens, hx, weights, *options, batch_first)
        else:
            outputs, *final = self.function(tokens, batch_sizes, hx, weights, *options)
        return outputs, tuple(final)


def _run_fused(
    function: FusedFunction,
    cell: Cell,
    tokens: Tensor,
    batch_sizes: list[int],
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    T, N = len(batch_sizes), batch_sizes[0]
    weights = list(parameters.values())
    stacked = tuple(state[None] for state in states)
    hx = stacked if isinstance(cell, LSTM) else stacked[0]
    # cuDNN saves what its backward needs only in training mode; dropout is 0 anyway.
    options = ("bias_ih" in parameters, 1, 0.0, torch.is_grad_enabled(), False)
    if batch_sizes[-1] == N:
        outputs, *final = function(tokens.unflatten(0, (T, N)), hx, weights, *options, False)
        outputs = outputs.flatten(0, 1)
    else:
        sizes = torch.tensor(batch_sizes, device="cpu")
        outputs, *final = function(tokens, sizes, hx, weights, *options)
    return outputs, tuple(state[0] for state in final)


def _rounds_states(tokens: Tensor) -> bool:
    """Whether torch rounds the state to half precision at each step."""
    return tokens.device.type == "cpu" and tokens.dtype in HALF


def fused_function(cell: Cell, projected: bool) -> FusedFunction | None:
    """Torch's function for this cell, or None."""
    function: FusedFunction | None = None
    if type(cell) is LSTM:
        function = _VF.lstm
    elif projected:
        pass
    elif type(cell) is GRU:
        function = _VF.gru
    elif type(cell) is RNN and cell.activation is tanh:
        function = _VF.rnn_tanh
    elif type(cell) is RNN and cell.activation is relu:
        function = _VF.rnn_relu
    return function
