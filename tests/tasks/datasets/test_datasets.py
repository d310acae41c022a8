"""Data without a download: what they hold, that validation was never seen, faults told."""

import io
import math
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.tasks import standard_library
from unrolled.tasks.data.source import DataError
from unrolled.tasks.datasets import (
    DIRECTIONS,
    SERIES,
    code_snippets,
    dates,
    digits,
    languages,
    moving_digits,
    number_in_words,
    numbers,
    ordinal,
    python_tags,
    python_tokens,
    series,
    year_in_words,
)
from unrolled.tasks.datasets.python_tokens import tag_lines
from unrolled.tasks.entities import find_spans, has_entities

# Lines of Python


def pieces_of(source: str) -> list[list[tuple[str, str]]]:
    """Text and type of each entity, line by line."""
    return [
        [(s.kind, "".join(line.tokens[s.start : s.end])) for s in find_spans(line.labels)]
        for line in tag_lines(source.encode())
    ]


def test_lines_are_labelled_by_hand() -> None:
    source = "if inner == 'a b':  # no\n\treturn 0x1F+_x\n"
    kinds = ["KEYWORD", "NAME", "OP", "STRING", "OP", "COMMENT"]
    texts = ["if", "inner", "==", "'a b'", ":", "# no"]
    second = [("KEYWORD", "return"), ("NUMBER", "0x1F"), ("OP", "+"), ("NAME", "_x")]
    assert pieces_of(source) == [list(zip(kinds, texts, strict=True)), second]
    line = tag_lines(b"a = 12\n")[0]
    assert line.tokens == tuple("a = 12")
    assert line.labels == ("B-NAME", "O", "B-OP", "O", "B-NUMBER", "I-NUMBER")


def test_lines_that_do_not_tell_are_left_out() -> None:
    assert pieces_of('x = """a\nb = 1\n""" + y\n\n   \nz\n') == [[("NAME", "z")]]
    assert pieces_of("a = 1\n" + "b" * 121 + "\n") == [
        [("NAME", "a"), ("OP", "="), ("NUMBER", "1")]
    ]
    assert pieces_of("é = 'ü'\r\nx\r\n") == [
        [("NAME", "é"), ("OP", "="), ("STRING", "'ü'")],
        [("NAME", "x")],
    ]
    assert pieces_of("f(\n") == []
    assert tag_lines(b"# coding: utf-8\nx = '\xff'\n") == []


def test_a_formatted_string_is_one_string() -> None:
    assert pieces_of("f'{a:{b}} {c!r}' + f\"x\"\n") == [
        [("STRING", "f'{a:{b}} {c!r}'"), ("OP", "+"), ("STRING", 'f"x"')]
    ]


def test_the_standard_library_is_labelled() -> None:
    training, validation = python_tags(900, 300)
    assert (len(training), len(validation)) == (900, 300)
    assert python_tags(900, 300) == (training, validation)
    lines = [{"".join(s.tokens).strip() for s in part} for part in (training, validation)]
    assert [len(part) for part in lines] == [900, 300]
    assert not lines[0] & lines[1]
    assert all(has_entities(s.labels) for s in training)
    kinds = {span.kind for s in validation for span in find_spans(s.labels)}
    assert kinds == {"COMMENT", "KEYWORD", "NAME", "NUMBER", "OP", "STRING"}


def test_too_few_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [file for file in standard_library() if file.name in ("heapq.py", "bisect.py")]
    monkeypatch.setattr(python_tokens, "standard_library", lambda: few)
    with pytest.raises(DataError, match=r"training: wanted 9999 lines .* it has \d+; ask for few"):
        python_tags(9999, 5)
    with pytest.raises(DataError, match="validation: wanted 9999 lines"):
        python_tags(5, 9999)


def test_the_labels_are_those_of_the_tokenizer() -> None:
    file = next(file for file in standard_library() if file.name == "heapq.py")
    wanted = set()
    for token in tokenize.tokenize(io.BytesIO(file.read_bytes()).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT, tokenize.NUMBER):
            wanted.add((token.line.rstrip("\n"), token.start[1], token.string))
    found = 0
    for sentence in tag_lines(file.read_bytes()):
        line = "".join(sentence.tokens)
        for span in find_spans(sentence.labels):
            if span.kind not in ("OP", "STRING"):
                found += 1
                assert (line, span.start, line[span.start : span.end]) in wanted
    assert found > 500


# Languages

WORDS = ["".join(chr(97 + (i * k + k) % 26) for i in range(5)) for k in range(1, 3000)]


def write_files(folder: Path, suffix: str, count: int, word: str) -> None:
    for i in range(count):
        lines = [f"{word} {' '.join(WORDS[(7 * i + j) % 900 + j] for j in range(9))} {i} {k}"
                 for k in range(30)]  # fmt: skip
        (folder / f"{word}{i}{suffix}").write_text("\n".join(lines) + "\n")


