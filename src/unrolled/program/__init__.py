"""Programs: a cell's ``step``, traced to a list of operations and differentiated.

``make_program(cell)`` runs the step once on tracers and derives its gradients. A program has no
arrays and does not depend on torch; engines run it.
"""

from unrolled.program._graph import Node, ProgramError
from unrolled.program._interpret import interpret
from unrolled.program._program import Program, make_program
from unrolled.program._trace import TraceError

__all__ = ["Node", "Program", "ProgramError", "TraceError", "interpret", "make_program"]
