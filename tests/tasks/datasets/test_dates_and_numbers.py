"""Numbers and dates in words: by hand, read back, and split without overlap."""

import re

import pytest

from unrolled.tasks.datasets import (
    dates,
    number_in_words,
    numbers,
    ordinal,
    year_in_words,
)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (107, "one hundred and seven"),
        (115, "one hundred and fifteen"),
        (880, "eight hundred and eighty"),
        (1000, "one thousand"),
        (1012, "one thousand and twelve"),
        (1984, "one thousand nine hundred and eighty-four"),
        (21_400, "twenty-one thousand four hundred"),
        (100_001, "one hundred thousand and one"),
        (
            999_999,
            "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
        ),
    ],
)
def test_numbers_in_words_by_hand(number: int, words: str) -> None:
    assert number_in_words(number) == words


def test_ordinals_by_hand() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 20, 21, 22, 30, 31, 40, 99)] == [
        *["first", "second", "third", "fourth", "fifth", "eighth", "ninth", "eleventh", "twelfth"],
        *["thirteenth", "twentieth", "twenty-first", "twenty-second", "thirtieth", "thirty-first"],
        *["fortieth", "ninety-ninth"],
    ]


@pytest.mark.parametrize(
    ("year", "words"),
    [
        (1100, "eleven hundred"),
        (1600, "sixteen hundred"),
        (1905, "nineteen oh five"),
        (1909, "nineteen oh nine"),
        (1910, "nineteen ten"),
        (1984, "nineteen eighty-four"),
        (2000, "two thousand"),
        (2001, "two thousand and one"),
        (2010, "twenty ten"),
        (2099, "twenty ninety-nine"),
    ],
)
def test_years_in_words_by_hand(year: int, words: str) -> None:
    assert year_in_words(year) == words


ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
VALUES = {
    **{word: i for i, word in enumerate(ONES.split(), 1)},
    "zero": 0,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}


def value_of(words: str) -> int:
    """The number that words say: an oracle that knows nothing of how they came about."""
    total = part = 0
    for word in re.split("[ -]", words):
        if word == "thousand":
            total, part = part * 1000, 0
        elif word == "hundred":
            part *= 100
        elif word != "and":
            part += VALUES[word]
    return total + part


def test_numbers_come_back_from_their_words() -> None:
    for number in [*range(3000), *range(3000, 10**6, 997)]:
        assert value_of(number_in_words(number)) == number
    training, validation = numbers(3000, 500)
    assert all(value_of(words) == int(figures) for words, figures in training + validation)
    assert min(map(len, (f for _, f in training))) == 1
    reverse, _ = numbers(3000, 500, to="words")
    assert [(words, figures) for figures, words in reverse] == training


def test_dates_come_back_from_their_words() -> None:
    months = "January February March April May June July August September October November December"
    forms = set()
    for words, iso in dates(3000, 1)[0]:
        message = re.fullmatch(r"(?:the (\S+) of (\S+)|(\S+) the (\S+)), (.+)", words)
        assert message
        forms.add(message[1] is None)
        day, month = (message[1], message[2]) if message[1] else (message[4], message[3])
        place = [ordinal(n) for n in range(1, 32)].index(day) + 1
        year = message[5].replace(" oh ", " ")
        number = value_of(year)
        if "hundred" not in year and "thousand" not in year:
            century, year_of_century = year.split(" ")
            number = 100 * value_of(century) + value_of(year_of_century)
        assert iso == f"{number}-{months.split().index(month) + 1:02}-{place:02}"
    assert forms == {False, True}


@pytest.mark.parametrize("make", [dates, numbers])
def test_pairs_of_validation_were_never_seen(make: type) -> None:
    training, validation = make(5000, 700, seed=1)
    assert (len(training), len(validation)) == (5000, 700)
    for side in range(2):
        texts = [{pair[side] for pair in part} for part in (training, validation)]
        assert [len(part) for part in texts] == [5000, 700]
        assert not texts[0] & texts[1]
    assert make(5000, 700, seed=1) == (training, validation)
    assert make(5000, 700, seed=2)[0] != training


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="number must be from 0 to 999999, got 1000000"):
        number_in_words(10**6)
    with pytest.raises(ValueError, match="number must be from 1 to 99, got 0"):
        ordinal(0)
    with pytest.raises(ValueError, match="year must be from 1100 to 2099, got 1099"):
        year_in_words(1099)
    with pytest.raises(ValueError, match="training and validation must be at most 365243 pairs"):
        dates(365_243, 1)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 1"):
        numbers(0, 1)
    with pytest.raises(ValueError, match="to must be 'figures' or 'words', got 'digits'"):
        numbers(to="digits")  # type: ignore[arg-type]
