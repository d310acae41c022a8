"""The scale of numeric data, against scikit-learn's, and beyond the range of squares."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from unrolled.tasks.codecs._standardization import mean_and_deviation

VALUES = arrays(
    np.float64, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=st.floats(-1e6, 1e6)
)


@given(VALUES)
def test_mean_and_deviation_are_scikit_learns(values: np.ndarray) -> None:
    scaler = StandardScaler().fit(values)
    mean, deviation = mean_and_deviation(torch.from_numpy(values))
    eps = len(values) * np.finfo(np.float64).eps
    size = np.abs(values).max(0)
    np.testing.assert_allclose(mean, scaler.mean_, rtol=0, atol=eps * size.max())
    # Near the threshold either may call a column constant.
    clear = (scaler.scale_ != 1.0) & (scaler.scale_ > 1e-6 * size) & (size > 1e-6)
    np.testing.assert_allclose(deviation.numpy()[clear], scaler.scale_[clear], rtol=1e-8)
    still = (values == values[0]).all(0)
    assert (deviation.numpy()[still] == 1.0).all()


@pytest.mark.parametrize("value", [0.1, 1e-8, 299_792_458.3, -0.7])
def test_a_column_that_is_constant_but_for_rounding_has_deviation_1(value: float) -> None:
    """A mean of n equal numbers is seldom that number, and n of them sum up n roundings."""
    values = torch.full((1001, 1), value, dtype=torch.float64)
    values[::3] *= 1 + torch.finfo(torch.float64).eps
    mean, deviation = mean_and_deviation(values)
    assert deviation.item() == 1.0
    assert mean.item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e170, 1e300])
def test_squares_stay_in_range(size: float) -> None:
    values = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    _, expected = mean_and_deviation(values)
    _, deviation = mean_and_deviation(values * size)
    assert deviation.item() == pytest.approx(expected.item() * size, rel=1e-12)


def test_a_small_wave_on_a_large_level_keeps_its_deviation() -> None:
    wave = torch.arange(200, dtype=torch.float64).sin()
    _, deviation = mean_and_deviation(25_000_000 + 5 * wave[:, None])
    assert deviation.item() == pytest.approx(5 * wave.std(correction=0).item(), rel=1e-6)
