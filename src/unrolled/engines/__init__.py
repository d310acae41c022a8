"""Engines: ways to run a cell over time. They agree; they differ in speed and in what they support.

``native`` is the C++ core, ``aten`` calls torch's fused functions, ``reference`` runs everything.
``use`` forces one, ``explain`` says why one was chosen, ``record`` proves which ran; ``use_build``
forces one build of the native kernels. A cell that falls to the reference engine says so once, by a
``ReferenceWarning``.
"""

from unrolled.engines._choose import ENGINES, Explanation, explain, use
from unrolled.engines._native.engine import use_build
from unrolled.engines._records import record
from unrolled.engines._reference_warning import ReferenceWarning

__all__ = [
    "ENGINES",
    "Explanation",
    "ReferenceWarning",
    "explain",
    "record",
    "use",
    "use_build",
]
