"""Snippets of programming languages: balanced, split by file."""

import re
from pathlib import Path

import pytest

from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import (
    _code_snippets as code_snippets,
)
from unrolled.tasks.datasets import (
    languages,
)

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
    actual = languages(60, 12, length=80, folders=[tmp_path])
    assert actual.languages == ("C and C++", "Python")
    for part, expected in ((actual.training, 60), (actual.validation, 12)):
        counts = [[name for _, name in part].count(name) for name in actual.languages]
        assert counts == [expected, expected]
        assert len({text for text, _ in part}) == len(part)
    for text, name in actual.training + actual.validation:
        assert text.startswith("snake" if name == "Python" else "ocean")
        assert 40 <= len(text) <= 80

    def files(part: list[tuple[str, str]]) -> set[str]:
        return {f"{name} {re.findall(r' ([0-9]+) [0-9]+', text)[0]}" for text, name in part}

    assert not files(actual.training) & files(actual.validation)
    assert len(files(actual.training)) >= 60 * 2 / 8
    assert languages(60, 12, length=80, folders=[tmp_path]) == actual
    message = (
        "2 languages (C and C++, Python), of each 60 snippets for training and 12 for validation"
    )
    assert str(actual) == message


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
    actual = languages(150, 25, length=80, folders=[tmp_path])
    # Of equal texts the first language keeps them, the other is left without.
    assert actual.languages == ("C and C++", "CSS")
    with pytest.raises(
        DataError,
        match=r"languages: at least two .*CMake \d \+ \d, .* JSON 0 \+ 0, JavaScript 0 \+ 0",
    ):
        languages(4000, 5, folders=[tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got no files; use fewer"):
        languages(1, 1, folders=[tmp_path / "empty"])


def test_long_lines_are_cut() -> None:
    assert list(code_snippets._split("ab" * 25 + "\n", 20)) == ["ab" * 10, "ab" * 10]
    assert list(code_snippets._split("one two\nthree four\nfive six\n", 12)) == [
        "one two\nthre",
        "five six",
    ]


@pytest.mark.slow
def test_this_machine_has_languages() -> None:
    actual = languages(200, 50)
    assert len(actual.languages) >= 4
    assert {"C and C++", "Python"} <= set(actual.languages)
    assert len(actual.training) == 200 * len(actual.languages)
