"""Times as tables write them, against Python's own; ambiguous text is not a time."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.tasks.data._timestamps import parse_timestamp

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
AWARE = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)


@given(AWARE, AWARE, st.sampled_from(["T", " "]))
def test_times_with_offsets_compare_as_pythons_do(
    time: datetime, other_time: datetime, mark: str
) -> None:
    a, b = (parse_timestamp(moment.isoformat(mark)) for moment in (time, other_time))
    assert a is not None
    assert b is not None
    assert a.type == b.type
    assert (a.value < b.value, a.value == b.value) == (time < other_time, time == other_time)


@given(st.datetimes(), st.datetimes())
def test_times_without_offset_compare_as_pythons_do(time: datetime, other_time: datetime) -> None:
    a, b = (parse_timestamp(str(moment)) for moment in (time, other_time))
    assert a is not None
    assert b is not None
    assert (a.value < b.value, a.value == b.value) == (time < other_time, time == other_time)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_exact(number: Decimal) -> None:
    moment = parse_timestamp(f" {number} ")
    assert moment is not None
    assert moment.value == number


@pytest.mark.parametrize(
    "rising",
    [
        # The hour that comes twice where summer time ends.
        ["2024-10-27 02:00+02:00", "2024-10-27 02:30+02:00", "2024-10-27 02:00+01:00"],
        ["2024-9-30", "2024-10-01", "2024-10-1 00:01", "2024-12-31"],
        ["2024/9/2", "2024/10/1"],
        ["2023.12.31", "2024.01.01"],
        ["1749-01", "1749-02", "1750-01"],
        ["2023-Q4", "2024Q1", "2024 Q2"],
        ["2023-W52", "2024-W01", "2024W02", "2024-W02-3"],
        ["2024-01-01T00:00:00.000000001Z", "2024-01-01T00:00:00.000000002Z"],
        ["2024-01-01 10:00 UTC", "2024-01-01T11:30:00,5+01", "2024-01-01 12:30:00 +0130"],
        [1700000000000000001, 1700000000000000002],
        ["9", "10", "1e2"],
        [0.1, 0.2, 0.30000000000000004],
        [datetime(2024, 1, 1).date(), datetime(2024, 1, 2)],
    ],
)
def test_what_rises_compares_so(rising: list[Any]) -> None:
    moments = [parse_timestamp(cell) for cell in rising]
    assert all(moment is not None for moment in moments)
    assert len({moment.type for moment in moments if moment}) == 1
    values = [moment.value for moment in moments if moment]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_an_offset_is_another_kind() -> None:
    with_offset, without = parse_timestamp("2024-01-01 00:00Z"), parse_timestamp("2024-01-01 00:00")
    assert with_offset is not None
    assert without is not None
    assert with_offset.type != without.type
    assert with_offset.value[0] == datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    "cell",
    ["", None, "nan", "inf", "9/2/2024", "02.09.2024", "2024-13-01", "2024-02-30", "24:00",
     "2024-01-01 24:00", "2024-01-01 3:00 PM", "2024-01 10:00", "2024-01/02", "Jan 2024", "1_0",
     "week 10", "2024-Q5", "2024-W54", "0001-01-01 00:00+05:00", [1]],
)  # fmt: skip
def test_other_text_is_not_a_time(cell: Any) -> None:
    assert parse_timestamp(cell) is None
