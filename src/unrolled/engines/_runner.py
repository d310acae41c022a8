"""``Runner`` runs the stack of a layer; layers use engines only through it."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from unrolled._spec import Spec
from unrolled._token_rows import BatchLayout
from unrolled.engines._choose import ENGINES, run_on_chosen
from unrolled.engines._episodes import Batch
from unrolled.engines._precision import States
from unrolled.engines._records import is_allowed
from unrolled.engines._request import Cache, ExportedSweep, FastPath, Sweep
from unrolled.engines._stack import make_sweep, run_stack
from unrolled.engines._torch_modes import has_dispatch_mode, is_tracing, is_transformed

_PLAIN_TYPES = (Tensor, torch.nn.Parameter, FakeTensor)


class Runner:
    """Runs a stack: in graphs by operators, else each sweep on the engine chosen for it.

    A layer builds its runner in its constructor, since a graph's constants cannot be computed while
    torch traces. ``owner`` is the layer's class in messages; with ``step`` it runs one step of a
    cell, with input [N, I].
    """

    def __init__(self, spec: Spec, owner: str, step: bool = False) -> None:
        self.spec = spec
        self.owner = owner
        self.step = step
        self.fast_path: FastPath | None = None
        """For calls without lengths, resets and dropout; see ``make_fast_path``."""
        self.caches: tuple[dict[str, Cache], ...] = tuple({} for _ in spec.sweeps)
        engines = [(name, engine.compiled_stack(spec)) for name, engine in ENGINES.items()]
        self._compiled_by, self._compiled = next(
            (name, stack) for name, stack in engines if stack is not None
        )
        traced = (engine.traced_stack(spec) for engine in ENGINES.values())
        self._traced = next((stack for stack in traced if stack is not None), None)

    def __reduce__(self) -> tuple[type["Runner"], tuple[Spec, str, bool]]:
        """Copies are built from the arguments: programs of the core cannot be copied."""
        return Runner, (self.spec, self.owner, self.step)

    def make_fast_path(self) -> FastPath:
        """Build the fast path, at the first call that may take it."""
        paths = (engine.fast_path(self.spec, self.step, self.caches) for engine in ENGINES.values())
        self.fast_path = next(path for path in paths if path is not None)
        return self.fast_path

    def is_symbolic(self, input: object, checkpoint: int | bool) -> bool:
        """Whether the values of lengths and resets are unknown in a call on this input, because
        torch.compile or a trace builds a graph or tensors are fake. Such a call runs as operators,
        if there are operators for it."""
        if torch.compiler.is_compiling():
            return True
        if checkpoint and torch.is_grad_enabled():
            return False
        if not (is_tracing() or has_dispatch_mode()) or is_transformed():
            return False
        return (
            is_allowed(self._compiled_by)
            and type(input) in _PLAIN_TYPES
            and isinstance(input, Tensor)
            and self._compiled.refusal(input) is None
        )

    def run(
        self,
        batch: Batch,
        tokens: Tensor,
        states: States,
        parameters: Sequence[dict[str, Tensor]],
        reset_states: States | None,
        dropout: float = 0.0,
        checkpoint: int | bool = False,
        batch_sizes: Tensor | None = None,
        training: bool = False,
    ) -> tuple[Tensor, States]:
        """Outputs and final states [L·D, N, width] of the stack.

        ``tokens`` as in a ``Sweep``, ``batch_sizes`` those of packed tokens, ``states`` and
        ``reset_states`` [L·D, N, width] in the order of the batch, ``parameters`` one dictionary
        for each sweep.

        Raises:
            RuntimeError: a graph has lengths or resets but there is no operator, or has a gradient
                with ``checkpoint``.
        """
        if torch.compiler.is_compiling() and checkpoint and torch.is_grad_enabled():
            raise RuntimeError(
                f"{self.owner}: checkpoint must be False in a graph, got {checkpoint}: the "
                "compiler chooses what is saved for backward; set layer.checkpoint = False"
            )
        has_whole_sequences = batch.resets is None and (batch_sizes is not None or batch.is_dense)
        if is_tracing() and has_whole_sequences and self._traced and self._traced.supports(tokens):
            batch_first = batch.layout.major == "batch"
            return self._traced.run(
                tokens, batch_sizes, states, parameters, dropout, batch_first, training
            )
        arguments = (states, parameters, reset_states, dropout)
        is_symbolic = self.is_symbolic(tokens, checkpoint)
        if batch_sizes is not None and is_tracing() and is_symbolic:
            return self._run_packed_trace(batch, tokens, batch_sizes, *arguments)
        if batch_sizes is None and is_symbolic:
            refusal = self._compiled.refusal(tokens)
            if refusal is None:
                return self._run_compiled(batch, tokens, *arguments)
            if not batch.is_dense:
                got = "lengths" if batch.resets is None else "resets"
                raise RuntimeError(
                    f"{self.owner}: lengths and resets must be None in a graph without the "
                    f"operator, got {got}: {refusal}"
                )
        caches = None if torch.compiler.is_compiling() else self.caches
        run_sweep = partial(run_on_chosen, checkpoint, caches)
        return run_stack(self.spec, batch, tokens, *arguments, run_sweep)

    def _run_compiled(
        self,
        batch: Batch,
        tokens: Tensor,
        states: States,
        parameters: Sequence[dict[str, Tensor]],
        reset_states: States | None,
        dropout: float,
    ) -> tuple[Tensor, States]:
        run_sweep = self._compiled.run_sweep
        return run_stack(
            self.spec, batch, tokens, states, parameters, reset_states, dropout, run_sweep
        )

    def _run_packed_trace(
        self,
        batch: Batch,
        tokens: Tensor,
        batch_sizes: Tensor,
        states: States,
        parameters: Sequence[dict[str, Tensor]],
        reset_states: States | None,
        dropout: float,
    ) -> tuple[Tensor, States]:
        """Pad the batch for the operator, which reads lengths as a tensor, so that the trace works
        for other lengths than those of the example."""
        padded, lengths = torch._VF._pad_packed_sequence(tokens, batch_sizes, False, 0.0, -1)
        layout = BatchLayout(batch.T, batch.N, "time")
        padded_batch = Batch(layout, batch.resets, symbolic_lengths=lengths)
        output, final = self._run_compiled(
            padded_batch, padded, states, parameters, reset_states, dropout
        )
        packed, _ = torch._VF._pack_padded_sequence(output, lengths, False)
        return packed, final

    def first_sweep(
        self,
        batch: Batch,
        tokens: Tensor,
        states: States,
        parameters: Sequence[dict[str, Tensor]],
        reset_states: States | None,
    ) -> Sweep:
        """The first sweep of a call, for ``explain``."""
        return make_sweep(self.spec, 0, batch, tokens, states, parameters[0], reset_states)

    def export_sweep(self, index: int, parameters: Mapping[str, Tensor]) -> ExportedSweep | str:
        """Sweep number ``index`` as the runtime runs it, or why it cannot be exported."""
        sizes = self.spec.sweeps[index].sizes
        exports = (e.export_sweep(self.spec.cell, sizes, parameters) for e in ENGINES.values())
        return next(export for export in exports if export is not None)
