"""Files and standard input as text: line ends, byte order marks, what is no text."""

import io
from pathlib import Path

import pytest

from unrolled.tasks.data._source import (
    DataError,
    Source,
    StandardInput,
    file_suffix,
    read_bytes,
    read_lines,
    read_utf8,
)


@pytest.fixture(params=["file", "standard input"])
def source_of(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> object:
    """Makes a source of bytes: a file, or standard input under an ASCII locale."""

    def make(data: bytes) -> Source:
        if request.param == "file":
            (tmp_path / "file").write_bytes(data)
            return tmp_path / "file"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
        return StandardInput()

    return make


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\rc\n\n", ["a", "b", "c", ""]),
        (b"\n\n", ["", ""]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        ("a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\n".encode(),
         ["a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i"]),
        ("e\u0301\u00a0\t \n".encode(), ["e\u0301\u00a0\t "]),
        (b"x" * 200_000, ["x" * 200_000]),
    ],
)  # fmt: skip
def test_lines_end_at_line_ends_only(source_of: object, data: bytes, lines: list[str]) -> None:
    source = source_of(data)  # type: ignore[operator]
    assert read_lines(source) == lines
    if isinstance(source, StandardInput):
        assert read_bytes(source) == data  # a second time


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\r\nb\rc\xe9\n", "line 3: must be UTF-8, got the byte 0xe9; save the file as UTF-8"),
        (b"\xef\xbb\xbfa\n\xff", "line 2: must be UTF-8, got the byte 0xff"),
        ("a\nb".encode("utf-16-le"), "line 1: must be UTF-8, got a zero byte, as in UTF-16"),
        (b"a\n\n\0", "line 3: must be UTF-8, got a zero byte"),
    ],
)
def test_bytes_that_are_not_text_raise_with_their_line(
    source_of: object, data: bytes, message: str
) -> None:
    source = source_of(data)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        read_utf8(source)
    assert str(caught.value).startswith(f"{source}, {message}")


def test_the_names_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (str(StandardInput()), file_suffix(StandardInput())) == ("standard input", "")
    assert file_suffix("a/b.CSV") == ".csv"
    with pytest.raises(DataError, match="absent: cannot be read"):
        read_bytes(tmp_path / "absent")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input: cannot be read"):
        read_bytes(StandardInput())
