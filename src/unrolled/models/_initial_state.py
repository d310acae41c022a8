"""Initial states of recurrent layers: learned, or computed from features of another network."""

import torch
from torch import Tensor, nn

from unrolled.nn import Recurrent
from unrolled.nn.types import HiddenState


class LearnedInitialState(nn.Module):
    """One learned initial state for all sequences, [L·D, 1, width] for each state of the cell.

    It starts as zeros.
    """

    def __init__(self, stack: Recurrent) -> None:
        super().__init__()
        rows = stack.spec.num_layers * stack.spec.num_directions
        widths = stack.spec.state_widths
        self.states = nn.ParameterList(nn.Parameter(torch.zeros(rows, 1, W)) for W in widths)

    def forward(self, N: int) -> HiddenState:
        """The initial state of N sequences."""
        states = tuple(state.expand(-1, N, -1) for state in self.states)
        return states[0] if len(states) == 1 else states


class InitialStateFromFeatures(nn.Module):
    """The initial state computed from features [N, F], for example of a picture or a speaker.

    State s of layer and direction k is tanh(W_ks f + b_ks). Karpathy & Fei-Fei (2015) start the
    decoder of a picture's caption from the picture's features in a similar way.

    Not suitable for the sLSTM, which divides by one of its states: that state must be positive,
    whereas these are between -1 and 1.
    """

    def __init__(self, features: int, stack: Recurrent) -> None:
        super().__init__()
        self.rows = stack.spec.num_layers * stack.spec.num_directions
        widths = stack.spec.state_widths
        self.states = nn.ModuleList(nn.Linear(features, self.rows * W) for W in widths)

    def forward(self, features: Tensor) -> HiddenState:
        """The states, [L·D, N, width] each."""
        states = [self._state(linear(features)) for linear in self.states]
        return states[0] if len(states) == 1 else tuple(states)

    def _state(self, flat: Tensor) -> Tensor:
        """[N, L·D·width] to [L·D, N, width]."""
        return (
            torch.tanh(flat)
            .view(len(flat), self.rows, flat.shape[1] // self.rows)
            .transpose(0, 1)
            .contiguous()
        )
