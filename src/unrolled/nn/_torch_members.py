"""The members of ``torch.nn.RNNBase`` that user code accesses, under torch's names.

Nothing is cached here: weights and names are read from the parameters at each access.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unrolled._spec import Spec
from unrolled.nn import _phrases as phrases
from unrolled.nn.types import HiddenState

Shape = tuple[int, ...]


class TorchMembers(nn.Module):
    """The members of torch's layers that concern weights and checks, for layers with a ``spec``."""

    spec: Spec
    batch_first: bool
    _names: list[dict[str, str]]

    def flatten_parameters(self) -> None:
        """Does nothing: the weights are ordinary parameters. Models call it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """Parameters by layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _all_weights(self) -> list[list[str]]:
        return [list(names.values()) for names in self._names]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> Sequence[Tensor | None]:
        """The weights in torch's order, as they are now; a tuple, since a list would be a copy."""
        return tuple(getattr(self, name, None) for name in self._flat_weights_names)

    @_flat_weights.setter
    def _flat_weights(self, weights: Sequence[Tensor | None]) -> None:
        current = self._flat_weights
        if len(weights) != len(current) or any(map(_differ, weights, current)):
            raise AttributeError(
                f"{type(self).__name__}: _flat_weights must hold the layer's own parameters, got "
                "others; set the parameters themselves: layer.weight_hh_l0 = …"
            )

    def _init_flat_weights(self) -> None:
        """Does nothing: there is no list of weights."""

    def _update_flat_weights(self) -> None:
        """Does nothing: there is no list of weights."""

    def _weights_have_changed(self) -> bool:
        """Returns False: there is no list that could differ from the parameters."""
        return False

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise torch.nn's errors for a batched input, or for the data of a packed one.

        Raises:
            ValueError: its dtype is not that of the weights.
            RuntimeError: its number of dimensions or its last size is wrong.
        """
        layer, input_size = type(self).__name__, self.spec.input_size
        dtype = next(iter(self.parameters())).dtype
        if input.dtype != dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(f"{layer}: {phrases.input_dtype(dtype, input.dtype)}")
        dimensions = 3 if batch_sizes is None else 2
        if input.dim() != dimensions:
            raise RuntimeError(f"{layer}: {phrases.dimensions(dimensions, input.dim())}")
        if input.size(-1) != input_size:
            raise RuntimeError(f"{layer}: {phrases.input_size(input_size, input.size(-1), False)}")

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> Shape:
        """Shape of the first state for a batched input, or for the data of a packed one."""
        return self._expected_state(input, batch_sizes, 0)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> Shape:
        """Shape of the second state, the memory of an LSTM.

        Raises:
            AttributeError: the layer has one state.
        """
        if len(self.spec.state_widths) == 1:
            raise AttributeError(f"{type(self).__name__} has no second state")
        return self._expected_state(input, batch_sizes, 1)

    def _expected_state(self, input: Tensor, batch_sizes: Tensor | None, k: int) -> Shape:
        N = input.shape[0 if self.batch_first else 1] if batch_sizes is None else batch_sizes[0]
        rows = self.spec.num_layers * self.spec.num_directions
        return (rows, int(N), self.spec.state_widths[k])

    def check_hidden_size(
        self, hx: Tensor, expected_hidden_size: Shape, msg: str = "Expected hidden size {}, got {}"
    ) -> None:
        """Raise torch.nn's error for a state of another shape.

        Raises:
            RuntimeError: the shape differs.
        """
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(expected_hidden_size, list(hx.shape)))

    def check_forward_args(
        self, input: Tensor, hidden: HiddenState, batch_sizes: Tensor | None
    ) -> None:
        """``check_input``, and ``check_hidden_size`` of each state."""
        self.check_input(input, batch_sizes)
        states = (hidden,) if isinstance(hidden, Tensor) else hidden
        for k, state in enumerate(states):
            name = "hidden" if len(states) == 1 else f"hidden[{k}]"
            expected = self._expected_state(input, batch_sizes, k)
            self.check_hidden_size(state, expected, f"Expected {name} size {{}}, got {{}}")

    def permute_hidden(self, hx: HiddenState, permutation: Tensor | None) -> HiddenState:
        """The states with their sequences in another order."""
        if permutation is None:
            return hx
        if isinstance(hx, Tensor):
            return hx.index_select(1, permutation)
        return tuple(state.index_select(1, permutation) for state in hx)


def _differ(a: object, b: object) -> bool:
    return a is not b
