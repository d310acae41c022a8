"""Labelled tokens: CoNLL-style files read and written, entities in labels, and their scores.

A data set is a list of sentences. Turning tokens and labels into numbers is left to `words`.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unrolled.io import write
from unrolled.tasks.reading import DataError, Source, read_utf8

__all__ = [
    "EntityScore",
    "EntityScores",
    "Sentence",
    "Span",
    "entity_scores",
    "has_entities",
    "labels_of",
    "read_conll",
    "spans",
    "write_conll",
]

_DOCUMENT = "-DOCSTART-"
_COMMENT = "# "
# Unicode's other blanks, such as U+00A0, occur inside tokens.
_BLANKS = re.compile(r"[ \t]+")


class Sentence(NamedTuple):
    """Tokens and a label for each; `lines` is where each stands in the file (empty: no file)."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...] = ()


def read_conll(path: Source, label: int | None = -1, token: int = 0) -> list[Sentence]:
    """Read sentences from a file with a token a line and blank lines between sentences.

    A line with a tab is cut at its tabs, any other at its blanks and tabs; every line of a file has
    the same number of columns. A line whose token is `-DOCSTART-` ends a sentence and is left out.
    A line is a comment where it begins with "# ", or is "#" alone, and no sentence has begun: so
    CoNLL-U's comments are passed over, and `#` inside a sentence, or before a tab, is a token.

    Args:
        label: the column of the labels, counted from 0; negative from the end; None reads none.
        token: the column of the tokens.

    Raises:
        DataError: the file cannot be read, holds no sentence, has no such column or an empty
            field in it, or its lines differ in the number of columns; the message names the line.
    """
    sentences: list[Sentence] = []
    rows: list[tuple[int, str, str]] = []
    first: tuple[int, int] | None = None  # line and number of columns
    for number, fields in (*_lines(path), (0, [])):
        where = f"{path}, line {number}"
        if not fields:
            if rows:
                lines, tokens, labels = zip(*rows, strict=True)
                sentences.append(Sentence(tokens, () if label is None else labels, lines))
                rows.clear()
            continue
        if first is None:
            first = (number, len(fields))
            _check_columns(where, len(fields), token, label)
        if len(fields) != first[1]:
            raise DataError(
                f"{where}: wanted {_columns(first[1])} as on line {first[0]}, got {len(fields)}; "
                "put a blank line between sentences and one sign between columns"
            )
        named = "" if label is None else _field(where, fields, label, "label")
        rows.append((number, _field(where, fields, token, "token"), named))
    if not sentences:
        raise DataError(f"{path}: wanted a token and its label on each line, found no sentence")
    return sentences


