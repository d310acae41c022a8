"""Sentences without labels, the input of a tagger's predictions: in columns, or one on a line."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.data._conll import Row, counts_tokens, parse_sentences, split_sentences
from unrolled.tasks.data._source import Source, read_lines


class ColumnGuide(NamedTuple):
    """What distinguishes columns from plain sentences: the vocabularies of the model, and the
    columns of labels and tokens in the data of the run, as for `read_conll`."""

    words: TokenVocabulary
    labels: TokenVocabulary
    label: int
    token: int | None


def read_unlabelled_sentences(
    source: Source, guide: ColumnGuide, split: Callable[[str], list[str]]
) -> list[tuple[str, list[str]]]:
    """The location and the tokens of each sentence.

    The source has columns, as the files of a run have, if most lines have tabs, or one field, or
    a known label in the label column, or if the first column counts, or if the column of the tokens
    is the only one with known words. In all others each line is a sentence.

    Args:
        split: splits a plain sentence into tokens.

    Raises:
        DataError: the source cannot be read or has no sentence, or its columns are damaged.
    """
    lines = read_lines(source)
    blocks = split_sentences(lines)
    tabs = sum("\t" in line for line in lines)
    if _has_columns(blocks, tabs, guide):
        sentences = parse_sentences(source, blocks, None, guide.token)
        return [(f"{source}, line {s.lines[0]}", list(s.tokens)) for s in sentences]
    plain = ((f"{source}, line {n}", split(line)) for n, line in enumerate(lines, 1))
    return [(location, tokens) for location, tokens in plain if tokens]


def _has_columns(blocks: Sequence[Sequence[Row]], tabs: int, guide: ColumnGuide) -> bool:
    rows = [row.fields for block in blocks for row in block]
    stacked = len(rows) > len(blocks)  # some sentence has several rows
    if not rows or (2 * tabs >= len(rows) and stacked):
        return True
    characters_only = all(len(word) == 1 for word in guide.words.entries)
    if characters_only and 2 * sum(len(fields[0]) == 1 for fields in rows) < len(rows):
        return False
    if 4 * sum(len(fields) == 1 for fields in rows) >= 3 * len(rows):
        return True
    if 2 * sum(_is_labelled(fields, guide) for fields in rows) >= len(rows):
        return True
    if any(len(fields) != len(rows[0]) for fields in rows):
        return False
    return counts_tokens(blocks, 0) or (stacked and _has_words_in_token_column(rows, guide))


def _is_labelled(fields: Sequence[str], guide: ColumnGuide) -> bool:
    """Whether the field of the label is one, and not the last word of a plain sentence."""
    width, label, token = len(fields), guide.label, guide.token or 0
    if width < 2 or not (-width <= label < width and -width <= token < width):
        return False
    return fields[label] in guide.labels and (
        fields[label] not in guide.words or fields[label] == fields[token]
    )


def _has_words_in_token_column(rows: Sequence[Sequence[str]], guide: ColumnGuide) -> bool:
    """Whether rows of equal width have known words in the token column, and in no other."""
    width, token = len(rows[0]), guide.token or 0
    columns = {k for fields in rows for k, field in enumerate(fields) if field in guide.words}
    return -width <= token < width and columns == {token % width}
