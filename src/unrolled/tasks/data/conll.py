"""Labelled tokens: CoNLL-style files read and written.

A data set is a list of sentences. What labels mean is left to `entities`, turning tokens and labels
into numbers to `words`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unrolled.io import write
from unrolled.tasks.data.source import DataError, Source, read_lines

__all__ = [
    "Row",
    "Sentence",
    "counts_tokens",
    "parse_sentences",
    "read_conll",
    "split_on_blanks",
    "split_sentences",
    "write_conll",
]

_DOCUMENT = "-DOCSTART-"
_COMMENT = "# "
# Unicode's other blanks, such as U+00A0, occur inside tokens.
_BLANKS = re.compile(r"[ \t]+")
_CONLL_U_COLUMNS = 10
_CONLL_U_FORM = 1
# Of CoNLL-U, beside the words: a range of words that are written as one, and an empty node.
_NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")


class Sentence(NamedTuple):
    """Tokens and a label for each; `lines` is where each stands in the file (empty: no file)."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...] = ()


class Row(NamedTuple):
    """A line's number in its file, from 1, and its columns."""

    line: int
    fields: list[str]


def read_conll(path: Source, label: int | None = -1, token: int | None = None) -> list[Sentence]:
    """Read sentences from a file with a token a line and blank lines between sentences.

    A line with a tab is cut at its tabs, any other at its blanks and tabs; every line of a file has
    the same number of columns. A line whose token is `-DOCSTART-` ends a sentence and is left out.
    A line is a comment where it begins with "# ", or is "#" alone, and no sentence has begun: so
    CoNLL-U's comments are passed over, and `#` inside a sentence, or before a tab, is a token.

    Where the first column counts the words of each sentence, as in CoNLL-U, the lines of ranges
    (`1-2`) and of empty nodes (`1.1`) are left out: they are no words.

    Args:
        label: the column of the labels, counted from 0; negative from the end; None reads none.
        token: the column of the tokens; None is the first, in CoNLL-U (ten columns, the first of
            which counts) the second.

    Raises:
        DataError: the file cannot be read, holds no sentence, has no such column or an empty
            field in it, its lines differ in the number of columns, or its tokens only count the
            words; the message names the line.
    """
    return parse_sentences(path, split_sentences(read_lines(path)), label, token)


def split_on_blanks(line: str) -> list[str]:
    """What stands between the blanks and tabs of a line."""
    return [field for field in _BLANKS.split(line) if field]


def split_sentences(lines: Sequence[str]) -> list[list[Row]]:
    """The rows of each sentence, of which some may differ in the number of columns."""
    blocks: list[list[Row]] = [[]]
    for number, line in enumerate(lines, 1):
        if not blocks[-1] and (line.startswith(_COMMENT) or line == "#"):
            continue
        fields = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))
        if line.strip(" \t") and fields[0] != _DOCUMENT:
            blocks[-1].append(Row(number, fields))
        elif blocks[-1]:
            blocks.append([])
    return blocks if blocks[-1] else blocks[:-1]


def parse_sentences(
    path: Source, blocks: Sequence[Sequence[Row]], label: int | None, token: int | None
) -> list[Sentence]:
    """The sentences that the rows of a file are; `path` is for messages, the rest as of
    `read_conll`."""
    if not blocks:
        wanted = "sentences" if label is None else "a token and its label on each line"
        raise DataError(f"{path}: wanted {wanted}, found no sentence")
    width = _width(path, blocks)
    if counts_tokens(blocks, 0):
        blocks = [
            [row for row in block if not _NO_WORD.fullmatch(row.fields[0])] for block in blocks
        ]
        if width == _CONLL_U_COLUMNS:
            token = _CONLL_U_FORM if token is None else token
            _check_filled(path, blocks, label)
    token = token or 0
    first = f"{path}, line {blocks[0][0].line}"
    _check_columns(first, width, token, label)
    if counts_tokens(blocks, token):
        raise DataError(
            f"{first}: wanted tokens in column {token}, got numbers that count them; the "
            f"column of the words is named in training: --token-column {(token + 1) % width}"
        )
    sentences = []
    for block in blocks:
        places = [f"{path}, line {row.line}" for row in block]
        columns = [
            tuple(
                _field(place, row.fields, column, name)
                for place, row in zip(places, block, strict=True)
            )
            for column, name in ((token, "token"), (label, "label"))
            if column is not None
        ]
        tokens, labels = columns if len(columns) == 2 else (columns[0], ())
        sentences.append(Sentence(tokens, labels, tuple(row.line for row in block)))
    return sentences


