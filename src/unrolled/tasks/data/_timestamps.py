"""Times in tables: numbers, or dates and times of day in the order of ISO 8601.

Times are only compared with each other. A text with two readings (9/2/2024) is not a time.
"""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

_DATE = re.compile(
    r"(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?:(?P=mark)(?P<day>\d{1,2}))?"
    r"(?:[T ] *(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<parts>\d+))?)? *"
    r"(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII | re.IGNORECASE,
)
_QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])", re.ASCII | re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d{2})(?:-?([1-7]))?", re.ASCII | re.IGNORECASE)

NUMBER = "a number"
LOCAL = "a day or a time without offset from UTC"
"""The type of times that pass through one hour twice, at the end of daylight saving time."""
UTC = "a time with offset from UTC"


class Timestamp(NamedTuple):
    """A point in time. Those of one type compare by their value, which is exact: a number, or a
    datetime and the fraction of its second."""

    type: str
    value: Decimal | tuple[datetime, Decimal]

    def is_before(self, other: "Timestamp") -> bool:
        """Whether this time is earlier than another one of the same type."""
        if isinstance(self.value, Decimal) and isinstance(other.value, Decimal):
            return self.value < other.value
        if isinstance(self.value, tuple) and isinstance(other.value, tuple):
            return self.value < other.value
        raise TypeError(f"Timestamp: other must be {self.type}, got {other.type}")


def parse_timestamp(cell: object) -> Timestamp | None:
    """The time in a cell, or None if it is not one.

    A time of day with an offset from UTC is converted to UTC. One without has another type, since
    the two cannot be compared.
    """
    number = _parse_number(cell)
    if number is not None:
        return Timestamp(NUMBER, number)
    try:
        return _parse_date(str(cell).strip())
    except (ValueError, OverflowError):
        return None


def _parse_number(cell: object) -> Decimal | None:
    if isinstance(cell, date) or "_" in str(cell):
        return None
    try:
        # Exact: nanoseconds since 1970 have more digits than a float.
        number = _decimal(cell)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return number if number.is_finite() else None


def _decimal(cell: object) -> Decimal:
    if isinstance(cell, str):
        return Decimal(cell.strip())
    if isinstance(cell, int | float | Decimal):
        return Decimal(cell)
    raise TypeError(f"cell: must be a number or text, got {type(cell).__name__}")


def _parse_date(text: str) -> Timestamp | None:
    quarter = _QUARTER.fullmatch(text)
    if quarter:
        first_day = datetime(int(quarter[1]), 3 * int(quarter[2]) - 2, 1)
        return Timestamp(LOCAL, (first_day, Decimal(0)))
    week = _WEEK.fullmatch(text)
    if week:
        day = datetime.fromisocalendar(int(week[1]), int(week[2]), int(week[3] or 1))
        return Timestamp(LOCAL, (day, Decimal(0)))
    fields = _DATE.fullmatch(text)
    if fields is None or (fields["hour"] and not fields["day"]):
        return None
    fraction = Decimal(f"0.{fields['parts'] or 0}")
    local = datetime(
        int(fields["year"]),
        int(fields["month"]),
        int(fields["day"] or 1),
        int(fields["hour"] or 0),
        int(fields["minute"] or 0),
        int(fields["second"] or 0),
    )
    if fields["zone"] is None:
        return Timestamp(LOCAL, (local, fraction))
    return Timestamp(UTC, (local - _utc_offset(fields["zone"]), fraction))


def _utc_offset(zone: str) -> timedelta:
    if zone[0] not in "+-":
        return timedelta(0)
    digits = zone[1:].replace(":", "")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -size if zone[0] == "-" else size
