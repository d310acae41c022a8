"""Times as a table writes them: numbers, or days and times of day in the order of ISO 8601.

A time is only ever compared with others. Text that could be read in two ways (9/2/2024) is no time.
"""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

__all__ = ["LOCAL", "NUMBER", "Timestamp", "parse_timestamp"]

_DAY = re.compile(
    r"(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?:(?P=mark)(?P<day>\d{1,2}))?"
    r"(?:[T ] *(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<parts>\d+))?)? *"
    r"(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII | re.IGNORECASE,
)
_QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])", re.ASCII | re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d{2})(?:-?([1-7]))?", re.ASCII | re.IGNORECASE)


NUMBER = "a number"
LOCAL = "a day or a time without offset from UTC"
"""The kind of times that run twice through an hour where summer time ends."""


class Timestamp(NamedTuple):
    """A point in time: those of one kind compare by their value, which is exact."""

    kind: str
    value: Any


def parse_timestamp(cell: Any) -> Timestamp | None:
    """The time in a cell, or None where it is none.

    A time of day with an offset from UTC is a time in UTC; one without is of another kind, since
    nobody knows which of the two comes first.
    """
    number = _number(cell)
    if number is not None:
        return Timestamp(NUMBER, number)
    try:
        return _time(str(cell).strip())
    except (ValueError, OverflowError):
        return None


def _number(cell: Any) -> Decimal | None:
    if isinstance(cell, date) or "_" in str(cell):
        return None
    try:
        # Exact: nanoseconds since 1970 are beyond what a float tells apart.
        number = Decimal(cell.strip() if isinstance(cell, str) else cell)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return number if number.is_finite() else None


def _time(text: str) -> Timestamp | None:
    quarter = _QUARTER.fullmatch(text)
    if quarter:
        return Timestamp(LOCAL, (datetime(int(quarter[1]), 3 * int(quarter[2]) - 2, 1), 0))
    week = _WEEK.fullmatch(text)
    if week:
        monday = datetime.fromisocalendar(int(week[1]), int(week[2]), int(week[3] or 1))
        return Timestamp(LOCAL, (monday, 0))
    fields = _DAY.fullmatch(text)
    if fields is None:
        return None
    if fields["hour"] and not fields["day"]:
        return None
    parts = Decimal(f"0.{fields['parts'] or 0}")
    local = datetime(
        int(fields["year"]),
        int(fields["month"]),
        int(fields["day"] or 1),
        int(fields["hour"] or 0),
        int(fields["minute"] or 0),
        int(fields["second"] or 0),
    )
    if fields["zone"] is None:
        return Timestamp(LOCAL, (local, parts))
    return Timestamp("a time with offset from UTC", (local - _offset(fields["zone"]), parts))


def _offset(zone: str) -> timedelta:
    if zone[0] not in "+-":
        return timedelta(0)
    digits = zone[1:].replace(":", "")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -size if zone[0] == "-" else size
