"""A sweep as one autograd function, and ``SweepCall``, which describes a call of it.

Second derivatives run the reference loop inside backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from unrolled import _core
from unrolled._token_rows import TokenRows
from unrolled.cells import Cell, Sizes
from unrolled.engines._autograd_context import AutogradContext, AutogradFunction, differentiate
from unrolled.engines._loop import run_loop
from unrolled.engines._native.call import StateShapes, compile_sweep, run_backward, run_forward
from unrolled.engines._native.programs import load_program, traced_program
from unrolled.engines._precision import States, in_float32
from unrolled.engines._torch_modes import is_batched

Item = TypeVar("Item")


@dataclass(frozen=True)
class SweepCall:
    """What forward and backward of a sweep share, except tensors.

    The tensors of a run are tokens, states (or no state for zeros), and prepared parameters in the
    order of ``names``.
    """

    cell: Cell
    sizes: Sizes
    rows: TokenRows
    state_shapes: StateShapes
    state_count: int
    names: list[str]
    bias_indices: tuple[int, ...]  # among the tensors
    compiled: _core.CompiledSweep

    @property
    def tensor_count(self) -> int:
        return 1 + self.state_count + len(self.names)

    def reached(self, needs_grad: Sequence[bool]) -> tuple[bool, ...]:
        """For each tensor, whether it needs a gradient and gets one: no gradient reaches a
        parameter that the step does not use."""
        return tuple(need and self.compiled.reached(k) for k, need in enumerate(needs_grad))


def make_sweep_call(
    cell: Cell,
    sizes: Sizes,
    rows: TokenRows,
    names: list[str],
    state_count: int,
    leading_shape: tuple[int, ...] = (),
    groups: int = 1,
    *,
    bf16_products: bool,
) -> SweepCall:
    """A call with all states [*leading_shape, N, width], or with none (``state_count`` 0); for
    ``groups`` and ``bf16_products`` see ``compile_sweep``."""
    program = traced_program(cell, sizes.projected)
    matrices = program.matrix_names()
    index_of = {name: 1 + state_count + k for k, name in enumerate(names)}
    indices = [index_of.get(name, -1) for name in program.parameter_names(cell)]
    shapes = tuple((*leading_shape, rows.N, width) for width in cell.state_widths(sizes))
    loaded = load_program(program.text, *program.sizes(sizes))
    compiled = compile_sweep(
        loaded, rows, state_count, indices, shapes, groups, bf16_products=bf16_products
    )
    biases = tuple(index_of[name] for name in matrices[1::2] if name in index_of)
    return SweepCall(cell, sizes, rows, shapes, state_count, names, biases, compiled)


class _SweepContext(AutogradContext, Protocol):
    call: SweepCall
    unsaved_biases: "_UnsavedBiases"
    output_version: "_TensorVersion"


class SweepFunction(AutogradFunction):
    """A sweep as one node of autograd.

    As with torch.nn, users may change the output in place before backward, by a relu or a mask.
    Backward reads the output, which is then recomputed.
    """

    @staticmethod
    def forward(ctx: _SweepContext, call: SweepCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        output, saved, final = run_forward(call.compiled, tensors, training=True)
        assert saved is not None
        ctx.call = call
        ctx.unsaved_biases = _UnsavedBiases(tensors, call.bias_indices)
        ctx.save_for_backward(*ctx.unsaved_biases.remove_from(tensors), output.data, saved)
        ctx.output_version = _TensorVersion(output)
        return output, *final

    @staticmethod
    def backward(ctx: _SweepContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *saved_inputs, output, saved = ctx.saved_tensors
        tensors = ctx.unsaved_biases.insert_into(saved_inputs)
        needs_grad = ctx.needs_input_grad[1:]
        call = ctx.call
        if _needs_reference(grads):
            ctx.unsaved_biases.check("the reference loop, which makes second derivatives, reads it")
            return None, *_grad_via_reference(call, tuple(tensors), needs_grad, grads)
        if ctx.output_version.changed():
            ctx.unsaved_biases.check(
                "the output, which was changed in place as well, is recomputed"
            )
            output, _, _ = run_forward(call.compiled, tensors, training=False)
        return None, *run_backward(call.compiled, tensors, output, saved, grads, needs_grad)


_EMPTY = torch.empty(0, device="cpu")


class _TensorVersion:
    """Tells whether a tensor was changed in place, without keeping its memory alive."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # shares the version counter
        self.tensor.data = _EMPTY
        self.number = tensor._version

    def changed(self) -> bool:
        return self.tensor._version != self.number


class _UnsavedBiases:
    """The biases of a run that autograd does not save: backward does not read them, so they may be
    changed in place before it.

    These are only leaves. Any other tensor could come to depend on the output, and a reference to
    it would keep its graph alive. Autograd saves those, and checks their versions; it also rejects
    tensors of inference mode, which have no version.
    """

    def __init__(self, tensors: tuple[Tensor, ...], indices: tuple[int, ...]) -> None:
        self.indices = tuple(
            k for k in indices if tensors[k].is_leaf and not tensors[k].is_inference()
        )
        leaves = [tensors[k] for k in self.indices]
        self.biases = [bias if bias.requires_grad else bias.detach() for bias in leaves]
        self.versions = [bias._version for bias in leaves]

    def remove_from(self, tensors: tuple[Tensor, ...]) -> list[Tensor | None]:
        """The tensors with None in place of these biases."""
        remaining: list[Tensor | None] = list(tensors)
        for k in self.indices:
            remaining[k] = None
        return remaining

    def insert_into(self, tensors: list[Tensor]) -> list[Tensor]:
        """All tensors of the run."""
        for k, bias in zip(self.indices, self.biases, strict=True):
            tensors[k] = bias
        return tensors

    def check(self, reason: str) -> None:
        """Raise RuntimeError, as autograd does, if a bias was changed in place."""
        for bias, version in zip(self.biases, self.versions, strict=True):
            if bias._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: a bias of shape {list(bias.shape)} is at version "
                    f"{bias._version}; expected version {version} instead: {reason}"
                )


