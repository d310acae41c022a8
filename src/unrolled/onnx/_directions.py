"""Layers that ``Recurrent`` cannot express: backward only, or with a cell for each direction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unrolled.nn import Recurrent

__all__ = ["Directions"]

State = Tensor | Sequence[Tensor]


class Directions(nn.Module):
    """A forward layer, a backward layer, or both with concatenated outputs; each is a one-layer
    ``Recurrent`` in one direction.

    Call it like a :class:`unrolled.nn.Recurrent`, with ``input`` [T, N, I] ([N, T, I] with
    ``batch_first``) and optionally ``hx`` and ``lengths``; it returns outputs and final states. The
    backward layer starts at the end of each sequence.

    Raises:
        ValueError: both layers are None, or the input is not 3D.
        TypeError: the input is not a tensor.
    """

    def __init__(self, forwards: Recurrent | None, backwards: Recurrent | None) -> None:
        super().__init__()
        self.forwards = forwards
        self.backwards = backwards
        layers = [layer for layer in (forwards, backwards) if layer is not None]
        if not layers:
            raise ValueError(
                "Directions: forwards or backwards must be a Recurrent, got None for both"
            )
        self.cells = tuple(layer.cell for layer in layers)
        self.hidden_size = layers[0].hidden_size

    @property
    def batch_first(self) -> bool:
        """Whether the input is [N, T, I]; setting it sets it in each direction."""
        layer = self.backwards if self.forwards is None else self.forwards
        return layer is not None and layer.batch_first

    @batch_first.setter
    def batch_first(self, value: bool) -> None:
        for layer in (self.forwards, self.backwards):
            if layer is not None:
                layer.batch_first = value

    @property
    def num_directions(self) -> int:
        """The number of directions, 1 or 2."""
        return len(self.cells)

    def forward(
        self,
        input: Tensor,
        hx: State | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Run over a batch; see the docstring of the class."""
        if not isinstance(input, Tensor):
            raise TypeError(f"Directions: input must be a Tensor, got {type(input).__name__}")
        if input.dim() != 3:
            raise ValueError(f"Directions: input must be 3D, got {input.dim()}D")
        outputs: list[Tensor] = []
        final_states: list[tuple[Tensor, ...]] = []
        for layer, is_reverse in ((self.forwards, False), (self.backwards, True)):
            if layer is None:
                continue
            state = _state_of_direction(hx, len(outputs))
            x = self._reversed(input, lengths) if is_reverse else input
            y, final_state = layer(x, state, lengths=lengths)
            outputs.append(self._reversed(y, lengths) if is_reverse else y)
            final_states.append(final_state if isinstance(final_state, tuple) else (final_state,))
        states = tuple(torch.cat(rows) for rows in zip(*final_states, strict=True))
        return torch.cat(outputs, -1), states if len(states) > 1 else states[0]

    def _reversed(self, values: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        """Each sequence reversed up to its length; the padding stays in place."""
        time_axis = 1 if self.batch_first else 0
        if lengths is None:
            return values.flip(time_axis)
        T = values.shape[time_axis]
        sizes = torch.as_tensor(lengths, device=values.device).to(torch.int64)[None]
        steps = torch.arange(T, device=values.device)[:, None]
        index = torch.where(steps < sizes, sizes - 1 - steps, steps)  # [T, N]
        index = index.t() if self.batch_first else index
        return values.gather(time_axis, index[..., None].expand_as(values))


def _state_of_direction(hx: State | None, k: int) -> Tensor | tuple[Tensor, ...] | None:
    """The states of direction k, of states [D, N, width]."""
    if hx is None:
        return None
    if isinstance(hx, Tensor):
        return hx[k : k + 1]
    return tuple(state[k : k + 1] for state in hx)
