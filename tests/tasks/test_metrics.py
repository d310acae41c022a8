"""Measures against scikit-learn and against numbers worked out by hand; baselines likewise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from tests.support.tolerances import close
from unrolled.tasks._baselines import FrequentLabels, majority_class, persistence, seasonal_naive
from unrolled.tasks._metrics import (
    accuracy,
    bits_per_character,
    class_counts,
    edit_distance,
    error_rate,
    f1_scores,
    macro_f1,
    mean_absolute_error,
    mean_absolute_scaled_error,
    root_mean_squared_error,
)
from unrolled.tasks.data._conll import Sentence

# Classes

CLASSES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(CLASSES)
def test_classes_are_measured_as_scikit_learn_does(pairs: list[tuple[int, int]]) -> None:
    expected, predicted = (torch.tensor(side) for side in zip(*pairs, strict=True))
    counts = class_counts(expected, predicted, 5)
    labels = list(range(5))
    matrix = oracle.confusion_matrix(expected, predicted, labels=labels)
    assert counts.tolist() == [matrix.sum(1).tolist(), matrix.sum(0).tolist(),
                               matrix.diagonal().tolist()]  # fmt: skip
    assert accuracy(counts) == pytest.approx(oracle.accuracy_score(expected, predicted))
    f1 = oracle.f1_score(expected, predicted, average="macro", zero_division=0.0)
    assert macro_f1(counts) == pytest.approx(f1)
    scores = oracle.f1_score(
        expected, predicted, labels=labels, average=None, zero_division=math.nan
    )
    np.testing.assert_allclose(f1_scores(counts).numpy(), scores)


def test_padding_is_not_measured_and_batches_add() -> None:
    expected = torch.tensor([[0, 1, -100], [2, -100, -100]])
    predicted = torch.tensor([[0, 2, 1], [2, 0, 7]])
    counts = class_counts(expected, predicted, 3)
    assert counts.tolist() == [[1, 1, 1], [1, 0, 2], [1, 0, 1]]
    assert accuracy(counts) == pytest.approx(2 / 3)
    rows = [class_counts(w, p, 3) for w, p in zip(expected, predicted, strict=True)]
    assert torch.equal(rows[0] + rows[1], counts)


def test_nothing_is_not_a_number() -> None:
    nothing = class_counts(torch.tensor([-100]), torch.tensor([0]), 2)
    assert math.isnan(accuracy(nothing))
    assert math.isnan(macro_f1(nothing))
    assert math.isnan(error_rate([], []))


def test_wrong_classes_raise() -> None:
    class_1, class_2 = torch.tensor([1]), torch.tensor([2])
    with pytest.raises(ValueError, match="predicted must be below 2, got 2"):
        class_counts(class_1, class_2, 2)
    with pytest.raises(ValueError, match="expected must be below 2, got -1"):
        class_counts(-class_1, class_1, 2)
    with pytest.raises(ValueError, match=r"shape of expected, \[1\], got \[1, 1\]"):
        class_counts(class_1, class_1[None], 2)


# Forecasts


def test_errors_of_forecasts_are_those_of_scikit_learn_at_each_step() -> None:
    expected, predicted = torch.randn(2, 3, 7, 2, dtype=torch.float64)
    absolute = mean_absolute_error(expected, predicted)
    squared = root_mean_squared_error(expected, predicted)
    for k in range(3):
        pair = expected[k].flatten(), predicted[k].flatten()
        assert absolute[k].item() == pytest.approx(oracle.mean_absolute_error(*pair))
        assert squared[k].item() == pytest.approx(oracle.root_mean_squared_error(*pair))


def test_scaled_errors_by_hand() -> None:
    history = torch.tensor([1.0, 4.0, 2.0, 5.0, 3.0])
    expected = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    predicted = torch.tensor([[11.0, 18.0], [30.0, 44.0]])
    # One step back: 3, 2, 3, 2, mean 2.5. Two steps back: 1, 1, 1, mean 1.
    next_step_error = mean_absolute_scaled_error(expected, predicted, history)
    close(next_step_error, torch.tensor([1.5 / 2.5, 2.0 / 2.5], dtype=torch.float64), "output")
    second_step_error = mean_absolute_scaled_error(expected, predicted, history, season=2)
    close(second_step_error, torch.tensor([1.5, 2.0], dtype=torch.float64), "output")


def test_each_variable_has_its_own_scale() -> None:
    history = torch.tensor([[0.0, 0.0], [1.0, 100.0]])
    expected, predicted = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 100.0]]])
    assert mean_absolute_scaled_error(expected, predicted, history).tolist() == [2.0]


def test_the_naive_forecast_has_scaled_error_one() -> None:
    series = torch.randn(40, dtype=torch.float64).cumsum(0)
    forecasts = torch.stack([persistence(series[:t], 1) for t in range(1, 40)], 1)
    error = mean_absolute_scaled_error(series[1:][None], forecasts, series)
    assert error.item() == pytest.approx(1.0)


def test_wrong_forecasts_raise() -> None:
    y = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"predicted must have .* \[2, 3\], got \[3\]"):
        mean_absolute_error(y, y[0])
    with pytest.raises(ValueError, match=r"got \[3\]"):
        root_mean_squared_error(y[0], y[0])
    with pytest.raises(ValueError, match="history must change"):
        mean_absolute_scaled_error(y, y, torch.ones(5))
    with pytest.raises(ValueError, match="season must be from 1 to 4, got 5"):
        mean_absolute_scaled_error(y, y, torch.arange(5.0), season=5)
    with pytest.raises(
        ValueError, match=r"history must have the variables of expected, \[\], got \[2"
    ):
        mean_absolute_scaled_error(y, y, torch.zeros(5, 2))


# Texts


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "ab", 2),
        ("kitten", "sitting", 3),
        ("sunday", "saturday", 3),
        ("flaw", "lawn", 2),
        ("ab", "ba", 2),
        ("naïve", "naive", 1),
        (["the", "cat"], ["the", "black", "cat"], 1),
    ],
)
def test_edit_distances_by_hand(a: str, b: str, expected: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == expected


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_the_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_texts_are_compared() -> None:
    expected, predicted = ["kitten", "abcd", "x"], ["sitting", "abcd", ""]
    assert error_rate(expected, predicted) == pytest.approx(4 / 11)
    with pytest.raises(ValueError, match="shorter"):
        error_rate(expected, ["a"])


def test_bits_per_character_count_the_text() -> None:
    assert bits_per_character(math.log(2)) == 1.0
    # A model that is certain of nothing among 16 pieces of four characters each: 4 bits for four.
    assert bits_per_character(math.log(16), 4.0) == pytest.approx(1.0)


# Baselines


def test_the_majority_class_is_the_commonest() -> None:
    assert majority_class(torch.tensor([[3, 1], [1, 0]])) == 1
    assert majority_class(torch.tensor([4, 2, 4, 2, 0])) == 2
    with pytest.raises(ValueError, match="labels must not be empty, got none"):
        majority_class(torch.tensor([], dtype=torch.int64))


def test_each_token_gets_its_commonest_label() -> None:
    baseline = FrequentLabels(
        [
            Sentence(("the", "can", "can"), ("O", "N", "V")),
            Sentence(("can", "the", "may"), ("V", "O", "V")),
            Sentence(("may", "the"), ("N", "O")),
        ]
    )
    # "may" was N and V once each; O is the commonest of all.
    assert baseline(["can", "may", "the", "never"]) == ["V", "N", "O", "O"]
    assert baseline([]) == []
    with pytest.raises(ValueError, match="sentences must have at least one token"):
        FrequentLabels([Sentence((), ())])


def test_forecasts_without_learning() -> None:
    window = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    assert persistence(window, 2).tolist() == [[3.0, 30.0]] * 2
    assert seasonal_naive(window, 5, 2)[:, 0].tolist() == [2.0, 3.0, 2.0, 3.0, 2.0]
    assert seasonal_naive(window, 2, 3)[:, 1].tolist() == [10.0, 20.0]
    assert seasonal_naive(torch.arange(24.0), 12, 12).tolist() == list(range(12, 24))
    with pytest.raises(ValueError, match="season must be from 1 to 3, the window's length, got 4"):
        seasonal_naive(window, 1, 4)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        persistence(window, 0)
