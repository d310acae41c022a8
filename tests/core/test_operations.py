"""The core's table of operations and that of ``unrolled.program`` are one."""

import re
from pathlib import Path

from unrolled.program._operations import COMPARISONS, OPERATIONS, REDUCTIONS, Operation

HEADER = Path(__file__).parents[2] / "csrc" / "program" / "operations.h"


def _category(operation: Operation) -> str:
    if operation.name in COMPARISONS:
        return "comparison"
    return "reduction" if operation.name in REDUCTIONS else "pointwise"


def test_the_core_has_the_operations_of_programs_in_their_order() -> None:
    entries = re.findall(r'X\((\w+), "(\w+)", (\d), (\w+)\)', HEADER.read_text())
    assert entries == [
        (operation.name, operation.code, str(operation.arity), _category(operation))
        for operation in OPERATIONS.values()
    ]
