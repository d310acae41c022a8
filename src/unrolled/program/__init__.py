"""Programs: a cell's ``step`` as a list of operations, recorded, differentiated, printed.

``make_program(cell)`` runs the step once on tracers and derives its gradients. A program knows
neither torch nor arrays: the engine that runs it brings them.
"""

from unrolled.program._graph import Node, ProgramError
from unrolled.program._interpret import interpret
from unrolled.program._program import Program, make_program
from unrolled.program._trace import TraceError

__all__ = ["Node", "Program", "ProgramError", "TraceError", "interpret", "make_program"]
