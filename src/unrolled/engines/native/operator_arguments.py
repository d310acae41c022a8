"""The arguments of the operator ``unrolled::sweep``, and what follows from them.

What is done with them, forward and backward, is ``operator``'s work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unrolled import _core
from unrolled.engines.episodes import Plan, make_plan
from unrolled.engines.native.call import locate, make_work, ragged_rows
from unrolled.engines.native.programs import load
from unrolled.engines.ragged import Ragged
from unrolled.engines.request import HALF

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class SweepArguments:
    """The operator's arguments, and what follows from them."""

    values: Tensor
    states: Tensors
    reset_states: Tensors
    matrices: Tensors
    vectors: Tensors
    program: str
    sizes: Sequence[int]
    batch_first: bool
    reverse: bool
    lengths: Tensor | None
    resets: Tensor | None
    auxiliary: Tensors
    groups: int
    first: int
    last: int

    @classmethod
    def of(cls, *arguments: Any) -> "SweepArguments":
        """Of the operator as it is called: a list that is None is empty."""
        filled = list(arguments)
        for place in (2, 3, 4, 11):
            filled[place] = arguments[place] or ()
        return cls(*filled)

    def check(self) -> None:
        """What no shape can say.

        Raises:
            NotImplementedError: there are auxiliary inputs.
            ValueError: groups, the range of steps, a length or the number of dimensions do not fit.
        """
        who = "unrolled::sweep"
        if self.auxiliary:
            raise NotImplementedError(
                f"{who}: auxiliary must be empty, got {len(self.auxiliary)} tensors; no program "
                "reads them yet"
            )
        if self.values.dim() != 3:
            raise ValueError(f"{who}: values must be 3D, got {self.values.dim()}D")
        if self.groups < 1 or self.N % self.groups:
            raise ValueError(f"{who}: groups must divide the batch of {self.N}, got {self.groups}")
        if not 0 <= self.first < self.end <= self.T:
            raise ValueError(
                f"{who}: first and last must be steps within 0 and {self.T}, got {self.first} and "
                f"{self.last}"
            )
        if self.lengths is not None and bool(((self.lengths < 0) | (self.lengths > self.T)).any()):
            raise ValueError(
                f"{who}: lengths must lie in [0, {self.T}], got {self.lengths.tolist()}"
            )

    @property
    def n_axis(self) -> int:
        return 0 if self.batch_first else 1

    @property
    def T(self) -> int:  # noqa: N802
        return self.values.shape[1 - self.n_axis]

    @property
    def end(self) -> int:
        """The step after the last one that is run."""
        return self.T if self.last == -1 else self.last

    @property
    def N(self) -> int:  # noqa: N802
        return self.values.shape[self.n_axis]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(state.shape[1] for state in self.states)

    def split(self) -> list["SweepArguments"]:
        """Those of each group, with weights of its own."""
        each = self.N // self.groups

        def part(g: int, tensor: Tensor, axis: int) -> Tensor:
            return tensor.narrow(axis, g * each, each)

        return [
            replace(
                self,
                values=part(g, self.values, self.n_axis),
                states=[part(g, state, 0) for state in self.states],
                reset_states=[part(g, state, 0) for state in self.reset_states],
                matrices=[m[g] if m.numel() else m for m in self.matrices],
                vectors=[vector[g] for vector in self.vectors],
                lengths=None if self.lengths is None else part(g, self.lengths, 0),
                resets=None if self.resets is None else part(g, self.resets, self.n_axis),
                groups=1,
            )
            for g in range(self.groups)
        ]

    def steps(self, tensor: Tensor) -> Tensor:
        """The range of steps of a tensor [T, N, ·] or [N, T, ·]."""
        return tensor.narrow(1 - self.n_axis, self.first, self.end - self.first)

    def plan(self) -> Plan | None:
        """Every sequence of the range, from cut to cut; None where all are whole."""
        if self.lengths is None and self.resets is None:
            return None
        T = self.end - self.first
        lengths = torch.full((self.N,), T, device="cpu")
        if self.lengths is not None:
            lengths = (self.lengths.to("cpu", torch.int64) - self.first).clamp(0, T)
        cuts = None if self.resets is None else self.steps(self.resets)
        if cuts is not None and self.batch_first:
            cuts = cuts.t()
        return make_plan(Ragged(T, self.N, self.major, lengths, None, cuts), self.reverse)

    @property
    def major(self) -> Literal["batch", "time"]:
        return "batch" if self.batch_first else "time"

    def work(self, plan: Plan | None) -> tuple[_core.Work, list[Tensor]]:
        """What the core does and reads: episodes as sequences, their tokens where they lie."""
        values = self.steps(self.values).contiguous()
        rows = values.shape[0] * values.shape[1]
        if plan is None:
            where = locate(Ragged(self.end - self.first, self.N, self.major), self.reverse)
            episodes, states = self.N, list(self.states)
        else:
            episodes = len(plan.initial)
            where = ragged_rows(plan.batch_sizes, episodes, rows, plan.row)
            resets = self.reset_states or [torch.zeros_like(state) for state in self.states]
            starts = (torch.cat(pair) for pair in zip(self.states, resets, strict=True))
            states = [start.index_select(0, plan.initial) for start in starts]
        first, count = 1 + len(states), len(self.matrices)
        places = [first + k if m.numel() else -1 for k, m in enumerate(self.matrices)]
        places += range(first + count, first + count + len(self.vectors))
        tensors = [values.flatten(0, 1), *states, *self.matrices, *self.vectors]
        program = load(self.program, *self.sizes)
        form = tuple((episodes, width) for width in self.widths)
        return make_work(program, where, len(states), places, form), tensors

    def whole(self, rows: Tensor) -> Tensor:
        """Rows of the range as a tensor of all steps, zeros outside of it."""
        width = rows.shape[1]
        if self.end - self.first == self.T:
            return rows.view(*self.values.shape[:2], width)
        full = rows.new_zeros((*self.values.shape[:2], width))
        part = self.steps(full)
        part.copy_(rows.view(part.shape))
        return full

    def room(self, training: bool, make: str) -> Tensor:
        """For what backward needs, a row a token; of half precision it is in float32."""
        width = load(self.program, *self.sizes).saved_width
        dtype = torch.float32 if self.values.dtype in HALF else self.values.dtype
        room: Tensor = getattr(self.values, make)((self.T * self.N * training, width), dtype=dtype)
        return room
