"""Sequence labelling without a download: lines of Python, with the token of each character.

The labels are those of Python's own tokenizer.
"""

import hashlib
import io
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from unrolled.tasks._entities import EntitySpan, labels_from_spans
from unrolled.tasks.data._conll import Sentence
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._text_files import standard_library

_MAX_LENGTH = 120
_MAX_LINES_PER_FILE = 250
_VALIDATION_PERIOD = 10
"""One in this many files is for validation."""
_TOKEN_TYPES = {
    tokenize.COMMENT: "COMMENT",
    tokenize.NUMBER: "NUMBER",
    tokenize.OP: "OP",
    tokenize.STRING: "STRING",
}
_LAYOUT = {
    tokenize.ENCODING,
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def python_tags(
    training: int = 10_000, validation: int = 1_000
) -> tuple[list[Sentence], list[Sentence]]:
    """Lines of Python as characters, each labelled with the Python token that it is part of.

    Source: the standard library of the running interpreter, some 1800 files and 850,000 lines,
    labelled by its module `tokenize`. A character is a token of the sentence; labels are IOB2 with
    the types COMMENT, KEYWORD, NAME, NUMBER, OP and STRING, and O between tokens. To know whether
    `in` is a keyword or the beginning of a name such as `int`, and where a string or comment began,
    a model must read far in both directions.

    Files come in a shuffled order, with at most 250 lines of each; one file in ten is for
    validation. The result leaves out blank lines, lines of more than 120 characters, lines within a
    string of several lines (the line does not show whether it is code or text), and duplicates up
    to indentation: no line of validation is in training.

    Args:
        training: lines for training.
        validation: lines for validation.

    Raises:
        DataError: the library is not a folder of sources, or has fewer lines.
    """
    sizes = {True: validation, False: training}
    lines: dict[bool, list[Sentence]] = {True: [], False: []}
    used: set[str] = set()
    for number, file in enumerate(sorted(standard_library(), key=_shuffling_key)):
        for_validation = number % _VALIDATION_PERIOD == 0
        if len(lines[for_validation]) >= sizes[for_validation]:
            if all(len(lines[part]) >= sizes[part] for part in sizes):
                break
            continue
        for sentence in _sample(tag_lines(file.read_bytes())):
            line = "".join(sentence.tokens).strip()
            if line not in used:
                used.add(line)
                lines[for_validation].append(sentence)
    for for_validation, name in ((False, "training"), (True, "validation")):
        if len(lines[for_validation]) < sizes[for_validation]:
            raise DataError(
                f"python_tags: {name} must be at most {len(lines[for_validation])}, the usable "
                f"lines of the standard library, got {sizes[for_validation]}"
            )
    return lines[False][:training], lines[True][:validation]


def tag_lines(source: bytes) -> list[Sentence]:
    """The lines of a Python source that `python_tags` can use; none if it cannot be read."""
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
        text = source.decode(tokens[0].string)
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return []
    spans: dict[int, list[EntitySpan]] = defaultdict(list)
    unusable: set[int] = set()
    for token_type, (row, start), (end_row, end) in _typed_tokens(tokens):
        if token_type and row == end_row:
            spans[row].append(EntitySpan(token_type, start, end))
        else:
            unusable.update(range(row, end_row + 1))
    sentences = []
    for row, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if row not in unusable and spans[row] and len(line) <= _MAX_LENGTH:
            labels = labels_from_spans(spans[row], len(line))
            sentences.append(Sentence(tuple(line), tuple(labels)))
    return sentences


_Position = tuple[int, int]
"""Row and column of a source."""


def _typed_tokens(
    tokens: Iterable[tokenize.TokenInfo],
) -> Iterator[tuple[str, _Position, _Position]]:
    """Type, begin and end of each token; the type is empty for what Python could not read.

    From Python 3.12 on a formatted string is many tokens; it is one string here, as in 3.11.
    """
    depth, begin = 0, (0, 0)
    for token in tokens:
        name = tokenize.tok_name[token.type]
        if name.endswith("STRING_START"):
            begin = begin if depth else token.start
            depth += 1
        elif name.endswith("STRING_END"):
            depth -= 1
            if not depth:
                yield "STRING", begin, token.end
        elif depth or token.type in _LAYOUT:
            continue
        elif token.type == tokenize.NAME:
            token_type = "KEYWORD" if keyword.iskeyword(token.string) else "NAME"
            yield token_type, token.start, token.end
        else:
            yield _TOKEN_TYPES.get(token.type, ""), token.start, token.end


def _shuffling_key(file: Path) -> str:
    """A sorting key that shuffles the folders, the same wherever Python is installed."""
    return hashlib.sha256("/".join(file.parts[-3:]).encode()).hexdigest()


def _sample(sentences: list[Sentence]) -> list[Sentence]:
    """At most `_MAX_LINES_PER_FILE` sentences, spread over a file."""
    step = max(1, -(-len(sentences) // _MAX_LINES_PER_FILE))
    return sentences[::step]
