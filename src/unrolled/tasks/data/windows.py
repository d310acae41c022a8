"""Consecutive windows for truncated backpropagation through time.

The text is cut into N contiguous streams, read side by side. Window k holds the tokens
[k T, (k + 1) T) of each stream, so that the state after window k is the state before window k + 1.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from unrolled.tasks.data.text_files import TextError
from unrolled.tasks.task import Shard

__all__ = ["Window", "Windows", "split_tokens"]


class Window(NamedTuple):
    """Inputs `[T, N]`, targets `[T, N]` (the inputs one token later), both int64.

    `first` is true where the streams begin: the state before this window is zero. `total` counts
    the targets of all shares together.
    """

    inputs: Tensor
    targets: Tensor
    first: bool
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own is of no use here
        """Targets of this shard."""
        return self.targets.numel()

    def shard(self, shard: Shard) -> "Window":
        """The streams that one process reads."""
        inputs, targets = (x[:, shard.slice].contiguous() for x in (self.inputs, self.targets))
        return self._replace(inputs=inputs, targets=targets)


class Windows:
    """The windows of a text, by number.

    Args:
        tokens: `[tokens]`, of any integer dtype.
        streams: N.
        length: T.
        partial: keep the shorter last window where the streams are no multiple of `length`.

    Raises:
        TextError: the text is too short for one window of N streams.
    """

    def __init__(self, tokens: Tensor, streams: int, length: int, *, partial: bool = False) -> None:
        # Each token but the first is a target once, so the streams share all but one.
        self.stream_length = (len(tokens) - 1) // streams
        self.length = length
        rows = self.stream_length / length
        self._windows = math.ceil(rows) if partial else math.floor(rows)
        if self._windows < 1:
            wanted = streams * (1 if partial else length) + 1
            raise TextError(
                f"text: wanted at least {wanted} tokens for {streams} streams in windows of "
                f"{length}, got {len(tokens)}: give more text, fewer streams or a shorter window"
            )
        covered = streams * self.stream_length
        self._inputs = tokens[:covered].view(streams, -1)
        self._targets = tokens[1 : covered + 1].view(streams, -1)
        self.targets = streams * min(self.stream_length, self._windows * length)

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, window: int) -> Window:
        if not 0 <= window < self._windows:
            raise IndexError(f"window: wanted one of {self._windows}, got {window}")
        steps = slice(window * self.length, (window + 1) * self.length)
        inputs, targets = (x[:, steps].t().long() for x in (self._inputs, self._targets))
        return Window(inputs.contiguous(), targets.contiguous(), window == 0, targets.numel())

    def __iter__(self) -> Iterator[Window]:
        return (self[window] for window in range(self._windows))


def split_tokens(
    tokens: Tensor, fraction: float, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Cut a text into training and validation: the end of it is for validation.

    Args:
        fraction: the part that is for validation, above 0 and below 1.
        limit: at most so many tokens for validation.

    Raises:
        TextError: a part would hold fewer than two tokens.
    """
    count = round(len(tokens) * fraction)
    if limit is not None:
        count = min(count, limit)
    if min(count, len(tokens) - count) < 2:
        raise TextError(
            f"text: wanted two tokens or more both for training and for validation, got "
            f"{len(tokens)} in all, {count} of them for validation"
        )
    return tokens[:-count], tokens[-count:]
