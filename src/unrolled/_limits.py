"""Limits of the memory and work that a file may require, and of the length of messages.

Imports the standard library only. `csrc/model/streaming.h` has the same budget; the import of ONNX
uses this one.
"""

import reprlib

__all__ = ["BASE_NUMBERS", "NUMBERS_PER_BYTE", "Budget", "brief", "shorten"]

BASE_NUMBERS = 1 << 24
"""Numbers that any file may require, however small it is: 64 MiB in float32."""
NUMBERS_PER_BYTE = 16
"""Numbers that it may require beyond that, for each of its bytes."""


class Budget:
    """Memory and work that one file may require, counted while it is read.

    One number is the cost of an element of an intermediate array: 4 bytes, and an operation for
    each step of a sequence. Costs in proportion to the file (its packed weights) are not counted.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.remaining = BASE_NUMBERS + NUMBERS_PER_BYTE * size

    def take(self, numbers: int, name: str) -> None:
        """Count numbers, before memory for them is allocated.

        Raises:
            ValueError: the file requires more than its size allows; the message begins with `name`.
        """
        self.remaining -= numbers
        if self.remaining < 0:
            raise ValueError(
                f"{name}: memory and work must be at most what {self.size} bytes may ask for"
            )


class _Brief(reprlib.Repr):
    """Reads a few items of the first levels only, so that no value is too large for it."""

    def repr_int(self, x: int, level: int) -> str:
        # repr raises beyond 4,300 digits.
        if x.bit_length() > 256:
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


_brief = _Brief()
_brief.maxlevel, _brief.maxstring, _brief.maxother, _brief.maxlong = 3, 80, 80, 80


def brief(value: object) -> str:
    """``repr(value)`` for a message: at most a few hundred characters, whatever the value."""
    return shorten(_brief.repr(value), 200)


def shorten(text: str, limit: int = 1000) -> str:
    """The text, or the start and the end of one longer than `limit`, around an ellipsis."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end - 3]} … {text[len(text) - end :]}"
