"""Inputs of a tagger: plain sentences and columns are distinguished."""

from pathlib import Path

import pytest

from unrolled.tasks.codecs import TaggingCodec
from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._unlabelled_sentences import ColumnGuide, read_unlabelled_sentences

WORDS = ["Ada", "Bo", ".", "met", "saw", "ada", "bo"]


def tags_of(words: list[str], labels: list[str]) -> TaggingCodec:
    return TaggingCodec(
        TokenVocabulary(words, padding=True, unknown=True), None, TokenVocabulary(labels)
    )


def read(
    folder: Path, text: str, tags: TaggingCodec, label: int = -1, token: int | None = None
) -> list:
    path = folder / "in"
    path.write_text(text)
    guide = ColumnGuide(tags.words, tags.labels, label, token)
    sentences = read_unlabelled_sentences(path, guide, tags.split)
    assert all(location.startswith(f"{path}, line ") for location, _ in sentences)
    return [" ".join(tokens) for _, tokens in sentences]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        # Plain: every word of a sentence is one.
        ("Ada met Bo .", ["Ada met Bo ."]),
        ("Ada met Bo .\nBo saw Ada .\n", ["Ada met Bo .", "Bo saw Ada ."]),
        ("Ada met Bo\n\nBo saw\n", ["Ada met Bo", "Bo saw"]),
        ("  Ada \t met\n", ["Ada met"]),
        ("Ada\u00a0met\u2028Bo saw\n", ["Ada\u00a0met\u2028Bo saw"]),
        # A token a line.
        ("Ada", ["Ada"]),
        ("Ada\nmet\n\nBo\n", ["Ada met", "Bo"]),
        # Columns: the run's labels, tabs, others without a label, counters of CoNLL-U.
        ("Ada B-PER\nmet O\n\nBo B-PER\n", ["Ada met", "Bo"]),
        ("Ada ada NNP B-PER\nmet meet VBD O\n", ["Ada met"]),
        ("Ada\tQ\nmet\tQ\n\nBo\tQ\n", ["Ada met", "Bo"]),
        ("Ada NNP\nmet VBD\n\nBo NNP\n", ["Ada met", "Bo"]),
        ("-DOCSTART- O\n\nAda B-PER\nmet O\n", ["Ada met"]),
        ("1-2\tAb\t_\t_\t_\t_\t_\t_\t_\t_\n1\tAda\t_\tN\t_\t_\t_\t_\t_\t_\n"
         "2\tmet\t_\tV\t_\t_\t_\t_\t_\t_\n", ["Ada met"]),
    ],
)  # fmt: skip
def test_sentences_and_columns_are_distinguished(
    tmp_path: Path, text: str, sentences: list[str]
) -> None:
    assert read(tmp_path, text, tags_of(WORDS, ["B-PER", "O"])) == sentences


def test_a_full_stop_is_a_label_and_ends_sentences(tmp_path: Path) -> None:
    """Penn Treebank's label of "." is "."."""
    tags = tags_of(WORDS, ["NNP", "VBD", "."])
    assert read(tmp_path, "Ada met Bo .\n", tags) == ["Ada met Bo ."]
    assert read(tmp_path, "Ada NNP\nmet VBD\n. .\n", tags) == ["Ada met ."]


def test_the_runs_columns_are_read(tmp_path: Path) -> None:
    text = "x Ada B-PER y\nx met O y\n"
    assert read(tmp_path, text, tags_of(WORDS, ["B-PER", "O"]), label=2, token=1) == ["Ada met"]


def test_where_tokens_are_characters_a_sentence_is_cut_into_them(tmp_path: Path) -> None:
    tags = tags_of(["你", "好", "a"], ["B", "I"])
    assert read(tmp_path, "你好 a\n好你\n", tags) == ["你 好 a", "好 你"]
    assert read(tmp_path, "你 B\n好 I\n\na B\n", tags) == ["你 好", "a"]
    with_blanks = tags_of(["a", "b", " "], ["x"])
    assert with_blanks.split(" a b") == [" ", "a", " ", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have sentences, got no sentence"),
        ("\n \n", "must have sentences, got no sentence"),
        ("Ada B-PER\nmet O\nBo\n", "line 3: must have 2 columns as on line 1, got 1"),
        ("1 Ada\n2 met\n", "line 1: column 0 must have tokens, got numbers"),
    ],
)
def test_damaged_columns_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, tags_of(WORDS, ["B-PER", "O"]))
