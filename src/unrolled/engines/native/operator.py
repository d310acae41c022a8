"""The sweep as an operator of torch.library: what graphs hold, everything by value.

``torch.ops.unrolled.sweep`` is one layer in one direction. Its arguments:

- ``values`` [T, N, I], or [N, T, I] with ``batch_first``;
- ``states`` [N, width] each, ``reset_states`` the same or empty (zeros): what follows a cut;
- ``matrices``: weight and bias (or an empty tensor) of the input product and of each product, in
  the order of the program; ``vectors`` the cell's own;
- ``program``: its text (``unrolled.program.encode``); ``sizes`` [H, P], and I where
  a width of the program is I;
- ``lengths`` [N] and ``resets`` [T, N] ([N, T]) as tensors: sorting them is the operator's work,
  so a graph neither breaks nor changes with their values;
- ``auxiliary``: inputs beside the tokens, a row or a step each; no program reads any yet;
- ``groups``: weights and vectors have a first dimension of so many, and the batch as many equal
  parts, each with weights of its own;
- ``first``, ``last``: the steps to run; the others' outputs are zeros; a ``last`` of -1 is T;
- ``training``: whether to keep what backward needs.

A list that may be empty may also be None: AOTInductor passes None for an empty list.

It returns output, final states, and what backward needs (empty without ``training``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.engines.episodes import Plan
from unrolled.engines.native.call import run_backward, run_forward
from unrolled.engines.native.operator_arguments import SweepArguments
from unrolled.engines.native.programs import load

_ARGUMENTS = """Tensor values, Tensor[] states, Tensor[]? reset_states, Tensor[]? matrices,
    Tensor[]? vectors, str program, int[] sizes, bool batch_first, bool reverse, Tensor? lengths,
    Tensor? resets, Tensor[]? auxiliary, int groups, SymInt first, SymInt last"""


def _forward(task: SweepArguments, training: bool) -> tuple[Tensor, list[Tensor], Tensor]:
    task.check()
    if task.groups > 1:
        outputs, finals, kept = zip(
            *(_forward(part, training) for part in task.split()), strict=True
        )
        states = [torch.cat(ends) for ends in zip(*finals, strict=True)]
        return torch.cat(outputs, task.n_axis), states, torch.cat(kept)
    plan = task.plan()
    output, saved, ends = run_forward(*task.work(plan), training)
    final = ends
    if plan is not None:
        final = [
            torch.cat([end, state]).index_select(0, plan.final)
            for end, state in zip(ends, task.states, strict=True)
        ]
    if saved is None or len(saved) < task.T * task.N:
        room = task.room(training, "new_zeros")
        if saved is not None:
            room[: len(saved)] = saved
        saved = room
    return task.whole(output), final, saved


def _backward(
    task: SweepArguments,
    output: Tensor,
    saved: Tensor,
    grad_output: Tensor | None,
    grad_states: Sequence[Tensor | None],
) -> list[Tensor]:
    """Gradients of values, states, reset states, matrices (empty where there is none), vectors."""
    if task.groups > 1:
        return _backward_groups(task, output, saved, grad_output, grad_states)
    plan = task.plan()
    work, tensors = task.work(plan)
    slopes, direct = _slopes_of_ends(task, plan, grad_states)
    rows = None if grad_output is None else task.steps(grad_output).contiguous().flatten(0, 1)
    output = task.steps(output).contiguous().flatten(0, 1)
    kept = saved[: work.total].contiguous()
    count = len(task.states)
    needs = [True] * (1 + count)
    needs += [tensor.numel() > 0 for tensor in (*task.matrices, *task.vectors)]
    results = run_backward(work, tensors, output, kept, [rows, *slopes], needs)
    # An operator gives tensors only; where no gradient arrives, autograd hears so (_differentiate).
    tokens, *found = [
        torch.zeros_like(of) if grad is None else grad
        for of, grad in zip(tensors, results, strict=True)
    ]
    starts, resets = _slopes_of_starts(task, plan, found[:count], direct)
    return [task.whole(tokens), *starts, *resets, *found[count:]]


def _slopes_of_ends(
    task: SweepArguments, plan: Plan | None, grads: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor]]:
    """Gradients of the ends of episodes, and of states that no episode leads to."""
    if plan is None:
        return list(grads), []
    E = len(plan.initial)
    direct, slopes = [], []
    for grad, state in zip(grads, task.states, strict=True):
        both = state.new_zeros((E + task.N, state.shape[1]))
        if grad is not None:
            both.index_add_(0, plan.final, grad)
        slopes.append(both[:E])
        direct.append(both[E:])
    return [*slopes], direct


def _slopes_of_starts(
    task: SweepArguments, plan: Plan | None, grads: list[Tensor], direct: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the states and of the reset states from those of the starts of episodes."""
    if plan is None:
        return grads, [torch.zeros_like(reset) for reset in task.reset_states]
    N = task.N
    starts, resets = [], []
    for grad, through in zip(grads, direct, strict=True):
        both = grad.new_zeros((2 * N, grad.shape[1])).index_add_(0, plan.initial, grad)
        starts.append(both[:N] + through)
        resets.append(both[N:].clone())
    return starts, resets if task.reset_states else []


