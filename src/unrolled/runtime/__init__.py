"""Trained networks without torch: whole sequences, or one step at a time.

``load`` reads what ``unrolled.export`` wrote. Nothing of size is imported but numpy and the core;
translators load when they are first named or read, for a device counts its milliseconds.
"""

from typing import TYPE_CHECKING, Any

from unrolled.runtime.files import load
from unrolled.runtime.model import Model
from unrolled.runtime.stream import Stream

if TYPE_CHECKING:
    from unrolled.runtime.translator import Translator

__all__ = ["Model", "Stream", "Translator", "load"]


def __getattr__(name: str) -> Any:
    if name == "Translator":
        from unrolled.runtime.translator import Translator

        return Translator
    raise AttributeError(f"module 'unrolled.runtime' has no attribute {name!r}")
