"""The door of the layers: every accepted form becomes the one ragged form, and comes back.

All errors about shapes, types and devices of inputs are raised here, in torch.nn's exception
classes; past this file there is no batch_first, no unbatched input and no missing state.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled.engines import Ragged
from unrolled.nn.arguments import ArgumentTypeError
from unrolled.spec import Spec

States = tuple[Tensor, ...]
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Form:
    """What the user passed, as far as it is needed to answer in kind."""

    ragged: Ragged
    values: Tensor  # [rows, I]
    unbatched: bool
    packed: PackedSequence | None


def enter(
    spec: Spec, who: str, batch_first: bool, input: Any, lengths: Any, resets: Any, weight: Tensor
) -> Form:
    """Check an input and describe it; ``weight`` has the dtype and device that it must have."""
    if isinstance(input, PackedSequence):
        return _enter_packed(spec, who, batch_first, input, lengths, resets, weight)
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(
            f"{who}: input must be a Tensor or a PackedSequence, got {type(input).__name__}"
        )
    if input.dim() not in (2, 3):
        raise ValueError(f"{who}: input must be 2D (unbatched) or 3D, got {input.dim()}D")
    _check_tokens(spec, who, input, weight)
    unbatched = input.dim() == 2
    if unbatched:
        T, N = input.shape[0], 1
    else:
        N, T = input.shape[:2] if batch_first else input.shape[1::-1]
    if T == 0:
        raise RuntimeError(
            f"{who}: input has no time steps, shape {list(input.shape)}; wanted T > 0"
        )
    sizes, order = _read_lengths(who, lengths, T, N)
    cuts = _read_resets(who, resets, T, N, unbatched, batch_first, order)
    major = "batch" if batch_first and not unbatched else "time"
    ragged = Ragged(T, N, major, sizes, order, cuts)  # type: ignore[arg-type]
    return Form(ragged, input.reshape(T * N, input.shape[-1]), unbatched, None)


def _enter_packed(
    spec: Spec,
    who: str,
    batch_first: bool,
    input: PackedSequence,
    lengths: Any,
    resets: Any,
    weight: Tensor,
) -> Form:
    data, batch_sizes, order, _ = input
    if lengths is not None:
        raise ValueError(f"{who}: lengths={lengths!r} and a PackedSequence, which has its own")
    if data.dim() != 2:
        raise RuntimeError(f"{who}: input.data must be 2D, got {data.dim()}D")
    _check_tokens(spec, who, data, weight)
    if len(batch_sizes) == 0:
        raise RuntimeError(f"{who}: input has no time steps, its batch_sizes are empty")
    T, N = len(batch_sizes), int(batch_sizes[0])
    if int(batch_sizes.sum()) != data.shape[0]:
        raise RuntimeError(
            f"{who}: input.batch_sizes add up to {int(batch_sizes.sum())} but input.data has "
            f"{data.shape[0]} rows"
        )
    ragged_rows = int(batch_sizes[-1]) != N
    sizes = (batch_sizes > torch.arange(N)[:, None]).sum(1) if ragged_rows else None
    cuts = _read_resets(who, resets, T, N, False, batch_first, order)
    return Form(Ragged(T, N, "packed", sizes, order, cuts), data, False, input)


def _check_tokens(spec: Spec, who: str, input: Tensor, weight: Tensor) -> None:
    if input.dtype != weight.dtype and not torch._C._is_any_autocast_enabled():
        raise ValueError(
            f"{who}: input has dtype {input.dtype}, the weights have {weight.dtype}; convert one: "
            f"input.to({weight.dtype}) or layer.to({input.dtype})"
        )
    if input.shape[-1] != spec.input_size:
        raise RuntimeError(
            f"{who}: input.size(-1) must be input_size={spec.input_size}, got {input.shape[-1]} "
            f"in shape {list(input.shape)}"
        )
    if input.device != weight.device:
        raise RuntimeError(
            f"{who}: input is on {input.device}, the weights are on {weight.device}; move one"
        )


def _read_lengths(who: str, lengths: Any, T: int, N: int) -> tuple[Tensor | None, Tensor | None]:
    """Lengths in falling order and the order that makes them so; None where all are T."""
    if lengths is None:
        return None, None
    try:
        sizes = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"{who}: lengths must be integers, got {lengths!r}") from error
    if sizes.dtype not in INTEGERS and sizes.numel():
        raise ValueError(f"{who}: lengths must be integers, got dtype {sizes.dtype}")
    if sizes.dim() == 0 and N == 1:
        sizes = sizes[None]
    if tuple(sizes.shape) != (N,):
        raise RuntimeError(
            f"{who}: lengths must hold one integer for each of the {N} sequences, got shape "
            f"{list(sizes.shape)}"
        )
    sizes = sizes.to("cpu", torch.int64)
    outside = (sizes < 0) | (sizes > T)
    if outside.any():
        n = int(outside.nonzero()[0])
        raise ValueError(f"{who}: lengths must lie in [0, {T}], got lengths[{n}] = {int(sizes[n])}")
    if bool((sizes == T).all()):
        return None, None
    sizes, order = sizes.sort(descending=True, stable=True)
    return sizes, order


def _read_resets(
    who: str,
    resets: Any,
    T: int,
    N: int,
    unbatched: bool,
    batch_first: bool,
    order: Tensor | None,
) -> Tensor | None:
    """Cuts [T, N] in the engine's order, on the CPU; None where nothing is cut."""
    if resets is None:
        return None
    try:
        resets = torch.as_tensor(resets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"{who}: resets must be bool, got {resets!r}") from error
    if resets.dtype != torch.bool:
        raise ValueError(f"{who}: resets must have dtype torch.bool, got {resets.dtype}")
    wanted = [T] if unbatched else [N, T] if batch_first else [T, N]
    if list(resets.shape) != wanted:
        raise RuntimeError(f"{who}: resets must have shape {wanted}, got {list(resets.shape)}")
    cuts = resets.detach().cpu()
    cuts = cuts[:, None] if unbatched else cuts.t() if batch_first else cuts
    if not bool(cuts.any()):
        return None
    return cuts if order is None else cuts.index_select(1, order.cpu())


