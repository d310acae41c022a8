"""The interface of engines: ``Engine``, and the ``Sweep`` that it runs.

A sweep is one layer in one direction over a batch, with its tokens, their layout, states and
parameters. ``_stack`` combines sweeps to layers and directions, with dropout.
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
from unrolled.engines._precision import HALF, States, allows_bf16_products
from unrolled.engines._torch_modes import is_transformed


class Cache(Protocol):
    """What an engine keeps for a layer from call to call."""

    def clear(self) -> None:
        """Forget all of it."""


@dataclass(frozen=True)
class Sweep:
    """One layer in one direction.

    ``tokens`` [T, N, I], [N, T, I] or packed [rows, I], as ``batch.layout`` says; ``states`` and
    ``reset_states`` (None: zeros) [N, width] each, in the order of the batch. ``caches`` is what
    engines keep for this sweep of the layer, by name; a sweep without it keeps nothing.
    """

    cell: Cell
    sizes: Sizes
    batch: Batch
    reverse: bool
    tokens: Tensor
    states: States
    parameters: dict[str, Tensor]
    reset_states: States | None = None
    bf16_products: bool | None = None
    """Whether products in float32 round what they multiply to bfloat16, where an engine can; None:
    as torch's switch says, see ``allows_bf16_products``."""
    caches: dict[str, Cache] | None = None

    @property
    def is_differentiated(self) -> bool:
        """Whether a gradient of this sweep may be computed."""
        tensors = (self.tokens, *self.states, *self.parameters.values())
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    @property
    def is_transformed(self) -> bool:
        """Whether functorch or forward-mode differentiation is active around this call."""
        return is_transformed()

    @property
    def takes_bf16_products(self) -> bool:
        """Whether products multiply numbers in bfloat16, where an engine can."""
        if self.bf16_products is not None:
            return self.bf16_products
        dtype = self.tokens.dtype
        return dtype == torch.bfloat16 or (dtype == torch.float32 and allows_bf16_products())

    def clear_caches(self) -> None:
        """Free what engines keep: nothing is kept in training."""
        for cache in tuple((self.caches or {}).values()):
            cache.clear()

    def reset_states_or_zeros(self) -> States:
        """The states after a reset, [N, width] each."""
        return self.reset_states or tuple(torch.zeros_like(state) for state in self.states)


class FastPath(Protocol):
    """Runs plain calls of a layer; returns None for calls that it does not handle."""

    def __call__(
        self,
        input: object,
        hx: object,
        parameters: dict[str, nn.Parameter | None],
        batch_first: bool,
        /,
    ) -> tuple[Tensor, Tensor | States] | None:
        """Output and final states, [L·D, N, width], or [N, width] for a single step; a cell with
        one state has no tuple around it."""


class CompiledStack(Protocol):
    """Runs the sweeps of a stack as torch operators, which graphs and traces can hold."""

    def refusal(self, tokens: Tensor) -> str | None:
        """Why there is no operator for these tokens, or None."""

    def run_sweep(self, index: int, sweep: Sweep) -> tuple[Tensor, States]:
        """Run sweep number ``index``, whose batch is in the caller's order."""


class TracedStack(Protocol):
    """Runs a whole stack by one function of torch, so that a trace works for any T and N."""

    def supports(self, tokens: Tensor) -> bool:
        """Whether torch has such a function for these tokens."""

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
        """Outputs and final states; ``tokens`` are packed if ``batch_sizes`` is not None."""


@dataclass(frozen=True)
class ExportedSweep:
    """A sweep without torch: the text of its program, and its arrays in the program's order."""

    program: str
    arrays: tuple[Tensor | None, ...]


class Engine(ABC):
    """A way to run sweeps. Optional methods return None if an engine does not implement them."""

    name: str
    """The name in ``use``, ``explain`` and ``record``."""

    @abstractmethod
    def supports(self, sweep: Sweep) -> str | None:
        """Why the engine cannot run this sweep, or None if it can."""

    @abstractmethod
    def run(self, sweep: Sweep) -> tuple[Tensor, States]:
        """Outputs [..., P] with the leading dimensions of the tokens, zero in padding, and the
        final states [N, width]."""

    def arithmetic(self, sweep: Sweep) -> str:
        """The type of numbers that this sweep is computed in, for ``explain``."""
        dtype = sweep.tokens.dtype
        return str(torch.float32 if dtype in HALF else dtype).removeprefix("torch.")

    def fast_path(
        self, spec: Spec, step: bool, caches: Sequence[dict[str, Cache]]
    ) -> FastPath | None:
        """For plain calls of a layer, or of a single ``step`` of a cell; ``caches`` as in
        ``Sweep``, for each sweep."""
        return None

    def compiled_stack(self, spec: Spec) -> CompiledStack | None:
        """For graphs of torch.compile and torch.export, and for traces."""
        return None

    def traced_stack(self, spec: Spec) -> TracedStack | None:
        """For traces of torch.jit.trace that run without this library."""
        return None

    def export_sweep(
        self, cell: Cell, sizes: Sizes, parameters: Mapping[str, Tensor]
    ) -> ExportedSweep | str | None:
        """The sweep as the runtime runs it, or why it cannot be exported."""
        return None
