"""Engines: ways to run a cell over time. They agree; they differ in speed and in what they can.

``reference`` runs everything, ``aten`` calls torch's fused functions. ``use`` forces one,
``explain`` says why one was chosen, ``record`` proves which ran. A cell that falls to the reference
engine says so once, by a ``ReferenceWarning``.
"""

from unrolled.engines.caller import caller_level
from unrolled.engines.choose import ENGINES, Explanation, choose, explain, use
from unrolled.engines.fused import fuses_stack, run_fused_stack
from unrolled.engines.native.compiled import Graph, make_graph, run_graph, run_packed_graph
from unrolled.engines.native.engine import use_build
from unrolled.engines.native.fast_path import Direct
from unrolled.engines.ragged import Ragged
from unrolled.engines.records import record
from unrolled.engines.reference_warning import ReferenceWarning
from unrolled.engines.request import Engine, Sweep, batched, tracing
from unrolled.engines.stack import make_sweep, run_stack

__all__ = [
    "ENGINES",
    "Direct",
    "Engine",
    "Explanation",
    "Graph",
    "Ragged",
    "ReferenceWarning",
    "Sweep",
    "batched",
    "caller_level",
    "choose",
    "explain",
    "fuses_stack",
    "make_graph",
    "make_sweep",
    "record",
    "run_fused_stack",
    "run_graph",
    "run_packed_graph",
    "run_stack",
    "tracing",
    "use",
    "use_build",
]
