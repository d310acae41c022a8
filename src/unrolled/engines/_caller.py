"""The ``stacklevel`` with which a warning points at the user's code that called the library."""

import os
import sys
from pathlib import Path

from torch import nn

_LIBRARY_FOLDERS = (
    str(Path(__file__).parents[1]) + os.sep,
    str(Path(nn.modules.module.__file__).parent) + os.sep,
)


def caller_level() -> int:
    """The ``stacklevel`` for a warning of the function that calls this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame, level = frame.f_back, level + 1
    return level
