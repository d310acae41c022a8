"""Vocabularies of pieces and of words: exact round trips, the same on every run, and errors."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.runtime._text import PADDING, UNKNOWN, text_chunks
from unrolled.tasks.codecs._subword import SubwordVocabulary
from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._text_files import TextError, read_text

TEXT = read_text(limit=60_000)


@pytest.fixture(scope="module")
def pieces() -> SubwordVocabulary:
    return SubwordVocabulary.of(TEXT, 600)


def test_pieces_by_hand() -> None:
    # "ab" comes four times, " ab" three times; nothing else repeats.
    vocabulary = SubwordVocabulary.of(b"ab ab ab ab", 300)
    assert len(vocabulary) == 258
    assert [vocabulary.decode([i]) for i in range(256, 258)] == ["ab", " ab"]
    assert vocabulary.encode(b"ab ab b").tolist()[:2] == [256, 257]
    assert vocabulary.characters_per_token == 11 / 4


def test_a_text_comes_back_shorter_and_whole(pieces: SubwordVocabulary) -> None:
    tokens = pieces.encode(TEXT)
    assert len(pieces) == 600
    assert tokens.dtype == torch.int32
    assert pieces.decode(tokens) == TEXT.decode()
    assert pieces.characters_per_token == len(TEXT) / len(tokens) > 1.8
    assert pieces.unit == "piece"
    assert pieces.encode(b"").tolist() == []
    assert pieces.decode([]) == ""


@given(st.binary(max_size=60))
def test_any_bytes_come_back(pieces: SubwordVocabulary, text: bytes) -> None:
    assert pieces.decode_bytes(pieces.encode(text)) == text
    assert pieces.decode(pieces.encode(text)) == text.decode("utf-8", "replace")


def test_every_byte_comes_back(pieces: SubwordVocabulary) -> None:
    every = bytes(range(256)) + bytes(range(255, -1, -1))
    assert pieces.decode_bytes(pieces.encode(every)) == every
    french = "naïve — 猫\r\n".encode()
    assert pieces.decode(pieces.encode(french)) == french.decode()


def test_long_texts_are_cut_where_it_changes_nothing(pieces: SubwordVocabulary) -> None:
    lines = (TEXT[:50_000] + b"\n") * 3
    full = pieces.encode(lines)
    assert torch.equal(full, torch.cat([pieces.encode(TEXT[:50_000] + b"\n")] * 3))


_SIGNS = [
    b"a",
    b"b",
    b" ",
    b"  ",
    b"\t",
    b"\n",
    b"\r\n",
    b"#",
    b"()",
    b"\xc3\xa9",
    b"\0",
    b"\x1c",
    b"\xa0",
]


@given(parts=st.lists(st.sampled_from(_SIGNS), max_size=60), size=st.integers(1, 20))
def test_blocks_of_any_size_give_the_tokens_of_the_whole(
    pieces: SubwordVocabulary, parts: list[bytes], size: int
) -> None:
    text = b"".join(parts)
    full = pieces.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrolled.runtime._text._CHUNK_SIZE", size)
        assert "".join(text_chunks(text)).encode("latin-1") == text
        assert torch.equal(pieces.encode(text), full)


def test_a_text_without_line_ends_is_cut_into_blocks() -> None:
    """One long block costs much memory, and one long word the square of its length to learn."""
    text = TEXT.replace(b"\n", b" ") * 5
    assert max(map(len, text_chunks(text))) < (1 << 16) + 2000
    minified = b"a=b(c);" * 40_000
    assert max(map(len, text_chunks(minified))) < (1 << 16) + 10
    learned = SubwordVocabulary.of(b"ACGT" * 10_000, 300)
    assert learned.decode_bytes(learned.encode(b"ACGT" * 5_000)) == b"ACGT" * 5_000
    # Encoding cuts no word: one that is longer than what is learned from at a time is one still.
    ragged = b"ACG" + b"ACGT" * 3_000
    (block,) = text_chunks(ragged)
    ids = learned._tokenizer.encode(block, add_special_tokens=False).ids
    assert learned.encode(ragged).tolist() == ids
    assert len(learned._tokenizer.pre_tokenizer.pre_tokenize_str(block)) == 1


def test_pieces_are_the_same_in_every_process(pieces: SubwordVocabulary) -> None:
    code = (
        "from unrolled.tasks.codecs._subword import SubwordVocabulary;"
        "from unrolled.tasks.data._text_files import read_text;"
        "print(SubwordVocabulary.of(read_text(limit=60_000), 600).state()['tokenizer'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == json.loads(pieces.state()["tokenizer"])


def test_pieces_come_back_from_their_state(pieces: SubwordVocabulary) -> None:
    state = pieces.state()
    json.dumps(state)
    repeated = SubwordVocabulary.from_state(state)
    assert repeated.state() == state
    assert torch.equal(repeated.encode(TEXT), pieces.encode(TEXT))
    assert repeated.characters_per_token == pieces.characters_per_token


def _without_a_byte(text: str) -> str:
    tree = json.loads(text)
    tree["model"]["merges"] = []
    tree["model"]["vocab"] = {"a": 0}
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"tokenizer": "{}"}, "tokenizer must be the JSON of a tokenizer"),
        ({"tokenizer": ""}, "tokenizer must be the JSON"),
        ({"tokenizer": None}, "tokenizer must be the JSON"),
        ({"characters_per_token": 0.0}, "characters_per_token must be above 0, got 0.0"),
        ({"characters_per_token": float("nan")}, "must be above 0, got nan"),
        ({"characters_per_token": None}, "state must be that of a subword vocabulary"),
    ],
)
def test_a_damaged_state_raises(pieces: SubwordVocabulary, damage: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubwordVocabulary.from_state(pieces.state() | damage)
    with pytest.raises(ValueError, match="state must be that of a subword vocabulary"):
        SubwordVocabulary.from_state({"unit": "byte", "characters": None})
    with pytest.raises(ValueError, match="all bytes among them"):
        SubwordVocabulary.from_state(
            pieces.state() | {"tokenizer": _without_a_byte(pieces.state()["tokenizer"])}
        )


def test_pieces_name_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="size must be at least 256, the single bytes, got 255"):
        SubwordVocabulary.of(b"abc", 255)
    with pytest.raises(TextError, match="text: must not be empty"):
        SubwordVocabulary.of(b"", 300)


# Words


def test_words_are_numbered_in_order() -> None:
    words = TokenVocabulary.of(["b", "a", "c", "b"])
    assert words.entries == ("a", "b", "c")
    assert (len(words), words.padding, words.unknown) == (3, None, None)
    assert words.encode(["c", "a"]).tolist() == [2, 0]
    assert words.encode([]).dtype == torch.int64
    assert words.decode(torch.tensor([1, 1])) == ["b", "b"]
    assert "a" in words
    assert "z" not in words


def test_special_entries_come_first() -> None:
    words = TokenVocabulary.of(["b", "a", "b", "a", "c"], min_count=2, padding=True, unknown=True)
    assert (len(words), words.padding, words.unknown) == (4, 0, 1)
    assert words.encode(["a", "b", "c", "zzz"]).tolist() == [2, 3, 1, 1]
    assert words.decode([0, 1, 2]) == [PADDING, UNKNOWN, "a"]
    assert TokenVocabulary(["a"], unknown=True).encode(["a", "b"]).tolist() == [1, 0]
    # A text that reads like a special entry is not one.
    assert TokenVocabulary([PADDING], padding=True, unknown=True).encode(
        [PADDING, UNKNOWN]
    ).tolist() == [
        2,
        1,
    ]


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_words_come_back_from_their_state(padding: bool, unknown: bool) -> None:
    words = TokenVocabulary(["x", "", "é"], padding=padding, unknown=unknown, entry_type="word")
    state = json.loads(json.dumps(words.state()))
    repeated = TokenVocabulary.from_state(state)
    assert repeated.state() == words.state()
    assert repeated.encode(["", "é"]).tolist() == words.encode(["", "é"]).tolist()
    assert repeated.decode(repeated.encode(["é", "x"])) == ["é", "x"]
    for name in state:
        with pytest.raises(ValueError, match="state must be that of a token vocabulary"):
            TokenVocabulary.from_state({k: v for k, v in state.items() if k != name})
    for entries in (None, 3, ["a", "a"], ["a", 1], "ab"):
        with pytest.raises(ValueError, match=r"(state|entries) must be"):
            TokenVocabulary.from_state(state | {"entries": entries})


def test_an_unknown_label_raises_with_its_location() -> None:
    labels = TokenVocabulary(["happy", "sad"])
    message = r"^t\.csv, line 3: label must be one of 'happy', 'sad', got 'hapy'; did you mean 'h"
    with pytest.raises(DataError, match=message):
        labels.encode(["sad", "hapy"], location="t.csv, line 3")
    with pytest.raises(DataError, match=r"^word must be one of .* and 5 more"):
        TokenVocabulary([f"w{i}" for i in range(25)], entry_type="word").encode(["x"])


def test_words_name_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        TokenVocabulary.of(["a"], min_count=0)
    with pytest.raises(ValueError, match="min_count must be 1 without unknown"):
        TokenVocabulary.of(["a", "a"], min_count=2)
    with pytest.raises(DataError, match=r"one word that occurs 2 times or more, .* --min-count"):
        TokenVocabulary.of(["a"], min_count=2, unknown=True, entry_type="word")
    with pytest.raises(ValueError, match="entries must be a list of distinct strings, got 'a'"):
        TokenVocabulary(["a", "b", "a"])
