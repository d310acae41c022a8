"""The door of the layers: every accepted form becomes the one ragged form, and comes back.

All errors about shapes, types and devices of inputs are raised here, in torch.nn's exception
classes; past this file there is no batch_first, no unbatched input and no missing state.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled.engines import Ragged, batched, tracing
from unrolled.nn import phrases
from unrolled.nn.arguments import ArgumentTypeError, StateTypeError
from unrolled.spec import Spec

States = tuple[Tensor, ...]
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Form:
    """What the user passed, as far as it is needed to answer in kind."""

    ragged: Ragged
    tokens: Tensor  # [T, N, I], [N, T, I], or as they are packed [rows, I]
    unbatched: bool
    packed: PackedSequence | None = None

    @property
    def values(self) -> Tensor:
        """[rows, I]."""
        return self.tokens.flatten(0, -2) if self.packed is None else self.tokens


@dataclass(frozen=True)
class Door:
    """The way in and out of one layer, or of one step of a cell.

    ``weight`` has the dtype and device that everything must have. With ``step`` there is no
    dimension of time, nor one of layers: input [N, I], states [N, width]. With ``symbolic`` the
    values of lengths and resets are not known: they are passed on as they came.
    """

    spec: Spec
    who: str
    weight: Tensor
    batch_first: bool = False
    step: bool = False
    symbolic: bool = False

    def enter(self, input: Any, lengths: Any, resets: Any) -> Form:
        """Check an input and what belongs to it, and describe them."""
        if isinstance(input, PackedSequence) and not self.step:
            return self._enter_packed(input, lengths, resets)
        if not isinstance(input, Tensor):
            kinds = "Tensor" if self.step else "Tensor or a PackedSequence"
            raise ArgumentTypeError(
                f"{self.who}: input must be a {kinds}, got {type(input).__name__}"
            )
        if input.is_nested:
            raise RuntimeError(
                f"{self.who}: input must be a Tensor, got a nested one; give "
                "torch.nested.to_padded_tensor(input, 0.0) and lengths"
            )
        alone = 1 if self.step else 2
        if input.dim() not in (alone, alone + 1):
            shapes = "[N, {I}] or [{I}]" if self.step else "[T, N, {I}] or, unbatched, [T, {I}]"
            raise ValueError(
                f"{phrases.input_dimensions(self.who, input.dim(), self.step)}; input must have "
                f"shape {shapes.format(I=self.spec.input_size)}, got {list(input.shape)}"
            )
        self._check_tokens(input)
        unbatched = input.dim() == alone
        major: Literal["time", "batch"] = "time"
        if self.step:
            T, N = 1, 1 if unbatched else input.shape[0]
        elif unbatched:
            T, N = input.shape[0], 1
        elif self.batch_first:
            major, (N, T) = "batch", input.shape[:2]
        else:
            T, N = input.shape[:2]
        if T == 0:
            raise RuntimeError(
                f"{self.who}: {phrases.NO_STEPS}; input must have T > 0, got shape "
                f"{list(input.shape)}"
            )
        sizes, order = self._read_lengths(lengths, T, N)
        cuts = self._read_resets(resets, T, N, unbatched, order)
        ragged = Ragged(T, N, major, sizes, order, cuts)
        tokens = input.unsqueeze(0) if self.step else input
        return Form(ragged, tokens.unsqueeze(1) if unbatched else tokens, unbatched)

    def _enter_packed(self, input: PackedSequence, lengths: Any, resets: Any) -> Form:
        data, batch_sizes, order, _ = input
        if lengths is not None:
            raise ValueError(
                f"{self.who}: lengths={lengths!r} and a PackedSequence, which has its own"
            )
        if data.dim() != 2:
            raise RuntimeError(
                f"{self.who}: {phrases.dimensions(2, data.dim())}; input.data must have shape "
                f"[rows, {self.spec.input_size}], got {list(data.shape)}"
            )
        self._check_tokens(data)
        if len(batch_sizes) == 0:
            raise RuntimeError(
                f"{self.who}: {phrases.NO_STEPS}; input.batch_sizes must not be empty"
            )
        T, N = len(batch_sizes), int(batch_sizes[0])
        if int(batch_sizes.sum()) != data.shape[0]:
            raise RuntimeError(
                f"{self.who}: input.batch_sizes add up to {int(batch_sizes.sum())} but input.data "
                f"has {data.shape[0]} rows"
            )
        differ = int(batch_sizes[-1]) != N
        sizes = (batch_sizes > torch.arange(N, device="cpu")[:, None]).sum(1) if differ else None
        cuts = self._read_resets(resets, T, N, False, order)
        return Form(Ragged(T, N, "packed", sizes, order, cuts), data, False, input)

    def _check_tokens(self, input: Tensor) -> None:
        if not self.step:
            self._check_input_dtype(input)
        if input.shape[-1] != self.spec.input_size:
            phrase = phrases.input_size(self.spec.input_size, input.shape[-1], self.step)
            raise RuntimeError(
                f"{self.who}: {phrase}; input.size(-1) must be {self.spec.input_size}, got shape "
                f"{list(input.shape)}"
            )
        self._check_device("input", input, input.device)

    def _check_input_dtype(self, input: Tensor) -> None:
        if input.dtype != self.weight.dtype and not torch._C._is_any_autocast_enabled():
            error = RuntimeError if self.step else ValueError
            raise error(f"{self.who}: {phrases.input_dtype(self.weight.dtype, input.dtype)}")

    def _check_device(self, argument: str, tensor: Tensor, input: torch.device) -> None:
        weights = self.weight.device
        if tensor.device != weights:
            kind, other = ("parameter", weights)
            if argument != "input":
                kind, other = ("hidden", tensor.device)
            raise RuntimeError(
                f"{self.who}: {phrases.devices(kind, input, other)}; {argument} must be on "
                f"{weights}, where the weights are, got {tensor.device}"
            )

    def _read_lengths(self, lengths: Any, T: int, N: int) -> tuple[Tensor | None, Tensor | None]:
        """Lengths in falling order and the order that makes them so; None where all are T."""
        if lengths is None:
            return None, None
        sizes = self._as_tensor("lengths", "integers", lengths)
        if sizes.dtype not in INTEGERS and sizes.numel():
            raise ValueError(f"{self.who}: lengths must be integers, got dtype {sizes.dtype}")
        if sizes.dim() == 0 and N == 1:
            sizes = sizes[None]
        if tuple(sizes.shape) != (N,):
            raise RuntimeError(
                f"{self.who}: lengths must hold one integer for each of the {N} sequences, got "
                f"shape {list(sizes.shape)}"
            )
        sizes = sizes.to("cpu", torch.int64)
        if self.symbolic:
            return sizes, None  # their values are the operator's business
        outside = (sizes < 0) | (sizes > T)
        if outside.any():
            n = int(outside.nonzero()[0])
            raise ValueError(
                f"{self.who}: lengths must lie in [0, {T}], got lengths[{n}] = {int(sizes[n])}"
            )
        if bool((sizes == T).all()):
            return None, None
        sizes, order = sizes.sort(descending=True, stable=True)
        return sizes, order

    def _read_resets(
        self, resets: Any, T: int, N: int, unbatched: bool, order: Tensor | None
    ) -> Tensor | None:
        """Cuts [T, N] in the engine's order, on the CPU; None where nothing is cut."""
        if resets is None:
            return None
        cuts = self._as_tensor("resets", "bool", resets)
        if cuts.dtype != torch.bool:
            raise ValueError(
                f"{self.who}: resets must have dtype torch.bool, got {cuts.dtype}; "
                "resets != 0 has it"
            )
        rows, steps = [] if unbatched else [N], [] if self.step else [T]
        wanted = [*rows, *steps] if self.batch_first else [*steps, *rows]
        if list(cuts.shape) != wanted:
            raise RuntimeError(
                f"{self.who}: resets must have shape {wanted}, got {list(cuts.shape)}"
            )
        cuts = cuts.detach().cpu()
        cuts = cuts.t() if self.batch_first and not unbatched else cuts.reshape(T, N)
        recorded = self.symbolic or tracing()  # where the next call may have other values
        if not recorded and not bool(cuts.any()):
            return None
        return cuts if order is None else cuts.index_select(1, order.cpu())

    def _as_tensor(self, argument: str, kind: str, value: Any) -> Tensor:
        if isinstance(value, Tensor) and not self.symbolic and batched(value):
            raise RuntimeError(
                f"{self.who}: {argument} cannot be mapped by vmap, which hides their values; give "
                "all the same, or let the sequences be one batch"
            )
        try:
            return value if isinstance(value, Tensor) else torch.tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"{self.who}: {argument} must be {kind}, got {value!r}"
            ) from error

    def enter_states(self, argument: str, hx: Any, form: Form) -> States | None:
        """States as a tuple of [L·D, N, width] in the engine's order; None stays None."""
        states = () if hx is None else self._as_states(argument, hx)
        for k in range(len(states)):
            self._check_shape(argument, states, k, form)
        if self.step and argument == "hx":  # torch's cells look at all shapes first
            self._check_input_dtype(form.tokens)
        if hx is None:
            return None
        shared = argument == "reset_state"
        for k, state in enumerate(states):
            self._check_state(argument if len(states) == 1 else f"{argument}[{k}]", state, form)
        if self.step:
            states = tuple(state[None] for state in states)
        if form.unbatched:
            states = tuple(state[:, None] for state in states)
        if shared:
            states = tuple(state.expand(-1, form.ragged.N, -1) for state in states)
        return _reorder(states, form.ragged.order)

    def _as_states(self, argument: str, hx: Any) -> States:
        names = self.spec.cell.states
        got = type(hx).__name__
        if len(names) == 1:
            if not isinstance(hx, Tensor):
                raise ArgumentTypeError(f"{self.who}: {argument} must be a Tensor, got {got}")
            return (hx,)
        wanted = f"a tuple of {len(names)} tensors ({', '.join(names)})"
        if not isinstance(hx, tuple | list) or not all(isinstance(s, Tensor) for s in hx):
            raise StateTypeError(f"{self.who}: {argument} must be {wanted}, got {got}")
        if len(hx) != len(names):
            raise RuntimeError(f"{self.who}: {argument} must be {wanted}, got {len(hx)}")
        return tuple(hx)

    def _check_shape(self, argument: str, states: States, k: int, form: Form) -> None:
        state, width, shared = states[k], self.spec.state_widths[k], argument == "reset_state"
        name = argument if len(states) == 1 else f"{argument}[{k}]"
        layers = [] if self.step else [self.spec.num_layers * self.spec.num_directions]
        wanted = [*layers, width] if form.unbatched else [*layers, form.ragged.N, width]
        if self.step and state.dim() not in (1, 2):
            state_name = "hidden" if len(states) == 1 else name
            phrase = phrases.state_dimensions_of_step(self.who, state_name, state.dim())
            raise ValueError(f"{phrase}; {name} must have shape {wanted}, got {list(state.shape)}")
        one_for_all = [*layers, 1, width]
        if list(state.shape) != wanted and not (shared and list(state.shape) == one_for_all):
            phrase = "" if shared else self._phrase_of_shape(states, k, wanted, form)
            batch = "unbatched" if form.unbatched else "batched"
            raise RuntimeError(
                f"{self.who}: {phrase}{name} must have shape {wanted} for {batch} input, got "
                f"{list(state.shape)}" + (f" (or {one_for_all}, shared by all)" if shared else "")
            )

    def _check_state(self, name: str, state: Tensor, form: Form) -> None:
        if state.dtype != self.weight.dtype and not torch._C._is_any_autocast_enabled():
            raise RuntimeError(
                f"{self.who}: {name} must have dtype {self.weight.dtype}, which the weights have, "
                f"got {state.dtype}"
            )
        self._check_device(name, state, form.tokens.device)

    def _phrase_of_shape(self, states: States, k: int, wanted: list[int], form: Form) -> str:
        """What torch.nn says of a state whose shape is not the wanted one."""
        got = [*states[k].shape]
        same_dimensions = len(got) == len(wanted)
        if self.step:
            if not same_dimensions:
                return ""
            lead = [1] if form.unbatched else []
            return f"{phrases.state_size_of_step(k, [*lead, *wanted], [*lead, *got])}; "
        if not same_dimensions and form.packed is None:
            dimensions = [state.dim() for state in states]
            return f"{phrases.state_dimensions(form.unbatched, dimensions)}; "
        if form.unbatched:  # torch adds the dimension of the batch before it compares
            wanted, got = [wanted[0], 1, wanted[1]], [got[0], 1, got[1]]
        state_name = "hidden" if len(states) == 1 else f"hidden[{k}]"
        return f"{phrases.state_size(state_name, tuple(wanted), got)}; "

    def zero_states(self, form: Form) -> States:
        """Default states: zeros."""
        LD = self.spec.num_layers * self.spec.num_directions
        N: Any = form.ragged.N
        if form.packed is not None and tracing():
            N = form.packed.batch_sizes[0]  # a constant of the trace otherwise
        return tuple(form.values.new_zeros(LD, N, width) for width in self.spec.state_widths)

    def leave(self, form: Form, values: Tensor) -> Tensor | PackedSequence:
        """Outputs [rows, width], or with the input's dimensions, in the form of the input."""
        if form.packed is not None:
            _, batch_sizes, order, inverse = form.packed
            return PackedSequence(values, batch_sizes, order, inverse)
        if values.dim() == 3:
            return values[:, 0] if form.unbatched else values
        if form.unbatched:
            return values
        T, N = form.ragged.T, form.ragged.N
        return values.unflatten(0, (N, T) if self.batch_first else (T, N))

    def leave_states(self, form: Form, states: States) -> Tensor | States:
        """Final states in the user's order and form; one state alone is not wrapped."""
        order = form.ragged.order
        states = _reorder(states, None if order is None else order.argsort())
        if form.unbatched:
            states = tuple(state[:, 0] for state in states)
        if self.step:
            states = tuple(state[0] for state in states)
        return states[0] if len(states) == 1 else states


def _reorder(states: States, order: Tensor | None) -> States:
    if order is None:
        return states
    return tuple(state.index_select(1, order.to(state.device)) for state in states)
