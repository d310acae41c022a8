"""The state that sequences begin with: learned, or told by another network's features."""

import torch
from torch import Tensor, nn

from unrolled.models.cell_lookup import State
from unrolled.nn import Recurrent

__all__ = ["InitialStateFromFeatures", "LearnedInitialState"]


class LearnedInitialState(nn.Module):
    """One learned initial state for all sequences, zero at first: [L·D, 1, width] each."""

    def __init__(self, stack: Recurrent) -> None:
        super().__init__()
        rows = stack.spec.num_layers * stack.spec.num_directions
        widths = stack.spec.state_widths
        self.states = nn.ParameterList(nn.Parameter(torch.zeros(rows, 1, W)) for W in widths)

    def forward(self, N: int) -> State:
        """The state of N sequences."""
        states = tuple(state.expand(-1, N, -1) for state in self.states)
        return states[0] if len(states) == 1 else states


class InitialStateFromFeatures(nn.Module):
    """The initial state from features [N, F] of something else (a picture's, a speaker's).

    State s of layer and direction k starts as tanh(W_ks f + b_ks) (Karpathy & Fei-Fei 2015 begin a
    caption from the picture's features alike).

    Not for the sLSTM, which divides by a state: that must be above 0, and this can be anything
    between -1 and 1.
    """

    def __init__(self, features: int, stack: Recurrent) -> None:
        super().__init__()
        self.rows = stack.spec.num_layers * stack.spec.num_directions
        widths = stack.spec.state_widths
        self.states = nn.ModuleList(nn.Linear(features, self.rows * W) for W in widths)

    def forward(self, features: Tensor) -> State:
        """States [L·D, N, width] each."""
        made = [
            torch.tanh(linear(features)).unflatten(-1, (self.rows, -1)).transpose(0, 1).contiguous()
            for linear in self.states
        ]
        return made[0] if len(made) == 1 else tuple(made)
