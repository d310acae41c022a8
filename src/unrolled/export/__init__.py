"""A trained module, or a run, as a file for ``unrolled.runtime``: weights, programs, vocabulary.

``runtime.schema`` says what a file holds.
"""

from unrolled.export._exporting import export
from unrolled.nn._snapshot import ExportError

__all__ = ["ExportError", "export"]