def _backward_groups(
    task: SweepArguments,
    output: Tensor,
    saved: Tensor,
    grad_output: Tensor | None,
    grad_states: Sequence[Tensor | None],
) -> list[Tensor]:
    each, size = task.N // task.groups, len(saved) // task.groups
    results = []
    for g, part in enumerate(task.split()):
        rows = slice(g * each, (g + 1) * each)
        results.append(
            _backward(
                part,
                output.narrow(task.n_axis, g * each, each),
                saved[g * size : (g + 1) * size],
                None if grad_output is None else grad_output.narrow(task.n_axis, g * each, each),
                [None if grad is None else grad[rows] for grad in grad_states],
            )
        )
    values, *others = zip(*results, strict=True)
    count = len(task.states) + len(task.reset_states)
    states = [torch.cat(parts) for parts in others[:count]]
    weights = [torch.stack(parts) if parts[0].numel() else parts[0] for parts in others[count:]]
    return [torch.cat(values, task.n_axis), *states, *weights]


@torch.library.custom_op(
    "unrolled::sweep",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool training) -> (Tensor, Tensor[], Tensor)",
    device_types="cpu",
)
def sweep(*arguments: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """See the module."""
    *task, training = arguments
    return _forward(SweepArguments.of(*task), training)


@sweep.register_fake
def _(*arguments: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    *rest, training = arguments
    task = SweepArguments.of(*rest)
    output = task.values.new_empty((*task.values.shape[:2], task.widths[0]))
    room = task.room(training, "new_empty")
    return output, [torch.empty_like(state) for state in task.states], room


@torch.library.custom_op(
    "unrolled::sweep_backward",
    mutates_args=(),
    schema=f"""({_ARGUMENTS}, Tensor output, Tensor saved, Tensor? grad_output,
        Tensor?[] grad_states) -> Tensor[]""",
    device_types="cpu",
)
def sweep_backward(*arguments: Any) -> list[Tensor]:
    """Gradients of what ``sweep`` was given: values, states, reset states, matrices, vectors."""
    *task, output, saved, grad_output, grad_states = arguments
    return _backward(SweepArguments.of(*task), output, saved, grad_output, grad_states)


@sweep_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    task = SweepArguments.of(*arguments[:15])
    like = [task.values, *task.states, *task.reset_states, *task.matrices, *task.vectors]
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in like]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    *rest, ctx.training = inputs
    task, (result, _, saved) = SweepArguments.of(*rest), output
    ctx.absent = [arguments is None for arguments in rest[1:5]]
    ctx.auxiliary = None if rest[11] is None else []
    tensors = [task.values, *task.states, *task.reset_states, *task.matrices, *task.vectors]
    ctx.save_for_backward(*tensors, task.lengths, task.resets, result, saved)
    ctx.counts = [len(task.states), len(task.reset_states), len(task.matrices), len(task.vectors)]
    ctx.rest = (task.program, task.sizes, task.batch_first, task.reverse)
    ctx.end = (task.groups, task.first, task.last)


def _differentiate(
    ctx: Any, grad_output: Tensor | None, grad_states: list[Tensor | None], _: Any
) -> tuple[Any, ...]:
    if not ctx.training:
        raise RuntimeError("unrolled::sweep: training must be True for a gradient, got False")
    values, *kept = ctx.saved_tensors
    lists = []
    for count in ctx.counts:
        lists.append(list(kept[:count]))
        kept = kept[count:]
    lengths, resets, output, saved = kept
    task = (values, *lists, *ctx.rest, lengths, resets, [], *ctx.end)
    found = torch.ops.unrolled.sweep_backward(*task, output, saved, grad_output, grad_states)
    reached = _reached(SweepArguments.of(*task), ctx.counts)
    grads = [grad if arrives else None for grad, arrives in zip(found, reached, strict=True)]
    first, *rest = grads
    groups: list[Any] = []
    for count, absent in zip(ctx.counts, ctx.absent, strict=True):
        groups.append(None if absent else rest[:count])
        rest = rest[count:]
    return (first, *groups, *(None,) * 6, ctx.auxiliary, *(None,) * 4)


def _reached(task: SweepArguments, counts: list[int]) -> list[bool]:
    """Whether a gradient reaches the values, each state, reset state, matrix and vector: states are
    passed on where a sequence has no step, and so may be reset states."""
    products, vectors, states = load(task.program, *task.sizes).reached
    ragged = task.lengths is not None or task.resets is not None
    starts = [reached or ragged for reached in states]
    matrices = [reached for reached in products for _ in ("weight", "bias")]
    resets = [ragged] * counts[1]
    return [products[0], *starts, *resets, *matrices, *vectors]


sweep.register_autograd(_differentiate, setup_context=_keep)
