"""Training with Lightning: progress, metrics, checkpoints, interruption and resuming.

Lightning is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unrolled.train._checkpoint import TreeCheckpointIO
    from unrolled.train._module import Diverged
    from unrolled.train._run import Result, fit, resume
    from unrolled.train._watching import Watch

__all__ = ["Diverged", "Result", "TreeCheckpointIO", "Watch", "fit", "resume"]

_MODULES = {
    "Diverged": "module",
    "Result": "run",
    "TreeCheckpointIO": "checkpoint",
    "Watch": "watching",
    "fit": "run",
    "resume": "run",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value: object = getattr(import_module(f"unrolled.train._{_MODULES[name]}"), name)
        return value
    raise AttributeError(f"module 'unrolled.train' has no attribute {name!r}")
