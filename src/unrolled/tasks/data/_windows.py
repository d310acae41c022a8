"""Consecutive windows of a text for truncated backpropagation through time.

The text is cut into N contiguous streams, which are read in parallel. Window k holds the tokens
[k T, (k + 1) T) of each stream, so that the final state of window k is the initial state of window
k + 1.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from unrolled.tasks._task import Shard
from unrolled.tasks.data._text_files import TextError


class Window(NamedTuple):
    """Inputs `[T, N]`, targets `[T, N]` (the inputs one token later), both int64.

    `at_start` is true for the first window of the streams, whose initial state is zero. `total`
    counts the targets of all shards.
    """

    inputs: Tensor
    targets: Tensor
    at_start: bool
    total: int

    @property
    def size(self) -> int:
        """Targets of this shard."""
        return self.targets.numel()

    def shard(self, shard: Shard) -> "Window":
        """The streams of one process."""
        inputs, targets = (x[:, shard.slice].contiguous() for x in (self.inputs, self.targets))
        return self._replace(inputs=inputs, targets=targets)


class Windows:
    """The windows of a text, by number.

    Args:
        tokens: `[tokens]`, of any integer dtype.
        streams: N.
        length: T.
        partial: keep the shorter final window if `length` does not divide the streams.

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
            minimum = streams * (1 if partial else length) + 1
            raise TextError(
                f"text: must have at least {minimum} tokens for {streams} streams in windows of "
                f"{length}, got {len(tokens)}; use more text, fewer streams or a shorter window"
            )
        covered = streams * self.stream_length
        self._inputs = tokens[:covered].view(streams, -1)
        self._targets = tokens[1 : covered + 1].view(streams, -1)
        self.targets = streams * min(self.stream_length, self._windows * length)

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, window: int) -> Window:
        if not 0 <= window < self._windows:
            raise IndexError(f"Windows: window must be below {self._windows}, got {window}")
        steps = slice(window * self.length, (window + 1) * self.length)
        inputs, targets = (x[:, steps].t().long() for x in (self._inputs, self._targets))
        return Window(inputs.contiguous(), targets.contiguous(), window == 0, targets.numel())

    def __iter__(self) -> Iterator[Window]:
        return (self[window] for window in range(self._windows))


def split_tokens(
    tokens: Tensor, fraction: float, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Split a text into training and validation: its end is for validation.

    Args:
        fraction: of the tokens for validation, above 0 and below 1.
        limit: the maximum number of tokens for validation.

    Raises:
        TextError: a part would have fewer than two tokens.
    """
    count = round(len(tokens) * fraction)
    if limit is not None:
        count = min(count, limit)
    if min(count, len(tokens) - count) < 2:
        raise TextError(
            "text: must have at least two tokens each for training and validation, got "
            f"{len(tokens)} in total, {count} of them for validation"
        )
    return tokens[:-count], tokens[-count:]
