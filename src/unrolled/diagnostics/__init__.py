"""Pictures and measures that explain a training run."""

from unrolled.diagnostics.curves import loss_curve

__all__ = ["loss_curve"]
