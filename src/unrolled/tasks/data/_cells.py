"""The meaning of a single cell of a table: missing, a number, a name; and how to correct it."""

import math
import re
import unicodedata
from collections.abc import Hashable

from unrolled.tasks.data._timestamps import NUMBER, parse_timestamp

MISSING_NAMES = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Texts that stand for a missing value, in lower case."""
BOOLEANS = {"true": 1.0, "false": 0.0}
NOT_SCALAR = (list, dict, tuple, bytes)
"""Types of cells that are neither a text nor a number."""
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+", re.ASCII)


def is_missing(cell: object) -> bool:
    """Whether a cell is empty, NaN, or a text such as NA or null."""
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING_NAMES
    return cell is None or cell != cell  # only NaN differs from itself


def parse_number(cell: object) -> float | None:
    """The number in a cell, which may be infinite or NaN; None if there is none."""
    if isinstance(cell, str):
        # Python reads underscores in numbers, tables do not.
        if "_" in cell:
            return None
        boolean = BOOLEANS.get(cell.strip().lower())
        if boolean is not None:
            return boolean
    try:
        return float(cell)  # type: ignore[arg-type]  # whatever has no float is not a number
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def holds_number(cell: object) -> bool:
    """Whether a cell has a number, also an infinite one, one in another notation, or several."""
    if is_missing(cell):
        return False
    if isinstance(cell, NOT_SCALAR):
        return not isinstance(cell, bytes)
    return parse_number(cell) is not None or bool(number_advice(cell))


def describe_type(cell: object) -> str:
    """What a cell that is not scalar holds, for messages."""
    if isinstance(cell, bytes):
        return "bytes that are not UTF-8"
    return "a list of values in one cell; give each a column of its own"


def number_advice(cell: object) -> str:
    """How to correct a text that is a number in another notation; empty for other cells."""
    text = cell.strip() if isinstance(cell, str) else ""
    if re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", text):
        return "; write a point, not a comma, before decimals, and nothing between thousands"
    if re.fullmatch(r"[+-]?\d{1,3}([.,'\u2019\s]\d{3})+([.,]\d+)?", text):
        return "; write nothing between thousands, and a point before decimals"
    return ""


def normalize_name(text: str) -> str:
    """A name without the blanks around it; a whole number without zero decimals."""
    name = text.strip()
    whole = _WHOLE_NUMBER.fullmatch(name)
    return whole[1] if whole else name


def spelling_key(name: str) -> Hashable:
    """Equal for names that differ only in how they are written."""
    timestamp = parse_timestamp(name)
    if timestamp is not None and timestamp.type == NUMBER:
        return timestamp.value  # exact, also for integers of 17 digits
    normalized = unicodedata.normalize("NFC", name)
    visible = (c for c in normalized if unicodedata.category(c) != "Cf")
    return " ".join("".join(visible).split())
