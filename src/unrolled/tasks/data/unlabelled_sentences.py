"""Sentences without labels, which a tagger reads to predict: in columns or plain, one on a line."""

from collections.abc import Callable, Sequence

from unrolled.tasks.codecs.token_vocab import TokenVocabulary
from unrolled.tasks.data.conll import Row, counts_tokens, parse_sentences, split_sentences
from unrolled.tasks.data.source import Source, read_lines

__all__ = ["read_unlabelled_sentences"]


def read_unlabelled_sentences(
    source: Source,
    words: TokenVocabulary,
    labels: TokenVocabulary,
    *,
    label: int,
    token: int | None,
    split: Callable[[str], list[str]],
) -> list[tuple[str, list[str]]]:
    """The place and the tokens of each sentence.

    The source has columns, as the files of a run have, where most lines have tabs, or one field, or
    a known label in the labels' column, or where the first column counts, or no column but that of
    the tokens has known words. In all others each line is a sentence.

    Args:
        words, labels: those that the model knows.
        label, token: the run's columns, as of `conll.read_conll`.
        split: cuts a plain sentence into tokens.

    Raises:
        DataError: the source cannot be read or holds no sentence, or its columns are damaged.
    """
    lines = read_lines(source)
    blocks = split_sentences(lines)
    tabs = sum("\t" in line for line in lines)
    if _has_columns(blocks, tabs, words, labels, label, token or 0):
        sentences = parse_sentences(source, blocks, None, token)
        return [(f"{source}, line {s.lines[0]}", list(s.tokens)) for s in sentences]
    plain = ((f"{source}, line {n}", split(line)) for n, line in enumerate(lines, 1))
    return [(place, tokens) for place, tokens in plain if tokens]


def _has_columns(
    blocks: Sequence[Sequence[Row]],
    tabs: int,
    words: TokenVocabulary,
    labels: TokenVocabulary,
    label: int,
    token: int,
) -> bool:
    rows = [row.fields for block in blocks for row in block]
    stacked = len(rows) > len(blocks)  # some row is below another of its sentence
    if not rows or (2 * tabs >= len(rows) and stacked):
        return True
    of_characters = all(len(word) == 1 for word in words.entries)
    if of_characters and 2 * sum(len(fields[0]) == 1 for fields in rows) < len(rows):
        return False
    if 4 * sum(len(fields) == 1 for fields in rows) >= 3 * len(rows):
        return True
    labelled = sum(_is_labelled(fields, words, labels, label, token) for fields in rows)
    if 2 * labelled >= len(rows):
        return True
    if any(len(fields) != len(rows[0]) for fields in rows):
        return False
    return counts_tokens(blocks, 0) or (stacked and _has_words_in(token, rows, words))


def _is_labelled(
    fields: Sequence[str], words: TokenVocabulary, labels: TokenVocabulary, label: int, token: int
) -> bool:
    """Whether the field of the label is one, and not the last word of a plain sentence."""
    width = len(fields)
    if width < 2 or not (-width <= label < width and -width <= token < width):
        return False
    return fields[label] in labels and (
        fields[label] not in words or fields[label] == fields[token]
    )


def _has_words_in(token: int, rows: Sequence[Sequence[str]], words: TokenVocabulary) -> bool:
    """Whether rows of equal width have known words in that column, and in no other."""
    width = len(rows[0])
    known = {k for fields in rows for k, field in enumerate(fields) if field in words}
    return -width <= token < width and known == {token % width}
