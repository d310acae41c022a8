"""Trained networks without torch: whole sequences, or one step at a time.

``load`` reads what ``unrolled.export`` wrote. Nothing of size is imported but numpy and the core.
"""

from unrolled.runtime.model import Model, load
from unrolled.runtime.stream import Stream

__all__ = ["Model", "Stream", "load"]
