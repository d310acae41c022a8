"""Numbers in full are read back as they were; short ones never hide a small number."""

import math

from hypothesis import given
from hypothesis import strategies as st

from unrolled.tasks._number_format import format_full, format_short


@given(st.floats(allow_nan=False))
def test_the_same_number_is_read_back(value: float) -> None:
    assert float(format_full(value)) == value
    assert math.isnan(float(format_full(math.nan)))


def test_a_tensors_number_is_a_plain_one() -> None:
    import numpy as np

    assert format_full(24_999_997.9) == "24999997.9"
    assert format_full(np.float64(3e-8)) == "3e-08"


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_four_digits_are_within_half_a_thousandth(value: float) -> None:
    assert math.isclose(float(format_short(value)), value, rel_tol=5.01e-4)
