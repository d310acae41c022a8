"""Trained networks without torch: whole sequences, or one step at a time.

``load`` reads a file of ``unrolled.export``. Only NumPy, safetensors and the core are needed.
``Translator`` is imported when it is first used, since importing takes time on a small device.
"""

from typing import TYPE_CHECKING

from unrolled.runtime._files import load
from unrolled.runtime._model import Model
from unrolled.runtime._stream import Stream

if TYPE_CHECKING:
    from unrolled.runtime._translator import Translator

__all__ = ["Model", "Stream", "Translator", "load"]


def __getattr__(name: str) -> type[Model]:
    if name == "Translator":
        from unrolled.runtime._translator import Translator

        return Translator
    raise AttributeError(f"module 'unrolled.runtime' has no attribute {name!r}")
