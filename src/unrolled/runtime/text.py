"""How texts are cut into tokens and put together, and how entries are numbered.

For those who train with torch (``unrolled.tasks``) as for those who run without (``codec``).
"""

import re
from collections.abc import Iterator, Sequence

__all__ = ["LETTERS", "PADDING", "UNITS", "UNKNOWN", "blocks", "cut", "numbered", "written"]

PADDING, UNKNOWN = "<padding>", "<unknown>"
UNITS = ("characters", "words")

_WORD = re.compile(r"[\w'’-]+|<unknown>")
_TOKEN = re.compile(r"[\w'’-]+|[^\w\s]")

LETTERS = "0-9A-Za-z_\x80-\xff"
"""Of words in byte pair encoding, as in a regular expression. Bytes above 127, of letters in UTF-8
mostly, count as letters, and so a character is not torn."""
# No piece goes beyond a line end, or the last one of a run of letters or of other signs.
_BLOCK_END = re.compile(
    rf"\n|[{LETTERS}](?![{LETTERS}])|[^{LETTERS}\s](?![^{LETTERS}\s])".encode("latin-1")
)
_BLOCK = 1 << 16


def numbered(
    entries: Sequence[str], padding: bool, unknown: bool
) -> tuple[list[str], dict[str, int]]:
    """The name of each number: first padding, then unknown, if there are such, then the entries;
    and the number of each entry. An entry that reads like a special one is one like any other.
    """
    names = [PADDING] * padding + [UNKNOWN] * unknown + list(entries)
    return names, {entry: i for i, entry in enumerate(entries, padding + unknown)}


def cut(text: str, unit: str) -> list[str]:
    """A text as its characters, or as words and single signs."""
    return list(text) if unit == "characters" else _TOKEN.findall(text)


def written(tokens: Sequence[str], unit: str) -> str:
    """Tokens as a text: words one blank apart, signs close to what comes before."""
    if unit == "characters":
        return "".join(tokens)
    joined = (" " + token if _WORD.fullmatch(token) else token for token in tokens)
    return "".join(joined).strip()


def blocks(text: bytes) -> Iterator[str]:
    """The text as characters below 256, cut where no piece of byte pair encoding goes across: one
    long string costs much memory."""
    start = 0
    while start < len(text):
        last = _BLOCK_END.search(text, start + _BLOCK)
        end = last.end() if last else len(text)
        yield text[start:end].decode("latin-1")
        start = end
