"""Pairs for translation without a download: dates and numbers, in English words and in digits."""

import datetime
import random
from collections.abc import Callable
from typing import Literal

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
        raise ValueError(f"number_in_words: number must be from 0 to {_MILLION - 1}, got {number}")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    count, remainder = divmod(number, unit)
    words = f"{number_in_words(count)} {name}"
    if remainder:
        words += (" and " if remainder < 100 else " ") + number_in_words(remainder)
    return words


def ordinal(number: int) -> str:
    """An ordinal number, 1 to 99, in words: 3 is "third", 21 is "twenty-first".

    Raises:
        ValueError: the number is out of this range.
    """
    if not 1 <= number < 100:
        raise ValueError(f"ordinal: number must be from 1 to 99, got {number}")
    tens, hyphen, ones = number_in_words(number).rpartition("-")
    if ones in _ORDINALS:
        ones = _ORDINALS[ones]
    else:
        ones = f"{ones[:-1]}ieth" if ones.endswith("y") else f"{ones}th"
    return tens + hyphen + ones


def year_in_words(year: int) -> str:
    """A year, 1100 to 2099, as it is spoken: "nineteen eighty-four", "nineteen oh five",
    "nineteen hundred", "two thousand and one", "twenty twelve".

    Raises:
        ValueError: the year is out of this range.
    """
    if not 1100 <= year <= 2099:
        raise ValueError(f"year_in_words: year must be from 1100 to 2099, got {year}")
    century, remainder = divmod(year, 100)
    if 2000 <= year < 2010:
        return number_in_words(year)
    if remainder == 0:
        return f"{number_in_words(century)} hundred"
    zero = "oh " if remainder < 10 else ""
    return f"{number_in_words(century)} {zero}{number_in_words(remainder)}"


def dates(training: int = 8000, validation: int = 1000, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Dates in words and in digits: ("the third of March, nineteen eighty-four", "1984-03-03").

    Source: generated. Days of the years 1100 to 2099 (365,243 of them), each at most once, so none
    of validation is in training; in words as above, or as "March the third, nineteen eighty-four".

    Args:
        training: pairs for training.
        validation: pairs for validation.
        seed: of the random number generator.

    Returns:
        training and validation, pairs of words and ISO 8601.

    Raises:
        ValueError: there are not as many days.
    """
    days = (_LAST_DAY - _FIRST_DAY).days + 1
    _check("dates", training, validation, days)
    generator = random.Random(seed)

    def pair(offset: int) -> tuple[str, str]:
        day = _FIRST_DAY + datetime.timedelta(offset)
        day_name, month = ordinal(day.day), _MONTHS[day.month - 1]
        words = generator.choice((f"the {day_name} of {month}", f"{month} the {day_name}"))
        return f"{words}, {year_in_words(day.year)}", day.isoformat()

    return _split(generator.sample(range(days), training + validation), training, pair)


def numbers(
    training: int = 8000,
    validation: int = 1000,
    to: Literal["figures", "words"] = "figures",
    seed: int = 0,
) -> tuple[Pairs, Pairs]:
    """Numbers in words and in digits: ("one hundred and seven", "107"), or the reverse.

    Source: generated. Numbers below a million, each at most once, so none of validation is in
    training; all numbers of digits are equally likely.

    Args:
        training: pairs for training.
        validation: pairs for validation.
        to: the target: "figures" (digits) or "words".
        seed: of the random number generator.

    Raises:
        ValueError: `to` is neither, or the pairs are more than half a million.
    """
    if to not in ("figures", "words"):
        raise ValueError(f"numbers: to must be 'figures' or 'words', got {to!r}")
    _check("numbers", training, validation, _MILLION // 2)
    generator = random.Random(seed)
    drawn: dict[int, None] = {}
    while len(drawn) < training + validation:
        drawn[generator.randrange(10 ** generator.randint(1, 6))] = None
    order = list(drawn)
    generator.shuffle(order)  # otherwise short numbers would come first

    def pair(number: int) -> tuple[str, str]:
        words, digits = number_in_words(number), str(number)
        return (words, digits) if to == "figures" else (digits, words)

    return _split(order, training, pair)


def _check(function: str, training: int, validation: int, maximum: int) -> None:
    if training < 1 or validation < 1:
        raise ValueError(
            f"{function}: training and validation must be at least 1, got {training} and "
            f"{validation}"
        )
    if training + validation > maximum:
        raise ValueError(
            f"{function}: training and validation must be at most {maximum} pairs together, got "
            f"{training} + {validation}"
        )


def _split(
    drawn: list[int], training: int, pair: Callable[[int], tuple[str, str]]
) -> tuple[Pairs, Pairs]:
    return [pair(d) for d in drawn[:training]], [pair(d) for d in drawn[training:]]
