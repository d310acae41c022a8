"""A vocabulary of words, characters or labels: lists of strings to numbers and back.

`Vocabulary` and `SubwordVocabulary` split a text themselves; here the caller has split it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TypedDict

import torch
from torch import Tensor

from unrolled.runtime._text import number_entries
from unrolled.tasks.data._source import DataError

_MAX_LISTED = 20
"""Entries that a message lists."""


class TokenVocabularyState(TypedDict):
    """The state of a :class:`TokenVocabulary` in a checkpoint."""

    entries: list[str]
    padding: bool
    unknown: bool
    what: str


class TokenVocabulary:
    """Numbers for entries: optionally padding, then optionally unknown, then the entries.

    Args:
        entries: distinct strings, in the order of their numbers.
        padding: number 0 is padding; no entry has it.
        unknown: the next number is that of every string which is not an entry; without it such a
            string is refused.
        entry_type: what an entry is, for messages: "label", "word", …

    Raises:
        ValueError: an entry occurs twice or is not a string.
    """

    def __init__(
        self,
        entries: Sequence[str],
        *,
        padding: bool = False,
        unknown: bool = False,
        entry_type: str = "label",
    ) -> None:
        invalid = [entry for entry in entries if not isinstance(entry, str)]
        duplicates = [entry for entry, count in Counter(entries).items() if count > 1]
        if isinstance(entries, str) or invalid or duplicates:
            example: object = entries if isinstance(entries, str) else (invalid or duplicates)[0]
            raise ValueError(
                f"TokenVocabulary: entries must be a list of distinct strings, got {example!r}"
            )
        self.entries = tuple(entries)
        self.padding = 0 if padding else None
        self.unknown = int(padding) if unknown else None
        self.entry_type = entry_type
        self._names, self._numbers = number_entries(self.entries, padding, unknown)

    @classmethod
    def of(
        cls,
        items: Iterable[str],
        *,
        min_count: int = 1,
        padding: bool = False,
        unknown: bool = False,
        entry_type: str = "label",
    ) -> "TokenVocabulary":
        """The vocabulary of the strings that occur `min_count` times or more, in sorted order.

        Raises:
            ValueError: `min_count` is below 1, or above 1 without an unknown entry.
            DataError: no string occurs as often.
        """
        if min_count < 1:
            raise ValueError(f"TokenVocabulary.of: min_count must be at least 1, got {min_count}")
        if min_count > 1 and not unknown:
            raise ValueError(
                f"TokenVocabulary.of: min_count must be 1 without unknown, got {min_count}"
            )
        counts = Counter(items)
        entries = sorted(item for item, count in counts.items() if count >= min_count)
        if not entries:
            raise DataError(_no_entries(entry_type, min_count, len(counts)))
        return cls(entries, padding=padding, unknown=unknown, entry_type=entry_type)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, entry: str) -> bool:
        return entry in self._numbers

    def encode(self, items: Iterable[str], location: str = "") -> Tensor:
        """The number of each item, `[items]`, int64.

        Args:
            location: of the items, for messages: "file.csv, line 3".

        Raises:
            DataError: an item is not an entry and there is no unknown one; the message has the
                location, the item and the entries.
        """
        numbers = []
        for item in items:
            number = self._numbers.get(item, self.unknown)
            if number is None:
                raise DataError(self._unknown_item(item, location))
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int]) -> list[str]:
        """The entry of each number; `PADDING` and `UNKNOWN` for those two."""
        numbers: Sequence[int] = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return [self._names[i] for i in numbers]

    def state(self) -> TokenVocabularyState:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {
            "entries": list(self.entries),
            "padding": self.padding is not None,
            "unknown": self.unknown is not None,
            "what": self.entry_type,
        }

    @classmethod
    def from_state(cls, state: TokenVocabularyState) -> "TokenVocabulary":
        """The vocabulary whose `state` this is.

        Raises:
            ValueError: the state is damaged.
        """
        try:
            return cls(
                state["entries"],
                padding=bool(state["padding"]),
                unknown=bool(state["unknown"]),
                entry_type=str(state["what"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"TokenVocabulary: state must be that of a token vocabulary ({error!r})"
            ) from None

    def _unknown_item(self, item: str, location: str) -> str:
        names = ", ".join(map(repr, self.entries[:_MAX_LISTED]))
        if len(self.entries) > _MAX_LISTED:
            names += f" and {len(self.entries) - _MAX_LISTED} more"
        similar = get_close_matches(item, self.entries, 1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        prefix = f"{location}: " if location else ""
        return f"{prefix}{self.entry_type} must be one of {names}, got {item!r}{hint}"


def _no_entries(entry_type: str, min_count: int, distinct: int) -> str:
    """The message for data without an entry that is frequent enough."""
    if not distinct:
        return f"data: must have at least one {entry_type}, got none; the data are empty"
    return (
        f"data: must have at least one {entry_type} that occurs {min_count} times or more, got "
        f"{distinct} rarer ones; pass a smaller --min-count"
    )
