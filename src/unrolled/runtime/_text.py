"""Splits texts into tokens, joins tokens, and numbers the entries of vocabularies.

Shared by the codecs of training (``unrolled.tasks.codecs``) and of the runtime (``_codec``).
"""

import re
from collections.abc import Iterator, Sequence

PADDING, UNKNOWN = "<padding>", "<unknown>"
UNITS = ("characters", "words")

_WORD = re.compile(r"[\w'’-]+|<unknown>")
_TOKEN = re.compile(r"[\w'’-]+|[^\w\s]")

LETTERS = "0-9A-Za-z_\x80-\xff"
"""The characters of words in byte pair encoding, in the syntax of regular expressions. Bytes above
127, which are mostly letters in UTF-8, count as letters, so that no character is split."""
# No piece goes beyond a line end, or the end of a run of letters or of other signs.
_CHUNK_END = re.compile(
    rf"\n|[{LETTERS}](?![{LETTERS}])|[^{LETTERS}\s](?![^{LETTERS}\s])".encode("latin-1")
)
_CHUNK_SIZE = 1 << 16


def number_entries(
    entries: Sequence[str], padding: bool, unknown: bool
) -> tuple[list[str], dict[str, int]]:
    """The name of each number: first padding, then unknown, if the vocabulary has them, then the
    entries; and the number of each entry. An entry that is spelled like a special one is an
    ordinary entry.
    """
    names = [PADDING] * padding + [UNKNOWN] * unknown + list(entries)
    return names, {entry: i for i, entry in enumerate(entries, padding + unknown)}


def split_tokens(text: str, unit: str) -> list[str]:
    """Split a text into characters, or into words and single punctuation marks."""
    return list(text) if unit == "characters" else _TOKEN.findall(text)


def join_tokens(tokens: Sequence[str], unit: str) -> str:
    """Join tokens to a text: words are separated by spaces, and a punctuation mark directly follows
    the previous token."""
    if unit == "characters":
        return "".join(tokens)
    joined = (" " + token if _WORD.fullmatch(token) else token for token in tokens)
    return "".join(joined).strip()


def text_chunks(text: bytes) -> Iterator[str]:
    """The text as characters below 256, split where no piece of byte pair encoding goes across:
    one long string would take much memory."""
    start = 0
    while start < len(text):
        match = _CHUNK_END.search(text, start + _CHUNK_SIZE)
        end = match.end() if match else len(text)
        yield text[start:end].decode("latin-1")
        start = end
