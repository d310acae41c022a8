"""One vector for a sequence: the final state, or mean, maximum or attention over its steps."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unrolled.nn.types import HiddenState, Lengths

PoolingName = Literal["last", "mean", "max", "attention"]


class Pooling(nn.Module):
    """Outputs [T, N, width] to [N, width]; steps past the length of a sequence do not count.

    - last: the final state, of both directions if there are two.
    - mean, max: over the steps, for each unit.
    - attention: Σ_t a_t y_t with a = softmax_t(v · tanh(W y_t + b)) (Lin et al. 2017, one hop).

    For an empty sequence, last is its initial state and the others are zeros.

    Raises:
        ValueError: there is no pooling of this name.
    """

    def __init__(self, name: str, width: int, directions: int = 1) -> None:
        super().__init__()
        if name not in get_args(PoolingName):
            names = ", ".join(get_args(PoolingName))
            raise ValueError(f"Pooling: pooling must be one of {names}, got {name!r}")
        self.name = name
        self.directions = directions
        if name == "attention":
            self.keys = nn.Linear(width, width)
            self.query = nn.Linear(width, 1, bias=False)

    def forward(
        self, outputs: Tensor, final_state: HiddenState, lengths: Lengths | None = None
    ) -> Tensor:
        """Pool the outputs of a layer, given its final state and the lengths [N] of the rows."""
        if self.name == "last":
            state = final_state if isinstance(final_state, Tensor) else final_state[0]
            return torch.cat(list(state[-self.directions :]), -1)
        mask = length_mask(outputs.shape[0], outputs.shape[1], lengths, outputs.device)
        return self._pool_steps(outputs, mask[..., None])

    def _pool_steps(self, outputs: Tensor, mask: Tensor) -> Tensor:
        """Pool the steps that a mask [T, N, 1] selects."""
        nonempty = mask.any(0)
        if self.name == "mean":
            return outputs.where(mask, 0.0).sum(0) / mask.sum(0).clamp(min=1)
        if self.name == "max":
            return outputs.masked_fill(~mask, -torch.inf).amax(0).where(nonempty, 0.0)
        # Masked first: a NaN past the end of a sequence would reach the gradients of keys.
        outputs = outputs.where(mask, 0.0)
        scores = self._scores(outputs).masked_fill(~mask, -torch.inf)
        weights = torch.softmax(scores.where(nonempty, 0.0), 0)
        return (weights * outputs).sum(0)

    def _scores(self, outputs: Tensor) -> Tensor:
        """v · tanh(W y + b) of each step: [T, N, 1]."""
        scores: Tensor = self.query(torch.tanh(self.keys(outputs)))
        return scores

    def forward_prefixes(self, outputs: Tensor) -> Tensor:
        """The pooled vector after each step, over the steps so far: [T, N, width].

        Raises:
            ValueError: there are two directions; the second starts at the end of the sequence.
        """
        if self.directions > 1:
            raise ValueError(
                "Pooling.forward_prefixes: the layer must have one direction, got two; the second "
                "starts at the end of the sequence"
            )
        if self.name == "last":
            return outputs
        if self.name == "max":
            return outputs.cummax(0).values
        if self.name == "mean":
            steps = torch.arange(1, len(outputs) + 1, device=outputs.device)
            return outputs.cumsum(0) / steps[:, None, None]
        scores = self._scores(outputs)
        # Sums are relative to the highest score so far, not to the highest of all: the score of an
        # early step may be so far below a later one that its exponential vanishes.
        highest = scores.cummax(0).values
        decay = (highest[:-1] - highest[1:]).exp()
        weights = (scores - highest).exp()
        numerator, denominator = weights[0] * outputs[0], weights[0]
        pooled = [numerator / denominator]
        for t in range(1, len(outputs)):
            numerator = decay[t - 1] * numerator + weights[t] * outputs[t]
            denominator = decay[t - 1] * denominator + weights[t]
            pooled.append(numerator / denominator)
        return torch.stack(pooled)

    def extra_repr(self) -> str:
        return self.name


def length_mask(T: int, N: int, lengths: Lengths | None, device: torch.device) -> Tensor:
    """Which steps lie within their sequences: [T, N], bool."""
    if lengths is None:
        lengths = torch.full((N,), T, device=device)
    ends = torch.as_tensor(lengths, device=device)
    return torch.arange(T, device=device)[:, None] < ends
