"""What an engine is asked to do: one layer, one direction, over a ragged batch.

A sweep carries everything by value: data, addresses, states, parameters. Stacking layers,
directions and dropout is ``stack``'s work; doing the sweep is an engine's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unrolled.cells import Cell, Sizes
from unrolled.engines.ragged import Ragged

States = tuple[Tensor, ...]
Run = Callable[[Cell, Tensor, list[int], States, dict[str, Tensor]], tuple[Tensor, States]]
"""Cell, tokens [total, I] step by step, falling batch sizes, initial states and parameters, to
outputs [total, P] and the state that each sequence ends in."""
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Sweep:
    """One layer in one direction.

    ``values`` [rows, I] holds the tokens where ``ragged`` says; ``states`` and ``reset_states`` are
    [N, width] each, in the order of ``ragged``; a ``reset_states`` of None means zeros.
    """

    cell: Cell
    sizes: Sizes
    ragged: Ragged
    reverse: bool
    values: Tensor
    states: States
    parameters: dict[str, Tensor]
    reset_states: States | None = None

    @property
    def differentiated(self) -> bool:
        """Whether a gradient may be asked of this call."""
        tensors = (self.values, *self.states, *self.parameters.values())
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    @property
    def transformed(self) -> bool:
        """Whether functorch or forward-mode differentiation is active around this call."""
        return transformed()


def check_dtypes(values: Tensor, states: States, parameters: dict[str, Tensor]) -> None:
    """All must be in one dtype: no engine converts what the user, or autocast, did not.

    Raises:
        RuntimeError: one is in another dtype than the values.
    """
    named = {f"state {k}": state for k, state in enumerate(states)} | parameters
    for name, tensor in named.items():
        if tensor.dtype != values.dtype:
            raise RuntimeError(
                f"{name} has dtype {tensor.dtype}, wanted {values.dtype}, which the input has "
                "(autocast converts all but float64)"
            )


class Engine(Protocol):
    """A way to run a sweep. ``name`` is what users force and see."""

    name: str

    def supports(self, sweep: Sweep) -> str | None:
        """None, or the sentence that says why not."""

    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs [rows, P], zero where no token is, and the final states [N, width]."""


def in_float32(
    run: Callable[[Tensor, States, dict[str, Tensor]], tuple[Tensor, States]],
    tokens: Tensor,
    states: States,
    parameters: dict[str, Tensor],
) -> tuple[Tensor, States]:
    """What a function of tokens, states and parameters gives; half precision is computed in
    float32, state included."""
    dtype = tokens.dtype
    if dtype not in HALF:
        return run(tokens, states, parameters)
    wide = {key: value.float() for key, value in parameters.items()}
    outputs, final = run(tokens.float(), tuple(state.float() for state in states), wide)
    return outputs.to(dtype), tuple(state.to(dtype) for state in final)


def merged(outputs: list[Tensor], merge: str) -> Tensor:
    """The outputs of a layer's directions as one."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs, -1) if merge == "concat" else outputs[0] + outputs[1]


def transformed() -> bool:
    """Whether functorch or forward-mode differentiation is active."""
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def batched(tensor: Tensor) -> bool:
    """Whether vmap or a batched backward hides a tensor's values."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


def tracing() -> bool:
    """Whether torch.jit.trace records this call."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None
