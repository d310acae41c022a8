"""Labelled tokens: files read and written, entities in malformed labels, scores by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.tasks._entities import (
    EntityScore,
    EntitySpan,
    entity_scores,
    find_spans,
    has_entities,
    labels_from_spans,
    malformed_labels,
)
from unrolled.tasks.data._conll import Sentence, read_conll, write_conll
from unrolled.tasks.data._source import DataError

# Files


def file_of(folder: Path, text: str) -> Path:
    path = folder / "x.conll"
    path.write_bytes(text.encode())
    return path


CONLL_2003 = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O

-DOCSTART- -X- -X- O
Ekeus NNP I-NP I-PER
# SYM I-NP O
"""


def test_sentences_come_with_their_labels_and_lines(tmp_path: Path) -> None:
    sentences = read_conll(file_of(tmp_path, CONLL_2003))
    assert sentences == [
        (("U.N.", "official"), ("I-ORG", "O"), (3, 4)),
        (("Ekeus", "#"), ("I-PER", "O"), (7, 8)),
    ]


def test_the_columns_are_chosen(tmp_path: Path) -> None:
    path = file_of(tmp_path, CONLL_2003)
    assert [s.labels for s in read_conll(path, label=1)] == [("NNP", "NN"), ("NNP", "SYM")]
    assert read_conll(path, label=0, token=1)[0][:2] == (("NNP", "NN"), ("U.N.", "official"))
    unlabelled = read_conll(path, label=None)
    assert [s.labels for s in unlabelled] == [(), ()]
    assert unlabelled[1].tokens == ("Ekeus", "#")
    assert read_conll(file_of(tmp_path, "just\ntokens\n"), label=None)[0].tokens == (
        "just",
        "tokens",
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a O\nb O", [("a", "b")]),
        ("\n\r\na O\r\n \t\r\n\r\nb O\r\n\r\n", [("a",), ("b",)]),
        ("a \t O\nb\tO\n", [("a", "b")]),
        ("New York\tO\n", [("New York",)]),
        ("a   O\nb\u00a0c O\n\u2028 O\n", [("a", "b\u00a0c", "\u2028")]),
        # Comments: only before a sentence, and only "# …" or "#" alone.
        ("# id 1\n#\n# text = a b\na O\n# O\n#tag O\n", [("a", "#", "#tag")]),
        ("#tag O\n", [("#tag",)]),
        ("#\tO\nx\tO\n", [("#", "x")]),
        ("\ufeffa O\n", [("a",)]),
    ],
)
def test_lines_as_they_come(tmp_path: Path, text: str, tokens: list[tuple[str, ...]]) -> None:
    assert [s.tokens for s in read_conll(file_of(tmp_path, text))] == tokens


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, r"x\.conll: must have a token and its label on each line, got no sentence"),
        ("# c\n\n-DOCSTART- O\n", {}, "got no sentence"),
        ("\na\nb\n", {}, "line 2: must have a token and its label, got 1 column and column 0 for"),
        ("a O\nb\n", {}, "line 2: must have 2 columns as on line 1, got 1; put a blank line"),
        ("a b O\n\nb O\n", {}, "line 3: must have 3 columns as on line 1, got 2"),
        (
            "a O\n",
            {"label": 3},
            r"line 1: must have column 3 for the labels \(the first is 0\), got",
        ),
        ("a O\n", {"token": -3}, "line 1: must have column -3 for the tokens"),
        ("a\tO\nb\t\n", {}, "line 2: must have a label in column -1, got nothing"),
        ("a\tO\n \tO\n", {}, "line 2: must have a token in column 0, got nothing"),
    ],
)
def test_a_damaged_file_raises(tmp_path: Path, text: str, arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_conll(file_of(tmp_path, text), **arguments)


CONLL_U = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\t_\t_\t_\t_\t_\t_\t_\t_\t_
3\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_

1\tsí\tsí\tINTJ\t_\t_\t0\troot\t_\t_
"""


def test_of_conll_u_the_words_are_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, CONLL_U)
    assert read_conll(path, label=3) == [
        (("vamos", "nos", "mar"), ("VERB", "PRON", "NOUN"), (4, 5, 7)),
        (("sí",), ("INTJ",), (9,)),
    ]
    assert read_conll(path, label=7, token=2)[0][:2] == (
        ("ir", "nosotros", "mar"),
        ("root", "obj", "obl"),
    )
    assert [s.tokens for s in read_conll(path, None)] == [("vamos", "nos", "mar"), ("sí",)]
    with pytest.raises(
        DataError, match=r"column -1 must have labels, got '_' on every line; --column 3"
    ):
        read_conll(path)


@pytest.mark.parametrize(
    ("text", "arguments", "cure"),
    [
        (CONLL_U, {"label": 3, "token": 0}, "line 4: .* --token-column 1"),
        ("1 a O\n2 b O\n\n1 c O\n", {}, "line 1: .* --token-column 1"),
        ("0 a O\n1 b O\n", {}, "line 1: .* --token-column 1"),
        ("a 1 O\nb 2 O\n", {"token": 1}, "line 1: .* --token-column 2"),
    ],
)
def test_counters_are_not_tokens(
    tmp_path: Path, text: str, arguments: dict[str, int], cure: str
) -> None:
    with pytest.raises(DataError, match=cure):
        read_conll(file_of(tmp_path, text), **arguments)


@pytest.mark.parametrize(
    "text", ["1 O\n\n1 O\n", "1 O\n3 O\n", "1 O\n2 O\nand O\n", "10 O\n11 O\n"]
)
def test_numbers_that_do_not_count_are_tokens(tmp_path: Path, text: str) -> None:
    tokens = [token for s in read_conll(file_of(tmp_path, text)) for token in s.tokens]
    assert tokens == [line.split()[0] for line in text.split("\n") if line]


def test_bytes_that_are_not_utf_8_raise(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a O\ncaf\xe9 O\n")
    with pytest.raises(DataError, match="x, line 2: must be UTF-8, got the byte 0xe9"):
        read_conll(tmp_path / "x")
    with pytest.raises(DataError, match="absent: cannot be read"):
        read_conll(tmp_path / "absent")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sentences = [Sentence(("#", "b\u00a0c"), ("B-X", "I-X")), Sentence((" x",), ("O",))]
    predicted = [["O", "B-X"], ["O"]]
    path = tmp_path / "out"
    write_conll(path, sentences, predicted)
    assert path.read_text("utf-8") == "#\tB-X\tO\nb\u00a0c\tI-X\tB-X\n\n x\tO\tO\n"
    assert [list(s.labels) for s in read_conll(path)] == predicted
    assert [s.labels for s in read_conll(path, label=1)] == [s.labels for s in sentences]
    write_conll(path, sentences)
    assert path.read_text("utf-8") == "#\tB-X\nb\u00a0c\tI-X\n\n x\tO\n"
    write_conll(path, [Sentence(("a",), ())], [["O"]])
    assert path.read_text("utf-8") == "a\tO\n"


@pytest.mark.parametrize(
    ("sentence", "predicted", "message"),
    [
        (
            Sentence(("a",), ("O",)),
            [["O", "O"]],
            "predicted must have 1 labels for sentence 1, got 2",
        ),
        (Sentence(("a",), ("O",)), [[]], "predicted must have 1 labels for sentence 1, got 0"),
        (Sentence(("a",), ("O",)), [], "predicted must have labels for 1 sentences, got 0"),
        (Sentence(("a\t",), ("O",)), [["O"]], r"got 'a\\t' in sentence 1"),
        (Sentence(("",), ("O",)), [["O"]], "got '' in sentence 1"),
        (Sentence(("a",), ("O\n",)), [["O"]], "must not be empty or have tabs or line ends"),
    ],
)
def test_what_cannot_be_written_raises(
    tmp_path: Path, sentence: Sentence, predicted: list[list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_conll(tmp_path / "out", [sentence], predicted)
    assert not (tmp_path / "out").exists()


# Entities


@pytest.mark.parametrize(
    ("labels", "expected_values"),
    [
        ("", []),
        ("O O", []),
        # Well formed: IOB1, IOB2, BILOU, BIOES.
        ("I-A I-A O I-B", [("A", 0, 2), ("B", 3, 4)]),
        ("I-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("B-A I-A B-A O", [("A", 0, 2), ("A", 2, 3)]),
        ("B-A I-A L-A U-A O U-B", [("A", 0, 3), ("A", 3, 4), ("B", 5, 6)]),
        ("B-A E-A S-A S-A", [("A", 0, 2), ("A", 2, 3), ("A", 3, 4)]),
        # I without B, at the beginning and after O.
        ("I-A", [("A", 0, 1)]),
        ("O I-A I-A", [("A", 1, 3)]),
        # The type changes: after B, after I, before L.
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A I-A I-B I-A", [("A", 0, 2), ("B", 2, 3), ("A", 3, 4)]),
        ("B-A L-B", [("A", 0, 1), ("B", 1, 2)]),
        # B, I without an end before O, B, U, and at the end of the sentence.
        ("B-A O", [("A", 0, 1)]),
        ("B-A U-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A I-A B-A", [("A", 0, 2), ("A", 2, 3)]),
        # L, E without a beginning; after an end; I after an end.
        ("L-A", [("A", 0, 1)]),
        ("O E-A", [("A", 1, 2)]),
        ("L-A L-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A L-A I-A", [("A", 0, 2), ("A", 2, 3)]),
        ("U-A I-A L-A", [("A", 0, 1), ("A", 1, 3)]),
        # A type may hold a hyphen.
        ("B-A-1 I-A-1 I-A-2", [("A-1", 0, 2), ("A-2", 2, 3)]),
    ],
)
def test_entities_in_labels(labels: str, expected_values: list[tuple[str, int, int]]) -> None:
    assert find_spans(labels.split()) == expected_values


@pytest.mark.parametrize("label", ["NN", "B", "B-", "X-PER", "o", "", "OO"])
def test_other_labels_mark_no_entities(label: str) -> None:
    with pytest.raises(DataError, match=f"got '{label}'"):
        find_spans(["O", label])
    assert not has_entities(["B-X", label])


def test_labels_that_mark_entities_are_known() -> None:
    assert has_entities(["O", "B-X", "I-X", "L-X", "U-X", "E-X", "S-X"])
    assert not has_entities(["O"])
    assert not has_entities([])


@pytest.mark.parametrize(
    ("labels", "malformed"),
    [
        ("O B-X PER", {"PER"}),
        ("B-X I-X O o 0 B- B_X", {"o", "0", "B-", "B_X"}),
        ("B-X I-X O", set()),
        # Parts of speech, some of which look like labels of entities; no entities at all.
        ("NN VB S-X JJ", set()),
        ("PER O O O LOC", set()),
        ("B-X NN", set()),
    ],
)
def test_a_malformed_label_is_found_among_entities(labels: str, malformed: set[str]) -> None:
    padded = [*labels.split(), *["O"] * 5] if malformed else labels.split()
    assert malformed_labels(padded) == malformed


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[EntitySpan], int]:
    actual, position = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(1, 3))
        actual.append(EntitySpan(draw(st.sampled_from("AB")), start, position))
    return actual, position + draw(st.integers(0, 2))


@given(sentences())
def test_every_scheme_has_the_same_spans(sentence: tuple[list[EntitySpan], int]) -> None:
    entities, length = sentence
    for scheme in ("IOB1", "IOB2", "BILOU"):
        labels = labels_from_spans(entities, length, scheme)
        assert len(labels) == length
        assert find_spans(labels) == entities


def test_schemes_by_hand() -> None:
    entities = [EntitySpan("A", 0, 2), EntitySpan("A", 2, 3), EntitySpan("B", 3, 6)]
    iob1, iob2, bilou = (labels_from_spans(entities, 7, s) for s in ("IOB1", "IOB2", "BILOU"))
    assert iob1 == ["I-A", "I-A", "B-A", "I-B", "I-B", "I-B", "O"]
    assert iob2 == ["B-A", "I-A", "B-A", "B-B", "I-B", "I-B", "O"]
    assert bilou == ["B-A", "L-A", "U-A", "B-B", "I-B", "L-B", "O"]
    with pytest.raises(ValueError, match="entities must be disjoint spans within 3 tokens"):
        labels_from_spans([EntitySpan("A", 0, 2), EntitySpan("B", 1, 3)], 3)
    with pytest.raises(ValueError, match="within 2 tokens"):
        labels_from_spans([EntitySpan("A", 1, 3)], 2)
    with pytest.raises(ValueError, match="scheme must be one of IOB1, IOB2, BILOU, got 'IO'"):
        labels_from_spans([], 2, "IO")  # type: ignore[arg-type]


def test_scores_by_hand() -> None:
    expected_values = ["B-PER I-PER O B-LOC", "B-PER B-PER O O", "O B-ORG I-ORG"]
    predicted = ["B-PER I-PER O B-ORG", "B-PER I-PER O B-LOC", "O B-ORG O"]
    # In the data: PER 0-2, LOC 3-4; PER 0-1, PER 1-2; ORG 1-3.
    # Found: PER 0-2 (right), ORG 3-4; PER 0-2, LOC 3-4; ORG 1-2.
    scores = entity_scores([s.split() for s in expected_values], [s.split() for s in predicted])
    assert scores.micro == EntityScore(expected=5, predicted=5, correct=1)
    assert scores.by_type == {
        "LOC": EntityScore(1, 1, 0),
        "ORG": EntityScore(1, 2, 0),
        "PER": EntityScore(3, 2, 1),
    }
    person = scores.by_type["PER"]
    assert (person.precision, person.recall) == (1 / 2, 1 / 3)
    assert person.f1 == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scores.micro.f1 == pytest.approx(0.2)
    assert "PER  precision  50.00%  recall  33.33%  F1  40.00%  (3 in the" in str(scores)


def test_scores_without_entities_are_defined() -> None:
    scores = entity_scores([["O"]], [["O"]])
    assert (scores.micro.precision, scores.micro.recall, scores.micro.f1) == (0.0, 0.0, 0.0)
    assert scores.by_type == {}
    only = entity_scores([["B-X"]], [["O"]]).micro
    assert (only.expected, only.predicted, only.f1) == (1, 0, 0.0)


def test_an_entity_does_not_cross_sentences() -> None:
    split = entity_scores([["B-X"], ["I-X"]], [["B-X"], ["B-X"]])
    assert split.micro == EntityScore(2, 2, 2)


def test_unequal_sentences_raise() -> None:
    with pytest.raises(ValueError, match="predicted must have 2 labels as in expected, got 1"):
        entity_scores([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        entity_scores([["O"]], [])
