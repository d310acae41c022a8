"""Sequence labelling without a download: lines of Python, what each character belongs to.

The labels come from Python's own tokenizer.
"""

import hashlib
import io
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from unrolled.tasks.data.conll import Sentence
from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.text_files import standard_library
from unrolled.tasks.entities import EntitySpan, labels_from_spans

__all__ = ["python_tags", "tag_lines"]

_LONGEST = 120
_LINES_OF_A_FILE = 250
_VALIDATION = 10  # one file in so many
_KINDS = {
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
    """Lines of Python as characters, each labelled with the token that it belongs to.

    Source: the standard library of the running interpreter, some 1800 files and 850,000 lines,
    labelled by its module `tokenize`. A token is one character; labels are IOB2, the types COMMENT,
    KEYWORD, NAME, NUMBER, OP and STRING, and O between tokens. Where `in` ends as a keyword and
    `int` goes on as a name, where a string or comment began: that takes reading both ways, and far.

    Files are taken in an order that mixes the library, at most 250 lines of each; one file in ten
    is for validation. Left out are blank lines, lines of more than 120 characters, lines within a
    string of several lines (nothing on the line tells code from text there), and lines that were
    seen before, indentation aside: no line of validation is in training.

    Args:
        training: lines to train on.
        validation: lines to measure on.

    Raises:
        DataError: the library is no folder of sources, or has fewer lines.
    """
    wanted = {True: validation, False: training}
    found: dict[bool, list[Sentence]] = {True: [], False: []}
    seen: set[str] = set()
    for number, file in enumerate(sorted(standard_library(), key=_shuffled)):
        side = number % _VALIDATION == 0
        if len(found[side]) >= wanted[side]:
            if all(len(found[s]) >= wanted[s] for s in wanted):
                break
            continue
        for sentence in _some(tag_lines(file.read_bytes())):
            line = "".join(sentence.tokens).strip()
            if line not in seen:
                seen.add(line)
                found[side].append(sentence)
    for side, name in ((False, "training"), (True, "validation")):
        if len(found[side]) < wanted[side]:
            raise DataError(
                f"{name}: wanted {wanted[side]} lines of the standard library, it has "
                f"{len(found[side])}; ask for fewer"
            )
    return found[False][:training], found[True][:validation]


def tag_lines(source: bytes) -> list[Sentence]:
    """The lines of a Python source that `python_tags` can use; none where it cannot be read."""
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
        text = source.decode(tokens[0].string)
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return []
    spans: dict[int, list[EntitySpan]] = defaultdict(list)
    torn: set[int] = set()
    for kind, (row, start), (last, end) in _entities(tokens):
        if kind and row == last:
            spans[row].append(EntitySpan(kind, start, end))
        else:
            torn.update(range(row, last + 1))
    sentences = []
    for row, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if row not in torn and spans[row] and len(line) <= _LONGEST:
            labels = labels_from_spans(spans[row], len(line))
            sentences.append(Sentence(tuple(line), tuple(labels)))
    return sentences


_Place = tuple[int, int]


def _entities(tokens: Iterable[tokenize.TokenInfo]) -> Iterator[tuple[str, _Place, _Place]]:
    """Type, beginning and end of each token, no type for what Python could not read.

    From Python 3.12 on a formatted string is many tokens; it is one string here, as it was before.
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
            kind = "KEYWORD" if keyword.iskeyword(token.string) else "NAME"
            yield kind, token.start, token.end
        else:
            yield _KINDS.get(token.type, ""), token.start, token.end


def _shuffled(file: Path) -> str:
    """A key that mixes the folders, the same wherever Python is installed."""
    return hashlib.sha256("/".join(file.parts[-3:]).encode()).hexdigest()


def _some(sentences: list[Sentence]) -> list[Sentence]:
    """At most so many of a file, spread over it."""
    step = max(1, -(-len(sentences) // _LINES_OF_A_FILE))
    return sentences[::step]