def test_snippets_are_balanced_and_split_by_file(tmp_path: Path) -> None:
    write_files(tmp_path, ".py", 40, "snake")
    write_files(tmp_path, ".c", 40, "ocean")
    write_files(tmp_path, ".rb", 3, "gem")
    found = languages(60, 12, length=80, folders=[tmp_path])
    assert found.languages == ("C and C++", "Python")
    for part, wanted in ((found.training, 60), (found.validation, 12)):
        counts = [[name for _, name in part].count(name) for name in found.languages]
        assert counts == [wanted, wanted]
        assert len({text for text, _ in part}) == len(part)
    for text, name in found.training + found.validation:
        assert text.startswith("snake" if name == "Python" else "ocean")
        assert 40 <= len(text) <= 80

    def files(part: list[tuple[str, str]]) -> set[str]:
        return {f"{name} {re.findall(r' ([0-9]+) [0-9]+', text)[0]}" for text, name in part}

    assert not files(found.training) & files(found.validation)
    assert len(files(found.training)) >= 60 * 2 / 8
    assert languages(60, 12, length=80, folders=[tmp_path]) == found
    said = "2 languages (C and C++, Python), of each 60 snippets for training and 12 for validation"
    assert str(found) == said


def test_copies_tables_and_binaries_give_nothing(tmp_path: Path) -> None:
    write_files(tmp_path, ".py", 40, "snake")
    for file in sorted(tmp_path.glob("*.py")):
        file.with_suffix(".c").write_bytes(file.read_bytes())
    write_files(tmp_path, ".css", 40, "sheet")
    (tmp_path / "t.json").write_text("".join(f"{i}, {i}\n" for i in range(9999)))
    (tmp_path / "b.js").write_bytes(b"var code\0 = 1;\n" * 200)
    (tmp_path / "l.js").write_bytes(b"caf\xe9 latin one text\n" * 200)
    (tmp_path / "target").write_text("".join(f"let {word} = {word};\n" for word in WORDS))
    (tmp_path / "s.js").symlink_to(tmp_path / "target")
    (tmp_path / "CMakeLists.txt").write_text("".join(f"add_library({word})\n" for word in WORDS))
    found = languages(150, 25, length=80, folders=[tmp_path])
    # Of equal texts the first language keeps them, the other is left without.
    assert found.languages == ("C and C++", "CSS")
    with pytest.raises(
        DataError, match=r"languages: wanted .*CMake \d \+ \d, .* JSON 0 \+ 0, JavaScript 0 \+ 0"
    ):
        languages(4000, 5, folders=[tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got no files; ask for fewer"):
        languages(1, 1, folders=[tmp_path / "empty"])


def test_long_lines_are_cut() -> None:
    assert list(code_snippets._cut("ab" * 25 + "\n", 20)) == ["ab" * 10, "ab" * 10]
    assert list(code_snippets._cut("one two\nthree four\nfive six\n", 12)) == [
        "one two\nthre",
        "five six",
    ]


@pytest.mark.slow
def test_this_machine_has_languages() -> None:
    found = languages(200, 50)
    assert len(found.languages) >= 4
    assert {"C and C++", "Python"} <= set(found.languages)
    assert len(found.training) == 200 * len(found.languages)


# Pictures


def test_digits_are_rows_of_scikit_learns_pictures() -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    training, validation = digits()
    assert training.inputs.shape == (8, 1437, 8)
    assert validation.inputs.shape == (8, 360, 8)
    both = torch.cat([training.inputs, validation.inputs], 1)
    for t, n in ((0, 0), (3, 77), (7, 1796)):
        assert (both[t, n] * 16).tolist() == data.images[n][t].tolist()
    assert torch.cat([training.labels, validation.labels]).tolist() == data.target.tolist()
    assert training.classes[3] == "3"
    assert both.max() == 1.0


def test_digits_move_as_their_label_says() -> None:
    steps = {"up": -1, "down": 1, "left": -1, "right": 1}
    training, validation = moving_digits(60, 30, frames=5, size=11, seed=3)
    assert training.inputs.shape == (5, 60, 11, 11)
    assert validation.inputs.shape == (5, 30, 11, 11)
    speeds = set()
    for video, label in zip(training.inputs.unbind(1), training.labels, strict=True):
        words = DIRECTIONS[label].split()
        rows = sum(steps[w] for w in words if w in ("up", "down"))
        columns = sum(steps[w] for w in words if w in ("left", "right"))
        assert (rows, columns) != (0, 0)
        fits = [
            speed
            for speed in (1, 2)
            if all(
                torch.equal(video[t].roll((speed * rows, speed * columns), (0, 1)), video[t + 1])
                for t in range(4)
            )
        ]
        assert len(fits) == 1
        speeds.update(fits)
    assert speeds == {1, 2}
    assert set(training.labels.tolist()) == set(range(8))


def test_videos_show_digits_that_training_lacks() -> None:
    def shapes(part: torch.Tensor) -> set[tuple[float, ...]]:
        return {tuple(sorted(frame.flatten().tolist())) for frame in part[0]}

    training, validation = moving_digits(300, 100, frames=2, size=8)
    still = [digits()[i].inputs.transpose(0, 1).flatten(1) for i in range(2)]
    known = [{tuple(sorted(picture.tolist())) for picture in part} for part in still]
    assert shapes(training.inputs) <= known[0]
    assert shapes(validation.inputs) <= known[1]
    assert not known[0] & known[1]


def test_no_single_frame_tells_the_direction() -> None:
    training, _ = moving_digits(4000, 1, frames=3, size=12)
    mass = training.inputs.sum((2, 3), keepdim=True)
    angle = torch.arange(12) * (2 * math.pi / 12)
    for t in range(3):
        frame = training.inputs[t] / mass[t]
        for direction in range(8):
            of_it = frame[training.labels == direction]
            for axis in (1, 2):
                along = of_it.sum(3 - axis)
                mean = torch.stack([(along * angle.cos()).sum(1), (along * angle.sin()).sum(1)])
                # About 500 directions on the circle: their mean is shorter than 3 deviations.
                assert mean.mean(1).norm() < 3 / 500**0.5


def test_the_seed_decides_the_videos() -> None:
    first, again, other = (moving_digits(20, 5, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    for name, least in (("training", 1), ("validation", 1), ("frames", 2), ("size", 8)):
        with pytest.raises(ValueError, match=f"{name}: wanted at least {least}, got {least - 1}"):
            moving_digits(**{name: least - 1})


# Series


def test_series_hold_the_published_values() -> None:
    found = {name: series(name) for name in SERIES}
    rows = {name: s.table.rows for name, s in found.items()}
    assert rows == {"sunspots": 309, "co2": 2284, "elnino": 732, "macrodata": 203, "prices": 1047}
    for name, s in found.items():
        values = s.table.numbers(s.column)
        assert values.isfinite().all(), name
        assert len(values) > 2 * s.season
    sunspots = found["sunspots"].table
    assert sunspots.text("year")[::308] == ["1700", "2008"]
    assert sunspots.numbers("sunspots")[[0, 57, 257]].tolist() == [5.0, 32.4, 190.2]
    elnino = found["elnino"].table
    assert [elnino.text(c)[13] for c in ("year", "month")] == ["1951", "2"]
    assert elnino.numbers("temperature")[[0, 11, 12]].tolist() == [23.11, 21.80, 24.19]
    assert found["macrodata"].table.numbers("unemp")[[0, -2]].tolist() == [5.8, 9.2]
    prices = found["prices"].table
    assert prices.text("date")[::1046] == ["2004-08-19", "2008-10-14"]
    assert prices.numbers("adj_close")[[0, -1]].tolist() == [100.34, 362.71]


def test_gaps_are_filled_along_a_straight_line_and_marked() -> None:
    from statsmodels.datasets import co2

    published = co2.load_pandas().data["co2"].to_numpy()
    table = series("co2").table
    values, filled = table.numbers("co2").numpy(), table.numbers("filled").numpy()
    assert filled.sum() == np.isnan(published).sum() == 59
    assert (values[filled == 0] == published[filled == 0]).all()
    single = [i for i in range(1, 2283) if filled[i] and not filled[i - 1] and not filled[i + 1]]
    assert single
    for i in single:
        assert values[i] == pytest.approx((values[i - 1] + values[i + 1]) / 2)
    assert table.text("date")[:2] == ["1958-03-29", "1958-04-05"]


def test_an_unknown_series_is_told() -> None:
    with pytest.raises(DataError, match=r"series: wanted one of sunspots, .*prices, got 'gold'"):
        series("gold")


# Words


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
        said = re.fullmatch(r"(?:the (\S+) of (\S+)|(\S+) the (\S+)), (.+)", words)
        assert said
        forms.add(said[1] is None)
        day, month = (said[1], said[2]) if said[1] else (said[4], said[3])
        place = [ordinal(n) for n in range(1, 32)].index(day) + 1
        year = said[5].replace(" oh ", " ")
        number = value_of(year)
        if "hundred" not in year and "thousand" not in year:
            century, rest = year.split(" ")
            number = 100 * value_of(century) + value_of(rest)
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


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="number: wanted 0 to 999999, got 1000000"):
        number_in_words(10**6)
    with pytest.raises(ValueError, match="number: wanted 1 to 99, got 0"):
        ordinal(0)
    with pytest.raises(ValueError, match="year: wanted 1100 to 2099, got 1099"):
        year_in_words(1099)
    with pytest.raises(ValueError, match="training, validation: wanted at most 365243 pairs"):
        dates(365_243, 1)
    with pytest.raises(ValueError, match="wanted 1 or more, got 0, 1"):
        numbers(0, 1)
    with pytest.raises(ValueError, match="to: wanted 'figures' or 'words', got 'digits'"):
        numbers(to="digits")  # type: ignore[arg-type]


def test_no_library_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, unrolled.tasks.datasets, unrolled.tasks.codecs.subword;"
        "import unrolled.tasks.data.tables;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "pandas", "pyarrow", "sklearn", "statsmodels", "tokenizers"}
