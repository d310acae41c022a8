"""How much a file may ask for, and how long a message about it may be.

The standard library alone. `csrc/model/streaming.h` has the same budget; the import of ONNX uses
this one.
"""

import reprlib
from typing import Any

__all__ = ["BASE_NUMBERS", "NUMBERS_PER_BYTE", "Budget", "brief", "shorten"]

BASE_NUMBERS = 1 << 24
"""Numbers that any file may ask for, however small it is: 64 MiB in float32."""
NUMBERS_PER_BYTE = 16
"""Numbers that it may ask for beyond that, for each of its bytes."""


class Budget:
    """Memory and work that one file may ask for, counted while it is read.

    One number is what an element of an intermediate array costs: 4 bytes, and an operation for each
    step of a sequence. What is proportional to the file (its weights, packed) is not counted.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.remaining = BASE_NUMBERS + NUMBERS_PER_BYTE * size

    def take(self, numbers: int, name: str) -> None:
        """Count so many numbers, before memory for them is taken.

        Raises:
            ValueError: the file has asked for more than it may; the message begins with `name`.
        """
        self.remaining -= numbers
        if self.remaining < 0:
            raise ValueError(
                f"{name}: wanted no more memory and work than {self.size} bytes may ask for"
            )


class _Brief(reprlib.Repr):
    """Looks at a few items of the first levels only, so that no value is too large for it."""

    def repr_int(self, x: int, level: int) -> str:
        # repr raises beyond 4,300 digits.
        if x.bit_length() > 256:
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


_brief = _Brief()
_brief.maxlevel, _brief.maxstring, _brief.maxother, _brief.maxlong = 3, 80, 80, 80


def brief(value: Any) -> str:
    """``repr(value)`` for a message: at most a few hundred characters, whatever the value."""
    return shorten(_brief.repr(value), 200)


def shorten(text: str, limit: int = 1000) -> str:
    """A text of at most `limit` characters: begin and end of a longer one, around an ellipsis."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end - 3]} … {text[len(text) - end :]}"