class _PairContext(AutogradContext, Protocol):
    calls: tuple[SweepCall, SweepCall]
    unsaved_biases: _UnsavedBiases


class BidirectionalSweepFunction(AutogradFunction):
    """The two sweeps of a bidirectional layer as one node, so that the core can run them in
    parallel."""

    @staticmethod
    def forward(
        ctx: _PairContext, calls: tuple[SweepCall, SweepCall], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """From the tokens, and states and parameters of each sweep, to both outputs and the final
        states of each sweep."""
        ctx.set_materialize_grads(False)
        forward_tensors, reverse_tensors = _split_pair(calls, tensors)
        results = calls[0].compiled.forward_bidirectional(
            calls[1].compiled, forward_tensors, reverse_tensors, True, torch.get_num_threads()
        )
        (output, saved, final), (reverse_output, reverse_saved, reverse_final) = results
        ctx.calls = calls
        # The reverse sweep's states and parameters follow all tensors of the forward sweep.
        offset = calls[0].tensor_count - 1
        biases = (*calls[0].bias_indices, *(offset + k for k in calls[1].bias_indices))
        ctx.unsaved_biases = _UnsavedBiases(tensors, biases)
        inputs = ctx.unsaved_biases.remove_from(tensors)
        # Callers merge the outputs: no user can change them in place.
        ctx.save_for_backward(*inputs, output, saved, reverse_output, reverse_saved)
        return output, reverse_output, *final, *reverse_final

    @staticmethod
    def backward(ctx: _PairContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *saved_inputs, output, saved, reverse_output, reverse_saved = ctx.saved_tensors
        tensors = ctx.unsaved_biases.insert_into(saved_inputs)
        calls = ctx.calls
        needs = _split_pair(calls, ctx.needs_input_grad[1:])
        inputs = _split_pair(calls, tuple(tensors))
        count = len(calls[0].state_shapes)
        output_grads = (grads[0], *grads[2 : 2 + count]), (grads[1], *grads[2 + count :])
        if _needs_reference(grads):
            ctx.unsaved_biases.check("the reference loop, which makes second derivatives, reads it")
            forward_grads, reverse_grads = (
                _grad_via_reference(*arguments)
                for arguments in zip(calls, inputs, needs, output_grads, strict=True)
            )
        else:
            forward_grads, reverse_grads = calls[0].compiled.backward_bidirectional(
                calls[1].compiled,
                (inputs[0], output, saved, output_grads[0], needs[0]),
                (inputs[1], reverse_output, reverse_saved, output_grads[1], needs[1]),
                torch.get_num_threads(),
            )
        tokens_grad, reverse_tokens_grad = forward_grads[0], reverse_grads[0]
        if tokens_grad is None:
            tokens_grad = reverse_tokens_grad
        elif reverse_tokens_grad is not None:
            tokens_grad = tokens_grad + reverse_tokens_grad
        return None, tokens_grad, *forward_grads[1:], *reverse_grads[1:]


def _split_pair(
    calls: tuple[SweepCall, SweepCall], items: tuple[Item, ...]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The items of each sweep: that of the shared tokens, and those of its states and
    parameters."""
    end = calls[0].tensor_count
    return items[:end], (items[0], *items[end:])


def _needs_reference(grads: tuple[Tensor | None, ...]) -> bool:
    """Whether the core cannot run a backward: it is differentiated itself, or batched by vmap."""
    return torch.is_grad_enabled() or any(g is not None and is_batched(g) for g in grads)


def _grad_via_reference(
    call: SweepCall,
    tensors: tuple[Tensor, ...],
    needs_grad: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients from the reference loop, which is differentiable and can be batched."""
    with torch.enable_grad():
        output, final = run_reference(call, tensors)
    return differentiate((output, *final), grads, tensors, needs_grad)


def run_reference(call: SweepCall, tensors: tuple[Tensor, ...]) -> tuple[Tensor, States]:
    """Compute a sweep by the reference loop, which consists of torch operations only."""
    tokens, *states_and_parameters = tensors
    prepared = dict(zip(call.names, states_and_parameters[call.state_count :], strict=True))
    states = tuple(states_and_parameters[: call.state_count])
    states = states or tuple(tokens.new_zeros(shape) for shape in call.state_shapes)
    return in_float32(partial(_run_reference, call), tokens, states, prepared)


def _run_reference(
    call: SweepCall, tokens: Tensor, states: States, prepared: dict[str, Tensor]
) -> tuple[Tensor, States]:
    rows = call.rows
    row_of_each = torch.from_numpy(rows.row_of_each())
    sizes = rows.batch_sizes
    flat_states = [state.reshape(rows.N, state.shape[-1]) for state in states]
    active = tuple(state[: sizes[0]] for state in flat_states)
    packed = tokens.flatten(0, -2).index_select(0, row_of_each)
    outputs, ends = run_loop(call.cell, call.sizes, packed, sizes, active, prepared)
    final = (
        torch.cat([end, state[sizes[0] :]]).view(shape)
        for end, state, shape in zip(ends, flat_states, call.state_shapes, strict=True)
    )
    padded = outputs.new_zeros(rows.rows, outputs.shape[1]).index_copy(0, row_of_each, outputs)
    return padded.view(*tokens.shape[:-1], padded.shape[1]), tuple(final)
