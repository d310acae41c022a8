"""Checks and normalizes the arguments of layers, and converts results to the form of the input.

All errors about shapes, types and devices of inputs are raised here, in torch.nn's exception
classes. After ``InputLayout.normalize`` every call has a batch dimension and initial states, and
``BatchLayout`` describes the order of its dimensions.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled._spec import Spec
from unrolled._token_rows import BatchLayout, Major, layout_of_lengths
from unrolled.engines._episodes import Batch
from unrolled.engines._precision import States
from unrolled.engines._torch_modes import is_batched, is_tracing, to_numpy
from unrolled.nn import _phrases as phrases
from unrolled.nn._arguments import ArgumentTypeError, StateTypeError

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class NormalizedInput:
    """The tokens of a call, their batch, and what ``InputLayout.restore`` needs."""

    tokens: Tensor  # [T, N, I], [N, T, I], or packed [rows, I]
    batch: Batch
    unbatched: bool = False
    packed: PackedSequence | None = None
    order: Tensor | None = None  # [N] the user's index of sequence n; None: n

    @property
    def batch_sizes(self) -> Tensor | None:
        """The batch sizes of a packed input."""
        return None if self.packed is None else self.packed.batch_sizes


@dataclass(frozen=True)
class NormalizedCall:
    """Everything in a call that the engines need."""

    input: NormalizedInput
    states: States
    reset_states: States | None


@dataclass(frozen=True)
class InputLayout:
    """The accepted forms of input and states of one layer, or of one step of a cell.

    ``owner`` is the layer's class in messages; all tensors must have the dtype and device of
    ``weight``. With ``step`` there is no dimension of time or layers: input [N, I], states [N,
    width]. With ``symbolic`` the values of lengths and resets are unknown, and only the operator
    reads them.
    """

    spec: Spec
    owner: str
    weight: Tensor
    batch_first: bool = False
    step: bool = False
    symbolic: bool = False

    def normalize(
        self, input: object, hx: object, lengths: object, resets: object, reset_state: object
    ) -> NormalizedCall:
        """Check the arguments of a call and normalize them."""
        normalized = self.normalize_input(input, lengths, resets)
        states = self.normalize_states("hx", hx, normalized) or self._zero_states(normalized)
        reset_states = self.normalize_states("reset_state", reset_state, normalized)
        return NormalizedCall(normalized, states, reset_states)

    def normalize_input(self, input: object, lengths: object, resets: object) -> NormalizedInput:
        """Check an input with its lengths and resets, and normalize them."""
        if isinstance(input, PackedSequence) and not self.step:
            return self._normalize_packed(input, lengths, resets)
        if not isinstance(input, Tensor):
            accepted = "Tensor" if self.step else "Tensor or a PackedSequence"
            raise ArgumentTypeError(
                f"{self.owner}: input must be a {accepted}, got {type(input).__name__}"
            )
        if input.is_nested:
            raise RuntimeError(
                f"{self.owner}: input must be a Tensor, got a nested one; pass "
                "torch.nested.to_padded_tensor(input, 0.0) and lengths"
            )
        unbatched_dim = 1 if self.step else 2
        if input.dim() not in (unbatched_dim, unbatched_dim + 1):
            shapes = "[N, {I}] or [{I}]" if self.step else "[T, N, {I}] or, unbatched, [T, {I}]"
            raise ValueError(
                f"{phrases.input_dimensions(self.owner, input.dim(), self.step)}; input must have "
                f"shape {shapes.format(I=self.spec.input_size)}, got {list(input.shape)}"
            )
        self._check_tokens(input)
        unbatched = input.dim() == unbatched_dim
        major: Major = "time"
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
                f"{self.owner}: {phrases.NO_STEPS}; input must have T > 0, got shape "
                f"{list(input.shape)}"
            )
        tokens = input.unsqueeze(0) if self.step else input
        tokens = tokens.unsqueeze(1) if unbatched else tokens
        lengths = self._read_lengths(lengths, T, N)
        if self.symbolic:
            cuts = self._read_resets(resets, T, N, unbatched, None)
            batch = Batch(BatchLayout(T, N, major), cuts, lengths)
            return NormalizedInput(tokens, batch, unbatched)
        lengths_array = None if lengths is None else to_numpy(lengths, np.int64)
        layout = layout_of_lengths(T, N, major, lengths_array)
        order = None if layout.order is None else torch.from_numpy(layout.order)
        cuts = self._read_resets(resets, T, N, unbatched, order)
        return NormalizedInput(tokens, Batch(layout, cuts), unbatched, order=order)

    def _normalize_packed(
        self, input: PackedSequence, lengths: object, resets: object
    ) -> NormalizedInput:
        data, batch_sizes, order, _ = input
        if lengths is not None:
            raise ValueError(
                f"{self.owner}: lengths must be None for a PackedSequence, which has its own, got "
                f"{lengths!r}"
            )
        if data.dim() != 2:
            raise RuntimeError(
                f"{self.owner}: {phrases.dimensions(2, data.dim())}; input.data must have shape "
                f"[rows, {self.spec.input_size}], got {list(data.shape)}"
            )
        self._check_tokens(data)
        if len(batch_sizes) == 0:
            raise RuntimeError(
                f"{self.owner}: {phrases.NO_STEPS}; input.batch_sizes must not be empty"
            )
        T, N = len(batch_sizes), int(batch_sizes[0])
        if int(batch_sizes.sum()) != data.shape[0]:
            raise RuntimeError(
                f"{self.owner}: input.batch_sizes must add up to the {data.shape[0]} rows of "
                f"input.data, got {int(batch_sizes.sum())}"
            )
        packed_lengths = None
        if int(batch_sizes[-1]) != N:
            sizes = to_numpy(batch_sizes, np.int64)
            packed_lengths = (sizes > np.arange(N)[:, None]).sum(1)
        cuts = self._read_resets(resets, T, N, False, order)
        batch = Batch(BatchLayout(T, N, "packed", packed_lengths), cuts)
        return NormalizedInput(data, batch, packed=input, order=order)

    def _check_tokens(self, input: Tensor) -> None:
        if not self.step:
            self._check_input_dtype(input)
        if input.shape[-1] != self.spec.input_size:
            phrase = phrases.input_size(self.spec.input_size, input.shape[-1], self.step)
            raise RuntimeError(
                f"{self.owner}: {phrase}; input.size(-1) must be {self.spec.input_size}, got shape "
                f"{list(input.shape)}"
            )
        self._check_device("input", input, input.device)

    def _check_input_dtype(self, input: Tensor) -> None:
        if input.dtype != self.weight.dtype and not torch._C._is_any_autocast_enabled():
            error = RuntimeError if self.step else ValueError
            raise error(f"{self.owner}: {phrases.input_dtype(self.weight.dtype, input.dtype)}")

    def _check_device(self, argument: str, tensor: Tensor, input: torch.device) -> None:
        weights = self.weight.device
        if tensor.device != weights:
            tensor_name, other_device = ("parameter", weights)
            if argument != "input":
                tensor_name, other_device = ("hidden", tensor.device)
            phrase = phrases.devices(tensor_name, input, other_device)
            raise RuntimeError(
                f"{self.owner}: {phrase}; {argument} must be on {weights}, where the "
                f"weights are, got {tensor.device}"
            )

    def _read_lengths(self, lengths: object, T: int, N: int) -> Tensor | None:
        """Lengths [N] on the CPU, in the user's order."""
        if lengths is None:
            return None
        sizes = self._as_tensor("lengths", "integers", lengths)
        if sizes.dtype not in INTEGERS and sizes.numel():
            raise ValueError(f"{self.owner}: lengths must be integers, got dtype {sizes.dtype}")
        if sizes.dim() == 0 and N == 1:
            sizes = sizes[None]
        if tuple(sizes.shape) != (N,):
            raise RuntimeError(
                f"{self.owner}: lengths must have shape [{N}], an integer for each sequence, got "
                f"shape {list(sizes.shape)}"
            )
        sizes = sizes.to("cpu", torch.int64)
        if self.symbolic:
            return sizes  # the operator checks their values
        outside = (sizes < 0) | (sizes > T)
        if outside.any():
            n = int(outside.nonzero()[0])
            raise ValueError(
                f"{self.owner}: lengths must lie in [0, {T}], got lengths[{n}] = {int(sizes[n])}"
            )
        return sizes

    def _read_resets(
        self, resets: object, T: int, N: int, unbatched: bool, order: Tensor | None
    ) -> Tensor | None:
        """Resets [T, N] in the engine's order, on the CPU; None if there is none."""
        if resets is None:
            return None
        cuts = self._as_tensor("resets", "bool", resets)
        if cuts.dtype != torch.bool:
            raise ValueError(
                f"{self.owner}: resets must have dtype torch.bool, got {cuts.dtype}; "
                "use resets != 0"
            )
        rows, steps = [] if unbatched else [N], [] if self.step else [T]
        shape = [*rows, *steps] if self.batch_first else [*steps, *rows]
        if list(cuts.shape) != shape:
            raise RuntimeError(
                f"{self.owner}: resets must have shape {shape}, got {list(cuts.shape)}"
            )
        cuts = cuts.detach().cpu()
        cuts = cuts.t() if self.batch_first and not unbatched else cuts.reshape(T, N)
        are_constant = (
            not self.symbolic and not is_tracing()
        )  # values of a graph may differ in the next call
        if are_constant and not bool(cuts.any()):
            return None
        return cuts if order is None else cuts.index_select(1, order.cpu())

    def _as_tensor(self, argument: str, content: str, value: object) -> Tensor:
        if isinstance(value, Tensor) and not self.symbolic and is_batched(value):
            raise RuntimeError(
                f"{self.owner}: {argument} must not be mapped by vmap, which hides their values; "
                "share them between all calls, or pass the sequences as one batch"
            )
        try:
            return value if isinstance(value, Tensor) else torch.tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"{self.owner}: {argument} must be {content}, got {value!r}"
            ) from error

    def normalize_states(
        self, argument: str, hx: object, normalized: NormalizedInput
    ) -> States | None:
        """States as a tuple of [L·D, N, width] in the order of the batch, or None for None."""
        states = () if hx is None else self._as_states(argument, hx)
        for k in range(len(states)):
            self._check_shape(argument, states, k, normalized)
        if self.step and argument == "hx":  # torch's cells check all shapes first
            self._check_input_dtype(normalized.tokens)
        if hx is None:
            return None
        for k, state in enumerate(states):
            name = argument if len(states) == 1 else f"{argument}[{k}]"
            self._check_state(name, state, normalized)
        if self.step:
            states = tuple(state[None] for state in states)
        if normalized.unbatched:
            states = tuple(state[:, None] for state in states)
        if argument == "reset_state":
            states = tuple(state.expand(-1, normalized.batch.N, -1) for state in states)
        return _reorder(states, normalized.order)

    def _as_states(self, argument: str, hx: object) -> States:
        names = self.spec.cell.states
        got = type(hx).__name__
        if len(names) == 1:
            if not isinstance(hx, Tensor):
                raise ArgumentTypeError(f"{self.owner}: {argument} must be a Tensor, got {got}")
            return (hx,)
        expected = f"a tuple of {len(names)} tensors ({', '.join(names)})"
        if not isinstance(hx, tuple | list) or not all(isinstance(s, Tensor) for s in hx):
            raise StateTypeError(f"{self.owner}: {argument} must be {expected}, got {got}")
        if len(hx) != len(names):
            raise RuntimeError(f"{self.owner}: {argument} must be {expected}, got {len(hx)}")
        return tuple(hx)

    def _check_shape(
        self, argument: str, states: States, k: int, normalized: NormalizedInput
    ) -> None:
        state, width, N = states[k], self.spec.state_widths[k], normalized.batch.N
        name = argument if len(states) == 1 else f"{argument}[{k}]"
        layers = [] if self.step else [self.spec.num_layers * self.spec.num_directions]
        shape = [*layers, width] if normalized.unbatched else [*layers, N, width]
        got = list(state.shape)
        if self.step and state.dim() not in (1, 2):
            state_name = "hidden" if len(states) == 1 else name
            phrase = phrases.state_dimensions_of_step(self.owner, state_name, state.dim())
            raise ValueError(f"{phrase}; {name} must have shape {shape}, got {got}")
        shared_shape = [*layers, 1, width] if argument == "reset_state" else shape
        if not (_has_shape(state, shape) or _has_shape(state, shared_shape)):
            is_shared = argument == "reset_state"
            phrase = "" if is_shared else self._phrase_of_shape(states, k, shape, normalized)
            batch = "unbatched" if normalized.unbatched else "batched"
            raise RuntimeError(
                f"{self.owner}: {phrase}{name} must have shape {shape} for {batch} input, got "
                f"{got}" + (f" (or {shared_shape}, shared by all)" if is_shared else "")
            )

    def _check_state(self, name: str, state: Tensor, normalized: NormalizedInput) -> None:
        if state.dtype != self.weight.dtype and not torch._C._is_any_autocast_enabled():
            raise RuntimeError(
                f"{self.owner}: {name} must have dtype {self.weight.dtype}, which the weights "
                f"have, got {state.dtype}"
            )
        self._check_device(name, state, normalized.tokens.device)

    def _phrase_of_shape(
        self, states: States, k: int, shape: list[int], normalized: NormalizedInput
    ) -> str:
        """The message of torch.nn for a state whose shape is not ``shape``."""
        got, unbatched = [*states[k].shape], normalized.unbatched
        same_dimensions = len(got) == len(shape)
        if self.step:
            if not same_dimensions:
                return ""
            batch = [1] if unbatched else []
            return f"{phrases.state_size_of_step(k, [*batch, *shape], [*batch, *got])}; "
        if not same_dimensions and normalized.packed is None:
            dimensions = [state.dim() for state in states]
            return f"{phrases.state_dimensions(unbatched, dimensions)}; "
        if unbatched:  # torch adds the dimension of the batch before it compares
            shape, got = [shape[0], 1, shape[1]], [got[0], 1, got[1]]
        state_name = "hidden" if len(states) == 1 else f"hidden[{k}]"
        return f"{phrases.state_size(state_name, tuple(shape), got)}; "

    def _zero_states(self, normalized: NormalizedInput) -> States:
        LD = self.spec.num_layers * self.spec.num_directions
        N = normalized.batch.N
        if normalized.packed is not None and is_tracing():
            N = cast(
                int, normalized.packed.batch_sizes[0]
            )  # int() would make it a constant of the trace
        tokens = normalized.tokens
        return tuple(tokens.new_zeros(LD, N, width) for width in self.spec.state_widths)

    def restore(self, normalized: NormalizedInput, outputs: Tensor) -> Tensor | PackedSequence:
        """Outputs, which are laid out as the tokens are, in the form of the input."""
        if normalized.packed is not None:
            _, batch_sizes, order, inverse = normalized.packed
            return PackedSequence(outputs, batch_sizes, order, inverse)
        return outputs[:, 0] if normalized.unbatched else outputs

    def restore_states(self, normalized: NormalizedInput, states: States) -> Tensor | States:
        """Final states in the user's order and form; a single state is not in a tuple."""
        order = normalized.order
        states = _reorder(states, None if order is None else order.argsort())
        if normalized.unbatched:
            states = tuple(state[:, 0] for state in states)
        if self.step:
            states = tuple(state[0] for state in states)
        return states[0] if len(states) == 1 else states


def _reorder(states: States, order: Tensor | None) -> States:
    if order is None:
        return states
    return tuple(state.index_select(1, order.to(state.device)) for state in states)


def _has_shape(tensor: Tensor, shape: list[int]) -> bool:
    """Whether a tensor has a shape: number by number, since Dynamo compares no lists of symbolic
    numbers."""
    if tensor.dim() != len(shape):
        return False
    return all(actual == expected for actual, expected in zip(tensor.shape, shape, strict=True))
