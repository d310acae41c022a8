"""The arguments of the operator ``unrolled::sweep``, and what is derived from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from unrolled import _core
from unrolled._token_rows import BatchLayout, Major
from unrolled.engines._episodes import Episodes, find_episodes
from unrolled.engines._native.call import compile_sweep
from unrolled.engines._native.programs import load_program
from unrolled.engines._precision import HALF
from unrolled.engines._torch_modes import to_numpy

Tensors = Sequence[Tensor]
_Call = tuple[
    Tensor,
    Tensors,
    Tensors | None,
    Tensors | None,
    Tensors | None,
    str,
    Sequence[int],
    bool,
    bool,
    Tensor | None,
    Tensor | None,
]


@dataclass(frozen=True)
class SweepArguments:
    """The operator's arguments except ``training``; see ``operator``."""

    tokens: Tensor
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

    @classmethod
    def of_call(cls, arguments: Sequence[object]) -> "SweepArguments":
        """From the arguments of the operator, where None is an empty list."""
        call = cast(_Call, tuple(arguments))
        return cls(call[0], call[1], call[2] or (), call[3] or (), call[4] or (), *call[5:])

    def check(self) -> None:
        """Check the number of dimensions and the values of lengths.

        Raises:
            ValueError: one of them is wrong.
        """
        if self.tokens.dim() != 3:
            raise ValueError(f"unrolled::sweep: values must be 3D, got {self.tokens.dim()}D")
        lengths = self.lengths
        if lengths is not None and bool(((lengths < 0) | (lengths > self.T)).any()):
            raise ValueError(
                f"unrolled::sweep: lengths must lie in [0, {self.T}], got {lengths.tolist()}"
            )

    @property
    def T(self) -> int:  # noqa: N802
        return self.tokens.shape[1 if self.batch_first else 0]

    @property
    def N(self) -> int:  # noqa: N802
        return self.tokens.shape[0 if self.batch_first else 1]

    @property
    def major(self) -> Major:
        return "batch" if self.batch_first else "time"

    @property
    def state_widths(self) -> tuple[int, ...]:
        return tuple(state.shape[1] for state in self.states)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that can have a gradient."""
        lists = (self.states, self.reset_states, self.matrices, self.vectors)
        return [self.tokens, *(tensor for tensors in lists for tensor in tensors)]

    def load_program(self) -> _core.Program:
        """The program, parsed by the core."""
        return load_program(self.program, *self.sizes)

    def find_episodes(self) -> Episodes | None:
        """The episodes of the batch; None if it has neither lengths nor resets."""
        if self.lengths is None and self.resets is None:
            return None
        lengths = None
        if self.lengths is not None:
            lengths = to_numpy(self.lengths, np.int64)
        layout = BatchLayout(
            self.T, self.N, self.major, lengths
        )  # unsorted: the episodes are sorted
        resets = self.resets
        if resets is not None and self.batch_first:
            resets = resets.t()
        return find_episodes(layout, resets, self.reverse)

    def compile(
        self, episodes: Episodes | None, bf16_products: bool
    ) -> tuple[_core.CompiledSweep, list[Tensor]]:
        """The sweep for the core, and its tensors; episodes are its sequences, and tokens are not
        copied."""
        tokens = self.tokens.contiguous()
        if episodes is None:
            rows = BatchLayout(self.T, self.N, self.major).token_rows(self.reverse)
            states = list(self.states)
        else:
            rows = episodes.rows
            initial = torch.from_numpy(episodes.initial)
            resets = self.reset_states or [torch.zeros_like(state) for state in self.states]
            pairs = zip(self.states, resets, strict=True)
            states = [torch.cat(pair).index_select(0, initial) for pair in pairs]
        offset, count = 1 + len(states), len(self.matrices)
        indices = [offset + k if m.numel() else -1 for k, m in enumerate(self.matrices)]
        indices += range(offset + count, offset + count + len(self.vectors))
        tensors = [tokens.flatten(0, 1), *states, *self.matrices, *self.vectors]
        shapes = tuple((rows.N, width) for width in self.state_widths)
        compiled = compile_sweep(
            self.load_program(),
            rows,
            len(states),
            indices,
            shapes,
            bf16_products=bf16_products,
        )
        return compiled, tensors

    def saved_size(self, training: bool) -> int:
        """How many numbers forward saves: some for each token, and one that ``operator``
        describes."""
        return (self.T * self.N * self.load_program().saved_width + 1) * training

    @property
    def saved_dtype(self) -> torch.dtype:
        """The dtype of what backward needs: float32 for half precision."""
        return torch.float32 if self.tokens.dtype in HALF else self.tokens.dtype