def enter_states(
    spec: Spec, who: str, argument: str, hx: Any, form: Form, weight: Tensor
) -> States | None:
    """States as a tuple of [L·D, N, width] in the engine's order; None stays None."""
    if hx is None:
        return None
    widths, N = spec.state_widths, form.ragged.N
    LD = spec.num_layers * spec.num_directions
    shared = argument == "reset_state"
    for k, state in enumerate(states := _as_tuple(spec, who, argument, hx)):
        at = argument if len(states) == 1 else f"{argument}[{k}]"
        wanted = [LD, widths[k]] if form.unbatched else [LD, N, widths[k]]
        if state.dim() != len(wanted):
            kind = "unbatched 2D" if form.unbatched else "batched"
            raise RuntimeError(
                f"{who}: {at} must be {len(wanted)}D for {kind} input, got {state.dim()}D"
            )
        one_for_all = shared and not form.unbatched and list(state.shape) == [LD, 1, widths[k]]
        if list(state.shape) != wanted and not one_for_all:
            raise RuntimeError(
                f"{who}: {at} must have shape {wanted}, got {list(state.shape)}"
                + (f" (or {[LD, 1, widths[k]]}, shared by all)" if shared else "")
            )
        if state.dtype != weight.dtype and not torch._C._is_any_autocast_enabled():
            raise RuntimeError(
                f"{who}: {at} has dtype {state.dtype}, the weights have {weight.dtype}"
            )
        if state.device != weight.device:
            raise RuntimeError(
                f"{who}: {at} is on {state.device}, the weights are on {weight.device}"
            )
    if form.unbatched:
        states = tuple(state[:, None] for state in states)
    if shared:
        states = tuple(state.expand(-1, N, -1) for state in states)
    return _reorder(states, form.ragged.order)


def _as_tuple(spec: Spec, who: str, argument: str, hx: Any) -> States:
    names = spec.cell.states
    if len(names) == 1:
        if not isinstance(hx, Tensor):
            raise ArgumentTypeError(f"{who}: {argument} must be a Tensor, got {type(hx).__name__}")
        return (hx,)
    wanted = f"a tuple of {len(names)} tensors ({', '.join(names)})"
    if not isinstance(hx, tuple | list) or not all(isinstance(state, Tensor) for state in hx):
        raise ArgumentTypeError(f"{who}: {argument} must be {wanted}, got {type(hx).__name__}")
    if len(hx) != len(names):
        raise RuntimeError(f"{who}: {argument} must be {wanted}, got {len(hx)}")
    return tuple(hx)


def zero_states(spec: Spec, form: Form) -> States:
    """Default states: zeros."""
    LD = spec.num_layers * spec.num_directions
    return tuple(form.values.new_zeros(LD, form.ragged.N, width) for width in spec.state_widths)


def leave(form: Form, batch_first: bool, values: Tensor) -> Tensor | PackedSequence:
    """Outputs [rows, width] in the form of the input."""
    if form.packed is not None:
        _, batch_sizes, order, inverse = form.packed
        return PackedSequence(values, batch_sizes, order, inverse)
    if form.unbatched:
        return values
    T, N = form.ragged.T, form.ragged.N
    return values.unflatten(0, (N, T) if batch_first else (T, N))


def leave_states(form: Form, states: States) -> Tensor | States:
    """Final states in the user's order; one state alone is not wrapped."""
    order = form.ragged.order
    states = _reorder(states, None if order is None else order.argsort())
    if form.unbatched:
        states = tuple(state[:, 0] for state in states)
    return states[0] if len(states) == 1 else states


def _reorder(states: States, order: Tensor | None) -> States:
    if order is None:
        return states
    return tuple(state.index_select(1, order.to(state.device)) for state in states)