def _width(path: Source, blocks: Sequence[Sequence[Row]]) -> int:
    """The number of columns, the same on every line."""
    first = blocks[0][0]
    for row in (row for block in blocks for row in block):
        if len(row.fields) != len(first.fields):
            raise DataError(
                f"{path}, line {row.line}: wanted {_columns(len(first.fields))} as on line "
                f"{first.line}, got {len(row.fields)}; put a blank line between sentences and one "
                "sign between columns"
            )
    return len(first.fields)


def _check_filled(path: Source, blocks: Sequence[Sequence[Row]], label: int | None) -> None:
    """Refuse a column of CoNLL-U that is empty throughout, as its last, the default, mostly is."""
    width = _CONLL_U_COLUMNS
    if label is None or not -width <= label < width:
        return
    if all(row.fields[label] == "_" for block in blocks for row in block):
        raise DataError(
            f"{path}: wanted labels in column {label}, got '_' on every line; --column 3 has the "
            "parts of speech of CoNLL-U"
        )


def counts_tokens(blocks: Sequence[Sequence[Row]], column: int) -> bool:
    """Whether a column, one of several, counts the words of every sentence from 0 or 1."""
    width = len(blocks[0][0].fields)
    longest = 0
    for block in blocks:
        fields = [row.fields[column] for row in block]
        counts = [field for field in fields if not _NO_WORD.fullmatch(field)]
        start = int(counts[:1] == ["1"])
        if not counts or counts != [str(k) for k in range(start, start + len(counts))]:
            return False
        longest = max(longest, len(counts))
    # A file of single words may hold the number 1.
    return width > 1 and (longest > 1 or width == _CONLL_U_COLUMNS)


def write_conll(
    path: str | os.PathLike[str],
    sentences: Iterable[Sentence],
    predicted: Iterable[Sequence[str]] | None = None,
) -> None:
    """Write sentences, a token a line: the token, its label if it has one, the predicted label.

    Columns are separated by tabs; with labels and predictions the file is what the script
    conlleval reads with the option `-d "\\t"`. Comments and document marks are not kept.

    Raises:
        DataError: a token or label is empty or holds a tab or a line end.
        ValueError: the predictions do not fit the sentences.
    """
    many = list(sentences)
    guesses = None if predicted is None else list(predicted)
    if guesses is not None and len(guesses) != len(many):
        raise ValueError(f"predicted: wanted labels of {len(many)} sentences, got {len(guesses)}")
    blocks = []
    for number, sentence in enumerate(many, 1):
        columns: list[Sequence[str]] = [sentence.tokens]
        if sentence.labels:
            columns.append(sentence.labels)
        if guesses is not None:
            columns.append(guesses[number - 1])
        for column in columns:
            _check_column(path, number, column, len(sentence.tokens))
        blocks.append("".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)))
    write(path, "\n".join(blocks).encode())


def _check_column(
    path: str | os.PathLike[str], number: int, column: Sequence[str], length: int
) -> None:
    if len(column) != length:
        raise ValueError(
            f"predicted: wanted {length} labels for sentence {number}, got {len(column)}"
        )
    for field in column:
        if not field or set("\t\n\r") & set(field):
            raise DataError(
                f"{path}: wanted tokens and labels without tabs and line ends, got {field!r} in "
                f"sentence {number}"
            )


def _check_columns(where: str, columns: int, token: int, label: int | None) -> None:
    for name, column in (("tokens", token), ("labels", label)):
        if column is not None and not -columns <= column < columns:
            raise DataError(
                f"{where}: wanted column {column} for the {name} (the first is 0), "
                f"got {_columns(columns)}"
            )
    if label is not None and token % columns == label % columns:
        raise DataError(
            f"{where}: wanted a token and its label, got {_columns(columns)} and column "
            f"{token % columns} for both"
        )


def _field(where: str, fields: Sequence[str], column: int, name: str) -> str:
    value = fields[column].strip(" ")
    if not value:
        raise DataError(f"{where}: wanted a {name} in column {column}, got nothing")
    return value


def _columns(count: int) -> str:
    return f"{count} column{'' if count == 1 else 's'}"
