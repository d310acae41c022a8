"""Trained networks without torch: whole sequences, or one step at a time.

``load`` reads what ``unrolled.export`` wrote. Nothing of size is imported but numpy and the core.
"""

from unrolled.runtime.files import load
from unrolled.runtime.model import Model
from unrolled.runtime.stream import Stream
from unrolled.runtime.translator import Translator

__all__ = ["Model", "Stream", "Translator", "load"]
