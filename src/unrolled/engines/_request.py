"""What an engine is asked to do, and what it offers.

A sweep is one layer in one direction over a batch. It carries everything by value: tokens, layout,
states, parameters. Stacking layers, directions and dropout is done by ``stack``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unrolled._spec import Spec
from unrolled.cells import Cell, Sizes
from unrolled.engines._episodes import Batch
from unrolled.engines._precision import States
from unrolled.engines._torch_modes import is_transformed


@dataclass(frozen=True)
class Sweep:
    """One layer in one direction.

    ``tokens`` [T, N, I], [N, T, I] or packed [rows, I], as ``batch`` says; ``states`` and
    ``reset_states`` [N, width] each, in the order of the batch; ``reset_states`` of None are zeros.
    """

    cell: Cell
    sizes: Sizes
    batch: Batch
    reverse: bool
    tokens: Tensor
    states: States
    parameters: dict[str, Tensor]
    reset_states: States | None = None

    @property
    def is_differentiated(self) -> bool:
        """Whether a gradient may be asked of this call."""
        tensors = (self.tokens, *self.states, *self.parameters.values())
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    @property
    def is_transformed(self) -> bool:
        """Whether functorch or forward-mode differentiation is active around this call."""
        return is_transformed()

    def reset_states_or_zeros(self) -> States:
        """[N, width] each: the states that follow a cut."""
        return self.reset_states or tuple(torch.zeros_like(state) for state in self.states)


class FastPath(Protocol):
    """Runs the plainest form of a layer's call; returns None where a call has another form."""

    def __call__(
        self,
        input: object,
        hx: object,
        parameters: dict[str, nn.Parameter | None],
        batch_first: bool,
        /,
    ) -> tuple[Tensor, States] | None:
        """Output and final states, [L·D, N, width] (of a step [N, width])."""


class CompiledStack(Protocol):
    """Runs the sweeps of a stack as operators of torch, which stand in graphs and traces."""

    def refusal(self, tokens: Tensor) -> str | None:
        """None, or why there is no operator for these tokens."""

    def run_sweep(self, index: int, sweep: Sweep) -> tuple[Tensor, States]:
        """Sweep number ``index``, whose batch is as the caller gave it."""


class TracedStack(Protocol):
    """Runs a whole stack by one function of torch, which a trace holds with free T and N."""

    def supports(self, tokens: Tensor) -> bool:
        """Whether there is such a function for these tokens."""

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
        """Outputs and final states; ``tokens`` are packed where there are ``batch_sizes``."""


@dataclass(frozen=True)
class ExportedSweep:
    """A sweep without torch: the text of its program, and its arrays in the program's order."""

    program: str
    arrays: tuple[Tensor | None, ...]


class Engine(ABC):
    """A way to run sweeps. Optional methods return None where an engine does not offer them."""

    name: str
    """What users force and see."""

    @abstractmethod
    def supports(self, sweep: Sweep) -> str | None:
        """None, or the sentence that says why not."""

    @abstractmethod
    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs [..., P] with the leading dimensions of the tokens, zero where no token is, and
        the final states [N, width]."""

    def fast_path(self, spec: Spec, step: bool) -> FastPath | None:
        """For calls of a layer in their plainest form, or of a cell's single ``step``."""
        return None

    def compiled_stack(self, spec: Spec) -> CompiledStack | None:
        """For graphs of torch.compile and torch.export, and for traces."""
        return None

    def traced_stack(self, spec: Spec) -> TracedStack | None:
        """For traces of torch.jit.trace that need nothing of this library."""
        return None

    def export_sweep(
        self, cell: Cell, sizes: Sizes, parameters: Mapping[str, Tensor]
    ) -> ExportedSweep | str | None:
        """The sweep for the runtime, or the sentence that says why there is none."""
        return None
