"""The one form of a batch of sequences: where element (t, n) lies, and which elements there are.

Time-major, batch-first and packed data all are this, without a copy. ``unrolled.nn.layout`` makes
it from what users pass; engines read it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """Addresses of a batch held as a matrix [rows, width], one row a token.

    Sequence n (in the engine's order, longest first) has the tokens t < lengths[n]; token (t, n) is
    row ``off_t[t] + off_n[n]``. Rows that are no token are padding: never read, written as zeros.
    """

    T: int
    N: int
    major: Literal["time", "batch", "packed"]
    lengths: Tensor | None = None  # [N] int64 on the CPU, falling; None: all T
    order: Tensor | None = None  # [N] the user's sequence that stands at place n; None: the same
    resets: Tensor | None = None  # [T, N] bool in the engine's order
    plans: dict[bool, Any] = field(default_factory=dict, repr=False)  # what engines derive, once

    @property
    def dense(self) -> bool:
        """Every element is a token and no sequence is cut."""
        return self.lengths is None and self.resets is None

    @property
    def rows(self) -> int:
        if self.major == "packed" and self.lengths is not None:
            return int(self.lengths.sum())
        return self.T * self.N

    def offsets(self) -> tuple[Tensor, Tensor]:
        """off_t [T] and off_n [N], int64 on the CPU."""
        t, n = torch.arange(self.T, device="cpu"), torch.arange(self.N, device="cpu")
        place = n if self.order is None else self.order.cpu()
        if self.major == "batch":
            return t, place * self.T
        if self.major == "time":
            return t * self.N, place
        lengths = (
            torch.full((self.N,), self.T, device="cpu") if self.lengths is None else self.lengths
        )
        sizes = (lengths[None, :] > t[:, None]).sum(1)
        return sizes.cumsum(0) - sizes, n
