"""Pairs for translation without a download: dates and numbers in English words, and as figures."""

import datetime
import random
from collections.abc import Callable
from typing import Literal

__all__ = ["dates", "number_in_words", "numbers", "ordinal", "year_in_words"]

Pairs = list[tuple[str, str]]

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_FIRST_DAY, _LAST_DAY = datetime.date(1100, 1, 1), datetime.date(2099, 12, 31)
_MILLION = 10**6


def number_in_words(number: int) -> str:
    """A number below a million in words: 1984 is "one thousand nine hundred and eighty-four".

    Raises:
        ValueError: it is negative, or a million or more.
    """
    if not 0 <= number < _MILLION:
        raise ValueError(f"number: wanted 0 to {_MILLION - 1}, got {number}")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, unit)
    words = f"{number_in_words(many)} {name}"
    if rest:
        words += (" and " if rest < 100 else " ") + number_in_words(rest)
    return words


def ordinal(number: int) -> str:
    """The place in a row, 1 to 99, in words: 3 is "third", 21 is "twenty-first".

    Raises:
        ValueError: the number is out of this range.
    """
    if not 1 <= number < 100:
        raise ValueError(f"number: wanted 1 to 99, got {number}")
    first, hyphen, last = number_in_words(number).rpartition("-")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return first + hyphen + last


def year_in_words(year: int) -> str:
    """A year, 1100 to 2099, as it is said: "nineteen eighty-four", "nineteen oh five",
    "nineteen hundred", "two thousand and one", "twenty twelve".

    Raises:
        ValueError: the year is out of this range.
    """
    if not 1100 <= year <= 2099:
        raise ValueError(f"year: wanted 1100 to 2099, got {year}")
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return number_in_words(year)
    if rest == 0:
        return f"{number_in_words(century)} hundred"
    return f"{number_in_words(century)} {'oh ' if rest < 10 else ''}{number_in_words(rest)}"


def dates(training: int = 8000, validation: int = 1000, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Dates in words and in figures: ("the third of March, nineteen eighty-four", "1984-03-03").

    Source: made up. Days of the years 1100 to 2099 (365,243 of them), each at most once, so none
    of validation is in training; said as above, or as "March the third, nineteen eighty-four".

    Args:
        training: pairs to train on.
        validation: pairs to measure on.
        seed: of what is drawn.

    Returns:
        training and validation, pairs of words and ISO 8601.

    Raises:
        ValueError: there are not as many days.
    """
    days = (_LAST_DAY - _FIRST_DAY).days + 1
    _check(training, validation, days)
    chance = random.Random(seed)

    def pair(offset: int) -> tuple[str, str]:
        day = _FIRST_DAY + datetime.timedelta(offset)
        which, month = ordinal(day.day), _MONTHS[day.month - 1]
        said = chance.choice((f"the {which} of {month}", f"{month} the {which}"))
        return f"{said}, {year_in_words(day.year)}", day.isoformat()

    return _split(chance.sample(range(days), training + validation), training, pair)


def numbers(
    training: int = 8000,
    validation: int = 1000,
    to: Literal["figures", "words"] = "figures",
    seed: int = 0,
) -> tuple[Pairs, Pairs]:
    """Numbers in words and in figures: ("one hundred and seven", "107"), or the other way.

    Source: made up. Numbers below a million, each at most once, so none of validation is in
    training; short and long ones alike, not in the proportion in which there are such numbers.

    Args:
        training: pairs to train on.
        validation: pairs to measure on.
        to: "figures" has the words first, "words" the figures.
        seed: of what is drawn.

    Raises:
        ValueError: `to` is neither, or more than half a million pairs are wanted.
    """
    if to not in ("figures", "words"):
        raise ValueError(f"to: wanted 'figures' or 'words', got {to!r}")
    _check(training, validation, _MILLION // 2)
    chance = random.Random(seed)
    drawn: dict[int, None] = {}
    while len(drawn) < training + validation:
        drawn[chance.randrange(10 ** chance.randint(1, 6))] = None
    order = list(drawn)
    chance.shuffle(order)  # the short numbers come first else

    def pair(number: int) -> tuple[str, str]:
        words, figures = number_in_words(number), str(number)
        return (words, figures) if to == "figures" else (figures, words)

    return _split(order, training, pair)


def _check(training: int, validation: int, most: int) -> None:
    if training < 1 or validation < 1:
        raise ValueError(f"training, validation: wanted 1 or more, got {training}, {validation}")
    if training + validation > most:
        raise ValueError(
            f"training, validation: wanted at most {most} pairs in all, "
            f"got {training} + {validation}"
        )


def _split(
    drawn: list[int], training: int, pair: Callable[[int], tuple[str, str]]
) -> tuple[Pairs, Pairs]:
    return [pair(d) for d in drawn[:training]], [pair(d) for d in drawn[training:]]
