"""Training through Lightning: progress, metrics, checkpoints, interrupt, resume.

Lightning loads when one of the names here is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled.train.checkpoint import TreeCheckpointIO
    from unrolled.train.module import Diverged
    from unrolled.train.run import Result, fit, resume
    from unrolled.train.watching import Watch

__all__ = ["Diverged", "Result", "TreeCheckpointIO", "Watch", "fit", "resume"]

_PLACES = {
    "Diverged": "module",
    "Result": "run",
    "TreeCheckpointIO": "checkpoint",
    "Watch": "watching",
    "fit": "run",
    "resume": "run",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"unrolled.train.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'unrolled.train' has no attribute {name!r}")
