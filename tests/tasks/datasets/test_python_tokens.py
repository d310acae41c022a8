"""Lines of Python with the labels of their tokens."""

import io
import tokenize

import pytest

from unrolled.tasks import standard_library
from unrolled.tasks._entities import find_spans, has_entities
from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import (
    _python_tokens as python_tokens,
)
from unrolled.tasks.datasets import (
    python_tags,
)
from unrolled.tasks.datasets._python_tokens import tag_lines


def pieces_of(source: str) -> list[list[tuple[str, str]]]:
    """Text and type of each entity, line by line."""
    return [
        [(s.type, "".join(line.tokens[s.start : s.end])) for s in find_spans(line.labels)]
        for line in tag_lines(source.encode())
    ]


def test_lines_are_labelled_by_hand() -> None:
    source = "if inner == 'a b':  # no\n\treturn 0x1F+_x\n"
    types = ["KEYWORD", "NAME", "OP", "STRING", "OP", "COMMENT"]
    texts = ["if", "inner", "==", "'a b'", ":", "# no"]
    second = [("KEYWORD", "return"), ("NUMBER", "0x1F"), ("OP", "+"), ("NAME", "_x")]
    assert pieces_of(source) == [list(zip(types, texts, strict=True)), second]
    line = tag_lines(b"a = 12\n")[0]
    assert line.tokens == tuple("a = 12")
    assert line.labels == ("B-NAME", "O", "B-OP", "O", "B-NUMBER", "I-NUMBER")


def test_lines_without_a_certain_label_are_left_out() -> None:
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
    types = {span.type for s in validation for span in find_spans(s.labels)}
    assert types == {"COMMENT", "KEYWORD", "NAME", "NUMBER", "OP", "STRING"}


def test_too_few_lines_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file for file in standard_library() if file.name in ("heapq.py", "bisect.py")]
    monkeypatch.setattr(python_tokens, "standard_library", lambda: files)
    with pytest.raises(DataError, match=r"training must be at most \d+, .*got 9999"):
        python_tags(9999, 5)
    with pytest.raises(DataError, match="validation must be at most"):
        python_tags(5, 9999)


def test_the_labels_are_those_of_the_tokenizer() -> None:
    file = next(file for file in standard_library() if file.name == "heapq.py")
    expected = set()
    for token in tokenize.tokenize(io.BytesIO(file.read_bytes()).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT, tokenize.NUMBER):
            expected.add((token.line.rstrip("\n"), token.start[1], token.string))
    actual = 0
    for sentence in tag_lines(file.read_bytes()):
        line = "".join(sentence.tokens)
        for span in find_spans(sentence.labels):
            if span.type not in ("OP", "STRING"):
                actual += 1
                assert (line, span.start, line[span.start : span.end]) in expected
    assert actual > 500
