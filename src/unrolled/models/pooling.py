"""One vector of a whole sequence: its last state, or mean, maximum or attention over its steps."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unrolled.models.cell_lookup import Lengths, State

__all__ = ["Pooling", "PoolingName"]

PoolingName = Literal["last", "mean", "max", "attention"]


class Pooling(nn.Module):
    """Outputs [T, N, width] to [N, width]; steps from a sequence's length on do not count.

    - last: the state that each direction ends in.
    - mean, max: over the steps, unit by unit.
    - attention: Σ_t a_t y_t with a = softmax_t(v · tanh(W y_t + b)) (Lin et al. 2017, one hop).

    Of a sequence without a step all are zero but the last, which is its initial state.

    Raises:
        ValueError: there is no pooling of that name.
    """

    def __init__(self, name: str, width: int, directions: int = 1) -> None:
        super().__init__()
        if name not in get_args(PoolingName):
            wanted = ", ".join(get_args(PoolingName))
            raise ValueError(f"pooling: wanted one of {wanted}, got {name!r}")
        self.name = name
        self.directions = directions
        if name == "attention":
            self.keys = nn.Linear(width, width)
            self.query = nn.Linear(width, 1, bias=False)

    def forward(self, outputs: Tensor, final: State, lengths: Lengths | None = None) -> Tensor:
        """``final`` is the layer's final state, ``lengths`` [N] those of the sequences."""
        if self.name == "last":
            state = final if isinstance(final, Tensor) else final[0]
            return torch.cat(list(state[-self.directions :]), -1)
        T, N = outputs.shape[:2]
        if lengths is None:
            lengths = torch.full((N,), T, device=outputs.device)
        ends = torch.as_tensor(lengths, device=outputs.device)
        inside = torch.arange(T, device=outputs.device)[:, None] < ends
        return self._over(outputs, inside[..., None])

    def _over(self, outputs: Tensor, inside: Tensor) -> Tensor:
        """Over the steps inside [T, N, 1] of the sequences."""
        some = inside.any(0)
        if self.name == "mean":
            return outputs.where(inside, 0.0).sum(0) / inside.sum(0).clamp(min=1)
        if self.name == "max":
            return outputs.masked_fill(~inside, -torch.inf).amax(0).where(some, 0.0)
        # Taken out first: a NaN behind a sequence would reach the gradients of keys.
        outputs = outputs.where(inside, 0.0)
        scores = self._scores(outputs).masked_fill(~inside, -torch.inf)
        weights = torch.softmax(scores.where(some, 0.0), 0)
        return (weights * outputs).sum(0)

    def _scores(self, outputs: Tensor) -> Tensor:
        """v · tanh(W y + b) of each step: [T, N, 1]."""
        scores: Tensor = self.query(torch.tanh(self.keys(outputs)))
        return scores

    def forward_prefixes(self, outputs: Tensor) -> Tensor:
        """Of one direction, what pooling gives after each step: [T, N, width], of the steps so far.

        Raises:
            ValueError: the second direction begins at the end, which is not there yet.
        """
        if self.directions > 1:
            raise ValueError("pooling: wanted one direction, got two: the second begins at the end")
        if self.name == "last":
            return outputs
        if self.name == "max":
            return outputs.cummax(0).values
        if self.name == "mean":
            steps = torch.arange(1, len(outputs) + 1, device=outputs.device)
            return outputs.cumsum(0) / steps[:, None, None]
        scores = self._scores(outputs)
        # Sums are kept in units of the highest score so far, not of all: that of an early step may
        # be too far below what comes later for its exponential not to vanish.
        highest = scores.cummax(0).values
        fade = (highest[:-1] - highest[1:]).exp()
        weights = (scores - highest).exp()
        above, below = weights[0] * outputs[0], weights[0]
        pooled = [above / below]
        for t in range(1, len(outputs)):
            above = fade[t - 1] * above + weights[t] * outputs[t]
            below = fade[t - 1] * below + weights[t]
            pooled.append(above / below)
        return torch.stack(pooled)

    def extra_repr(self) -> str:
        return self.name
