"""Engines run a cell over time. Their results agree; they differ in speed and in what they support.

``native`` is the C++ core, ``aten`` calls torch's fused functions, ``reference`` runs everything.
``use`` forces an engine, ``explain`` says why one was chosen, ``record`` lists which ran, and
``use_build`` forces one build of the native kernels. A ``ReferenceWarning`` reports once for each
cell that it falls back to the reference engine.
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
