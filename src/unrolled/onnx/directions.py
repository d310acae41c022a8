"""A layer that ``Recurrent`` is not: backward alone, or another cell in each direction."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.nn import Recurrent

__all__ = ["Directions"]


class Directions(nn.Module):
    """One layer forward, one backward, or both side by side, each a ``Recurrent`` of one layer in
    one direction.

    Call as a :class:`unrolled.nn.Recurrent`, with ``input`` [T, N, I] ([N, T, I] with
    ``batch_first``) and optionally ``hx`` and ``lengths``; the same comes back. The backward layer
    starts at each row's own end.

    Raises:
        ValueError: no layer is given, or the input is not 3D.
        TypeError: the input is no tensor.
    """

    def __init__(self, forwards: Recurrent | None, backwards: Recurrent | None) -> None:
        super().__init__()
        self.forwards = forwards
        self.backwards = backwards
        layers = [layer for layer in (forwards, backwards) if layer is not None]
        if not layers:
            raise ValueError("Directions: wanted a layer, got None for both directions")
        self.cells = tuple(layer.cell for layer in layers)
        self.hidden_size = layers[0].hidden_size

    @property
    def batch_first(self) -> bool:
        """Whether it reads [N, T, I]; set, it is so in each direction."""
        return (self.forwards or self.backwards).batch_first  # type: ignore[union-attr]

    @batch_first.setter
    def batch_first(self, value: bool) -> None:
        for layer in (self.forwards, self.backwards):
            if layer is not None:
                layer.batch_first = value

    @property
    def num_directions(self) -> int:
        """D."""
        return len(self.cells)

    def forward(self, input: Tensor, hx: Any = None, *, lengths: Any = None) -> tuple[Tensor, Any]:
        """Run over a batch; see the class."""
        if not isinstance(input, Tensor):
            raise TypeError(f"Directions: input must be a Tensor, got {type(input).__name__}")
        if input.dim() != 3:
            raise ValueError(f"Directions: input must be 3D, got {input.dim()}D")
        outputs: list[Tensor] = []
        finals: list[tuple[Tensor, ...]] = []
        for layer, turned in ((self.forwards, False), (self.backwards, True)):
            if layer is None:
                continue
            state = _row(hx, len(outputs))
            x = self._turn(input, lengths) if turned else input
            y, final = layer(x, state, lengths=lengths)
            outputs.append(self._turn(y, lengths) if turned else y)
            finals.append(final if isinstance(final, tuple) else (final,))
        states = tuple(torch.cat(parts) for parts in zip(*finals, strict=True))
        return torch.cat(outputs, -1), states if len(states) > 1 else states[0]

    def _turn(self, values: Tensor, lengths: Any) -> Tensor:
        """Each row in reverse up to its length; what lies behind stays."""
        time = 1 if self.batch_first else 0
        if lengths is None:
            return values.flip(time)
        T = values.shape[time]
        ends = torch.as_tensor(lengths, device=values.device).to(torch.int64)[None]
        steps = torch.arange(T, device=values.device)[:, None]
        index = torch.where(steps < ends, ends - 1 - steps, steps)  # [T, N]
        index = index.t() if self.batch_first else index
        return values.gather(time, index[..., None].expand_as(values))


def _row(hx: Any, k: int) -> Any:
    """The states of direction k, of states [D, N, width]."""
    if hx is None:
        return None
    return tuple(s[k : k + 1] for s in hx) if isinstance(hx, tuple | list) else hx[k : k + 1]
