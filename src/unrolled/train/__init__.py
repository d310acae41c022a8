"""Training through Lightning: progress, metrics, checkpoints, interrupt, resume.

The configuration loads at once; Lightning loads when `fit` or another of its users is first named.
"""

from typing import TYPE_CHECKING, Any

from unrolled.train.config import LanguageModelConfig

if TYPE_CHECKING:
    from unrolled.train.checkpoint import TreeCheckpointIO
    from unrolled.train.run import Result, fit, resume

__all__ = ["LanguageModelConfig", "Result", "TreeCheckpointIO", "fit", "resume"]


def __getattr__(name: str) -> Any:
    if name in {"Result", "fit", "resume"}:
        from unrolled.train import run

        return getattr(run, name)
    if name == "TreeCheckpointIO":
        from unrolled.train.checkpoint import TreeCheckpointIO

        return TreeCheckpointIO
    raise AttributeError(f"module 'unrolled.train' has no attribute {name!r}")
