"""Labelled tokens: reads and writes CoNLL-style files.

A data set is a list of sentences. The meaning of labels is in `_entities`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unrolled.io import write
from unrolled.tasks.data._source import DataError, Source, read_lines

_DOCUMENT = "-DOCSTART-"
_COMMENT = "# "
# Unicode's other blanks, such as U+00A0, occur inside tokens.
_BLANKS = re.compile(r"[ \t]+")
_CONLL_U_COLUMNS = 10
_CONLL_U_FORM = 1
# Lines of CoNLL-U that are not words: a range of words that are written as one, an empty node.
_NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")


class Sentence(NamedTuple):
    """Tokens and a label for each; `lines` are their lines in the file, if there is one."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...] = ()


class Row(NamedTuple):
    """A line's number in its file, from 1, and its columns."""

    line: int
    fields: list[str]


def read_conll(path: Source, label: int | None = -1, token: int | None = None) -> list[Sentence]:
    """Read sentences from a file with a token on each line and blank lines between sentences.

    A line with a tab is split at tabs, any other at blanks; every line of a file has the same
    number of columns. A line whose token is `-DOCSTART-` ends a sentence and is skipped. A line is
    a comment if it begins with "# ", or is "#" alone, and no sentence has begun: so CoNLL-U's
    comments are skipped, and `#` inside a sentence, or before a tab, is a token.

    If the first column counts the words of each sentence, as in CoNLL-U, the lines of ranges
    (`1-2`) and of empty nodes (`1.1`) are skipped: they are not words.

    Args:
        label: the column of the labels, counted from 0; negative from the end; None reads none.
        token: the column of the tokens; None is the first, in CoNLL-U (ten columns, the first of
            which counts) the second.

    Raises:
        DataError: the file cannot be read, has no sentence, lacks the column or has an empty field
            in it, its lines differ in the number of columns, or its tokens only count the words;
            the message names the line.
    """
    return parse_sentences(path, split_sentences(read_lines(path)), label, token)


def split_on_blanks(line: str) -> list[str]:
    """The fields between the blanks and tabs of a line."""
    return [field for field in _BLANKS.split(line) if field]


def split_sentences(lines: Sequence[str]) -> list[list[Row]]:
    """The rows of each sentence; they may differ in the number of columns."""
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
    """The sentences of a file, given its rows; `path` is for messages, the others are those of
    `read_conll`."""
    if not blocks:
        content = "sentences" if label is None else "a token and its label on each line"
        raise DataError(f"{path}: must have {content}, got no sentence")
    width = _width(path, blocks)
    if counts_tokens(blocks, 0):
        blocks = [
            [row for row in block if not _NO_WORD.fullmatch(row.fields[0])] for block in blocks
        ]
        if width == _CONLL_U_COLUMNS:
            token = _CONLL_U_FORM if token is None else token
            _check_filled(path, blocks, label)
    token = token or 0
    first_line = f"{path}, line {blocks[0][0].line}"
    _check_columns(first_line, width, token, label)
    if counts_tokens(blocks, token):
        raise DataError(
            f"{first_line}: column {token} must have tokens, got numbers that count them; name "
            f"the column of the words when training: --token-column {(token + 1) % width}"
        )
    sentences = []
    for block in blocks:
        locations = [f"{path}, line {row.line}" for row in block]
        columns = [
            tuple(
                _field(location, row.fields, column, name)
                for location, row in zip(locations, block, strict=True)
            )
            for column, name in ((token, "token"), (label, "label"))
            if column is not None
        ]
        tokens, labels = columns if len(columns) == 2 else (columns[0], ())
        sentences.append(Sentence(tokens, labels, tuple(row.line for row in block)))
    return sentences


def _width(path: Source, blocks: Sequence[Sequence[Row]]) -> int:
    """The number of columns, the same on every line."""
    line, fields = blocks[0][0]
    for row in (row for block in blocks for row in block):
        if len(row.fields) != len(fields):
            raise DataError(
                f"{path}, line {row.line}: must have {_columns(len(fields))} as on line {line}, "
                f"got {len(row.fields)}; put a blank line between sentences and one sign between "
                "columns"
            )
    return len(fields)


def _check_filled(path: Source, blocks: Sequence[Sequence[Row]], label: int | None) -> None:
    """Refuse a column of CoNLL-U that is empty on all lines, as the default, the last, often is."""
    width = _CONLL_U_COLUMNS
    if label is None or not -width <= label < width:
        return
    if all(row.fields[label] == "_" for block in blocks for row in block):
        raise DataError(
            f"{path}: column {label} must have labels, got '_' on every line; --column 3 has the "
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
    # A file of single words may have the number 1 as a word.
    return width > 1 and (longest > 1 or width == _CONLL_U_COLUMNS)


def write_conll(
    path: str | os.PathLike[str],
    sentences: Iterable[Sentence],
    predicted: Iterable[Sequence[str]] | None = None,
) -> None:
    """Write sentences, a token on each line: the token, its label if any, the predicted label.

    Columns are separated by tabs; with labels and predictions the script conlleval reads the file
    with the option `-d "\\t"`. Comments and document marks are not kept.

    Raises:
        DataError: a token or label is empty or has a tab or a line end.
        ValueError: the predictions do not match the sentences.
    """
    sentences = list(sentences)
    predictions = None if predicted is None else list(predicted)
    if predictions is not None and len(predictions) != len(sentences):
        raise ValueError(
            f"write_conll: predicted must have labels for {len(sentences)} sentences, got "
            f"{len(predictions)}"
        )
    blocks = []
    for number, sentence in enumerate(sentences, 1):
        columns: list[Sequence[str]] = [sentence.tokens]
        if sentence.labels:
            columns.append(sentence.labels)
        if predictions is not None:
            columns.append(predictions[number - 1])
        for column in columns:
            _check_column(path, number, column, len(sentence.tokens))
        blocks.append("".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)))
    write(path, "\n".join(blocks).encode())


def _check_column(
    path: str | os.PathLike[str], number: int, column: Sequence[str], length: int
) -> None:
    if len(column) != length:
        raise ValueError(
            f"write_conll: predicted must have {length} labels for sentence {number}, "
            f"got {len(column)}"
        )
    for field in column:
        if not field or set("\t\n\r") & set(field):
            raise DataError(
                f"{path}: tokens and labels must not be empty or have tabs or line ends, got "
                f"{field!r} in sentence {number}"
            )


def _check_columns(location: str, columns: int, token: int, label: int | None) -> None:
    for name, column in (("tokens", token), ("labels", label)):
        if column is not None and not -columns <= column < columns:
            raise DataError(
                f"{location}: must have column {column} for the {name} (the first is 0), "
                f"got {_columns(columns)}"
            )
    if label is not None and token % columns == label % columns:
        raise DataError(
            f"{location}: must have a token and its label, got {_columns(columns)} and column "
            f"{token % columns} for both"
        )


def _field(location: str, fields: Sequence[str], column: int, name: str) -> str:
    value = fields[column].strip(" ")
    if not value:
        raise DataError(f"{location}: must have a {name} in column {column}, got nothing")
    return value


def _columns(count: int) -> str:
    return f"{count} column{'' if count == 1 else 's'}"