def _lines(path: Source) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line; no fields where a sentence ends."""
    inside = False
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not inside and (line.startswith(_COMMENT) or line == "#"):
            continue
        fields = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))
        if not line.strip(" \t") or fields[0] == _DOCUMENT:
            fields = []
        inside = bool(fields)
        yield number, fields


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


# Entities


class Span(NamedTuple):
    """An entity of type `kind` over the tokens from `start` up to, not including, `end`."""

    kind: str
    start: int
    end: int


Scheme = Literal["IOB1", "IOB2", "BILOU"]
_LABEL = re.compile(r"O|[BILUES]-.+", re.DOTALL)
# Equal in meaning: L(ast) is the E(nd), U(nit) the S(ingle) of other schemes.
_ENDS = frozenset("LEUS")
_BEGINS = frozenset("BUS")


def has_entities(labels: Iterable[str]) -> bool:
    """Whether labels mark entities: all are `O` or a B, I, L, U, E or S with `-` and a type, and
    some are not `O`."""
    distinct = set(labels)
    return bool(distinct - {"O"}) and all(_LABEL.fullmatch(label) for label in distinct)


def spans(labels: Sequence[str]) -> list[Span]:
    """The entities that labels mark, in IOB1, IOB2, BILOU or BIOES, in order.

    As in the script conlleval (Tjong Kim Sang and De Meulder 2003) nothing is malformed: an entity
    begins at B, U or S, wherever an entity's label follows O, L, E, U or S, and wherever the type
    changes; it ends before the next beginning, before O, and after L, E, U or S. So one reading
    serves all the schemes.

    Raises:
        DataError: a label is none of these schemes'.
    """
    found: list[Span] = []
    start = 0
    before, kind = "O", ""  # of the last label
    for position, label in enumerate((*labels, "O")):
        if not _LABEL.fullmatch(label):
            raise DataError(
                f"label: wanted O, or one of B, I, L, U, E, S with - and a type, got {label!r}"
            )
        mark, _, now = label.partition("-")
        continues = mark != "O" and mark not in _BEGINS and before not in _ENDS and now == kind
        if before != "O" and not continues:
            found.append(Span(kind, start, position))
        if mark != "O" and (before == "O" or not continues):
            start = position
        before, kind = mark, now
    return found


def labels_of(entities: Iterable[Span], length: int, scheme: Scheme = "IOB2") -> list[str]:
    """The labels of `length` tokens that mark these entities; the inverse of `spans`.

    IOB2 begins every entity with B, IOB1 only those that touch one of the same type before them,
    BILOU marks first, inner, last and single tokens.

    Raises:
        ValueError: the scheme is unknown, or entities overlap, are empty or outside the sentence.
    """
    if scheme not in ("IOB1", "IOB2", "BILOU"):
        raise ValueError(f"scheme: wanted one of IOB1, IOB2, BILOU, got {scheme!r}")
    labels = ["O"] * length
    last = Span("", 0, 0)
    for span in sorted(entities, key=lambda s: s.start):
        kind, start, end = span
        if not last.end <= start < end <= length:
            raise ValueError(f"entities: wanted disjoint spans within {length} tokens, got {span}")
        labels[start:end] = [f"I-{kind}"] * (end - start)
        touches = last.kind == kind and last.end == start
        if scheme != "IOB1" or touches:
            labels[start] = f"B-{kind}"
        if scheme == "BILOU":
            labels[end - 1] = f"L-{kind}" if end - start > 1 else f"U-{kind}"
        last = span
    return labels


@dataclass(frozen=True)
class EntityScore:
    """How many entities are in the data, were found, and are right (type and both ends)."""

    wanted: int = 0
    found: int = 0
    right: int = 0

    @property
    def precision(self) -> float:
        """Right ones of those found, in [0, 1]; 0 where none was found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Right ones of those wanted, in [0, 1]; 0 where none was wanted."""
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, in [0, 1]."""
        both = self.wanted + self.found
        return 2 * self.right / both if both else 0.0


@dataclass(frozen=True)
class EntityScores:
    """The score over all entities, and those of each type."""

    micro: EntityScore
    by_type: dict[str, EntityScore]

    def __str__(self) -> str:
        rows = [("all", self.micro), *self.by_type.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(
            f"{name:{width}}  precision {s.precision:7.2%}  recall {s.recall:7.2%}  "
            f"F1 {s.f1:7.2%}  ({s.wanted} in the data, {s.found} found)"
            for name, s in rows
        )


def entity_scores(
    wanted: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> EntityScores:
    """Score predicted labels against the true ones, sentence by sentence, as conlleval counts.

    An entity is right where type, first and last token are (Tjong Kim Sang and De Meulder 2003,
    "Introduction to the CoNLL-2003 shared task").

    Raises:
        DataError: a label marks no entity (see `spans`).
        ValueError: sentences differ in number or length.
    """
    counts: dict[str, Counter[str]] = {"wanted": Counter(), "found": Counter(), "right": Counter()}
    for true, guess in zip(wanted, predicted, strict=True):
        if len(true) != len(guess):
            raise ValueError(f"predicted: wanted {len(true)} labels as in wanted, got {len(guess)}")
        here, there = set(spans(true)), set(spans(guess))
        for name, entities in (("wanted", here), ("found", there), ("right", here & there)):
            counts[name].update(span.kind for span in entities)
    kinds = sorted(counts["wanted"].keys() | counts["found"].keys())
    by_type = {k: EntityScore(**{name: count[k] for name, count in counts.items()}) for k in kinds}
    return EntityScores(EntityScore(**{n: c.total() for n, c in counts.items()}), by_type)
