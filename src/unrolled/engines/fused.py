"""A whole stack as one call of torch's own fused function: what torch.jit.trace records.

A trace of it has free T and N, and runs where this library is not installed.
"""

from torch import Tensor

from unrolled.cells import LSTM
from unrolled.engines.aten import fused_function
from unrolled.engines.records import is_allowed, record_run
from unrolled.engines.request import HALF, States, transformed
from unrolled.spec import Spec


def fuses_stack(spec: Spec, values: Tensor) -> bool:
    """Whether torch has a function for the whole stack, layers and directions, on these values."""
    rounds = values.device.type == "cpu" and values.dtype in HALF  # the state, at each step
    known = fused_function(spec.cell, spec.proj_size > 0) is not None
    plain = not rounds and not transformed() and is_allowed("aten")
    return known and spec.merge == "concat" and plain


def run_fused_stack(
    spec: Spec,
    values: Tensor,
    batch_sizes: Tensor | None,
    states: States,
    parameters: list[dict[str, Tensor]],
    dropout: float,
    batch_first: bool,
    training: bool,
) -> tuple[Tensor, States]:
    """The whole stack by one call, as torch.nn's layers make it: a trace of it has free T and N.

    ``values`` [T, N, I], [N, T, I] with ``batch_first``, or packed [rows, I] with ``batch_sizes``;
    ``states`` [L·D, N, width].
    """
    function = fused_function(spec.cell, spec.proj_size > 0)
    weights = [weight for names in parameters for weight in names.values()]
    hx = states if isinstance(spec.cell, LSTM) else states[0]
    for _ in spec.sweeps:
        record_run("aten")
    options = (spec.bias, spec.num_layers, dropout, training, spec.num_directions == 2)
    if batch_sizes is None:
        outputs, *final = function(values, hx, weights, *options, batch_first)
    else:
        outputs, *final = function(values, batch_sizes, hx, weights, *options)
    return outputs, tuple(final)
