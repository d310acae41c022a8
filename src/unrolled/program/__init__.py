"""Programs: what a cell's ``step`` computes, recorded, differentiated, printed.

``make_program(cell)`` runs the step once on tracers and derives its gradients. A program knows
neither torch nor arrays; whoever runs it brings them.
"""

from unrolled.program.differentiate import Derivative, differentiate
from unrolled.program.graph import Graph, Node, ProgramError, needed
from unrolled.program.interpret import interpret
from unrolled.program.program import Program, make_program
from unrolled.program.saving import Saving, choose_saving
from unrolled.program.trace import Traced, TraceError, trace

__all__ = [
    "Derivative",
    "Graph",
    "Node",
    "Program",
    "ProgramError",
    "Saving",
    "TraceError",
    "Traced",
    "choose_saving",
    "differentiate",
    "interpret",
    "make_program",
    "needed",
    "trace",
]
