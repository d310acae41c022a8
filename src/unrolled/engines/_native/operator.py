"""A sweep as an operator of torch.library, which graphs can hold.

``torch.ops.unrolled.sweep`` is one layer in one direction. Its arguments:

- ``values`` [T, N, I], or [N, T, I] with ``batch_first``: the tokens;
- ``states`` [N, width] each; ``reset_states``, the states after a reset, the same or empty (zeros);
- ``matrices``: weight and bias (or an empty tensor) of the input product and of each product, in
  the order of the program; ``vectors`` of the cell;
- ``program``: its text (``unrolled.program._encode``); ``sizes``: [H, P], followed by I if the
  program has widths I;
- ``lengths`` [N] and ``resets`` [T, N] ([N, T]) as tensors, which only the operator reads: a graph
  neither breaks nor changes with their values;
- ``training``: whether to save what backward needs;
- ``products``: "bfloat16" if products in float32 round what they multiply, where the build can;
  "switch" if torch's switch for that decides, when the operator runs.

A list that may be empty may also be None: AOTInductor passes None for an empty list.

The results are the output, the final states, and what backward needs (empty without ``training``):
its last number tells whether products were in bfloat16.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

from unrolled.engines._autograd_context import AutogradContext
from unrolled.engines._episodes import Episodes
from unrolled.engines._native.call import run_backward, run_forward
from unrolled.engines._native.operator_arguments import SweepArguments, Tensors
from unrolled.engines._precision import allows_bf16_products

_ARGUMENTS = """Tensor values, Tensor[] states, Tensor[]? reset_states, Tensor[]? matrices,
    Tensor[]? vectors, str program, int[] sizes, bool batch_first, bool reverse, Tensor? lengths,
    Tensor? resets"""
_ARGUMENT_COUNT = 11
Item = TypeVar("Item")
_Results = tuple[Tensor, list[Tensor], Tensor]
_Grads = tuple[Tensor, Tensor, Tensor | None, Sequence[Tensor | None]]


def _forward(arguments: SweepArguments, training: bool, bf16_products: bool) -> _Results:
    arguments.check()
    episodes = arguments.find_episodes()
    compiled, tensors = arguments.compile(episodes, bf16_products)
    saved_size = arguments.saved_size(training)
    output, saved, final = run_forward(compiled, tensors, training, saved_size)
    if episodes is not None:
        index = torch.from_numpy(episodes.final)
        final = [
            torch.cat([end, state]).index_select(0, index)
            for end, state in zip(final, arguments.states, strict=True)
        ]
    if saved is None:
        saved = arguments.tokens.new_empty(saved_size, dtype=arguments.saved_dtype)
    return output.view(*arguments.tokens.shape[:2], output.shape[1]), final, saved


def _backward(
    arguments: SweepArguments,
    output: Tensor,
    saved: Tensor,
    output_grad: Tensor | None,
    final_grads: Sequence[Tensor | None],
) -> list[Tensor]:
    """Gradients of values, states, reset states, matrices (empty where there is none), vectors."""
    episodes = arguments.find_episodes()
    compiled, tensors = arguments.compile(episodes, bool(saved[-1]))
    end_grads, unchanged_grads = _grads_of_final_states(arguments, episodes, final_grads)
    row_grads = None if output_grad is None else output_grad.contiguous().flatten(0, 1)
    count = len(arguments.states)
    needs_grad = [True] * (1 + count)
    needs_grad += [m.numel() > 0 for m in (*arguments.matrices, *arguments.vectors)]
    grads = run_backward(
        compiled,
        tensors,
        output.contiguous().flatten(0, 1),
        saved[: compiled.total * arguments.load_program().saved_width].contiguous(),
        [row_grads, *end_grads],
        needs_grad,
    )
    # An operator returns tensors only; _differentiate reports where no gradient is_reached.
    tokens_grad, *tensor_grads = [
        torch.zeros_like(tensor) if grad is None else grad
        for tensor, grad in zip(tensors, grads, strict=True)
    ]
    start_grads = _grads_of_initial_states(
        arguments, episodes, tensor_grads[:count], unchanged_grads
    )
    return [tokens_grad.view(arguments.tokens.shape), *start_grads, *tensor_grads[count:]]


def _grads_of_final_states(
    arguments: SweepArguments, episodes: Episodes | None, grads: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor]]:
    """Gradients of the final states of episodes, and of states that are returned unchanged."""
    if episodes is None:
        return list(grads), []
    E, final = len(episodes.initial), torch.from_numpy(episodes.final)
    end_grads: list[Tensor | None] = []
    unchanged_grads = []
    for grad, state in zip(grads, arguments.states, strict=True):
        joint = state.new_zeros((E + arguments.N, state.shape[1]))
        if grad is not None:
            joint.index_add_(0, final, grad)
        end_grads.append(joint[:E])
        unchanged_grads.append(joint[E:])
    return end_grads, unchanged_grads


def _grads_of_initial_states(
    arguments: SweepArguments,
    episodes: Episodes | None,
    grads: list[Tensor],
    unchanged_grads: list[Tensor],
) -> list[Tensor]:
    """Gradients of the states and reset states, from those of the initial states of episodes."""
    if episodes is None:
        return [*grads, *(torch.zeros_like(state) for state in arguments.reset_states)]
    N, initial = arguments.N, torch.from_numpy(episodes.initial)
    state_grads, reset_grads = [], []
    for grad, unchanged in zip(grads, unchanged_grads, strict=True):
        joint = grad.new_zeros((2 * N, grad.shape[1])).index_add_(0, initial, grad)
        state_grads.append(joint[:N] + unchanged)
        reset_grads.append(joint[N:].clone())
    return state_grads + (reset_grads if arguments.reset_states else [])


@torch.library.custom_op(
    "unrolled::sweep",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool training, str products='') -> (Tensor, Tensor[], Tensor)",
    device_types="cpu",
)
def sweep(*arguments: object) -> _Results:
    """See the docstring of the module."""
    call, training, products = _split_arguments(arguments)
    bf16_products = products == "bfloat16" or allows_bf16_products()
    return _forward(SweepArguments.of_call(call), training, bf16_products)


def _split_arguments(arguments: Sequence[object]) -> tuple[Sequence[object], bool, str]:
    """The arguments that backward has too, ``training`` and ``products``, which old files lack.

    The layers always pass ``products``: torch keeps compiled graphs on disk by the arguments of
    operators, so that graphs with an older form of the results are not taken.
    """
    call, (training, *rest) = arguments[:_ARGUMENT_COUNT], arguments[_ARGUMENT_COUNT:]
    return call, bool(training), str(rest[0]) if rest else ""


@sweep.register_fake
def _(*arguments: object) -> _Results:
    call, training, _ = _split_arguments(arguments)
    parsed = SweepArguments.of_call(call)
    output = parsed.tokens.new_empty((*parsed.tokens.shape[:2], parsed.state_widths[0]))
    saved = parsed.tokens.new_empty(parsed.saved_size(training), dtype=parsed.saved_dtype)
    return output, [torch.empty_like(state) for state in parsed.states], saved


@torch.library.custom_op(
    "unrolled::sweep_backward",
    mutates_args=(),
    schema=f"""({_ARGUMENTS}, Tensor output, Tensor saved, Tensor? grad_output,
        Tensor?[] grad_states) -> Tensor[]""",
    device_types="cpu",
)
def sweep_backward(*arguments: object) -> list[Tensor]:
    """Gradients of the tensors of ``sweep``: values, states, reset states, matrices, vectors."""
    *call, output, saved, grad_output, grad_states = arguments
    grads = cast(_Grads, (output, saved, grad_output, grad_states))
    return _backward(SweepArguments.of_call(call), *grads)


@sweep_backward.register_fake
def _(*arguments: object) -> list[Tensor]:
    *call, _, _, _, _ = arguments
    tensors = SweepArguments.of_call(call).tensors
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


class _OperatorContext(AutogradContext, Protocol):
    training: bool
    missing_lists: list[bool]
    counts: list[int]
    constants: tuple[str, Sequence[int], bool, bool]


def _save_for_backward(ctx: _OperatorContext, inputs: tuple[object, ...], output: _Results) -> None:
    call, training, _ = _split_arguments(inputs)
    arguments, (result, _, saved) = SweepArguments.of_call(call), output
    ctx.training = training
    ctx.missing_lists = [tensors is None for tensors in call[1:5]]
    ctx.save_for_backward(*arguments.tensors, arguments.lengths, arguments.resets, result, saved)
    ctx.counts = [len(tensors) for tensors in _lists(arguments)]
    ctx.constants = (arguments.program, arguments.sizes, arguments.batch_first, arguments.reverse)


def _lists(arguments: SweepArguments) -> tuple[Tensors, ...]:
    return arguments.states, arguments.reset_states, arguments.matrices, arguments.vectors


def _differentiate(
    ctx: _OperatorContext, output_grad: Tensor | None, final_grads: list[Tensor | None], _: object
) -> tuple[object, ...]:
    if not ctx.training:
        raise RuntimeError("unrolled::sweep: training must be True for a gradient, got False")
    tokens, *tensors, lengths, resets, output, saved = ctx.saved_tensors
    lists = _split(tensors, ctx.counts)
    call = (tokens, *lists, *ctx.constants, lengths, resets)
    grads = torch.ops.unrolled.sweep_backward(*call, output, saved, output_grad, final_grads)
    reached = _reached(SweepArguments.of_call(call))
    tokens_grad, *tensor_grads = [
        grad if is_reached else None for grad, is_reached in zip(grads, reached, strict=True)
    ]
    list_grads = [
        None if missing else list_of_grads
        for list_of_grads, missing in zip(
            _split(tensor_grads, ctx.counts), ctx.missing_lists, strict=True
        )
    ]
    constants = len(ctx.needs_input_grad) - 1 - len(list_grads)
    return (tokens_grad, *list_grads, *(None,) * constants)


def _split(items: Sequence[Item], counts: Sequence[int]) -> list[list[Item]]:
    """Split items into consecutive lists of these lengths."""
    remaining = iter(items)
    return [[next(remaining) for _ in range(count)] for count in counts]


def _reached(arguments: SweepArguments) -> list[bool]:
    """For the values and each state, reset state, matrix and vector, whether a gradient reaches it:
    the states and reset states of a ragged batch may be returned unchanged."""
    products, vectors, states = arguments.load_program().reached
    is_ragged = arguments.lengths is not None or arguments.resets is not None
    return [
        products[0],
        *(reached or is_ragged for reached in states),
        *(is_ragged for _ in arguments.reset_states),
        *(reached for reached in products for _ in ("weight", "bias")),
        *vectors,
    ]


sweep.register_autograd(_differentiate, setup_context=_save_for_backward)
