"""Exports trained modules as files for ``unrolled.runtime``: weights, programs, vocabulary.

The contents of a file are declared in ``unrolled.runtime._schema``.
"""

from unrolled.export._exporting import export
from unrolled.nn._snapshot import ExportError

__all__ = ["ExportError", "export"]
