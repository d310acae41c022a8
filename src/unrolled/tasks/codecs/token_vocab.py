"""A vocabulary over words, characters or labels: lists of texts to numbers and back.

`vocabulary.Vocabulary` and `pieces.Pieces` cut a text themselves; here the caller has cut it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from unrolled.runtime.text import PADDING, UNKNOWN, number_entries
from unrolled.tasks.data.source import DataError

__all__ = ["PADDING", "UNKNOWN", "TokenVocabulary"]

_SHOWN = 20


class TokenVocabulary:
    """Numbers for entries: first padding, then unknown, if there are such, then the entries.

    Args:
        entries: the known ones, each once, in the order of their numbers.
        padding: number 0 stands for padding; no entry has it.
        unknown: the next number stands for every entry that is not known; without it an unknown
            entry is refused.
        what: what an entry is, for messages: "label", "word", …

    Raises:
        ValueError: an entry comes twice or is no text.
    """

    def __init__(
        self,
        entries: Sequence[str],
        *,
        padding: bool = False,
        unknown: bool = False,
        what: str = "label",
    ) -> None:
        wrong = [entry for entry in entries if not isinstance(entry, str)]
        twice = [entry for entry, times in Counter(entries).items() if times > 1]
        if isinstance(entries, str) or wrong or twice:
            got = (wrong or twice)[0] if wrong or twice else entries
            raise ValueError(f"entries: wanted a list of texts, each once, got {got!r}")
        self.entries = tuple(entries)
        self.padding = 0 if padding else None
        self.unknown = int(padding) if unknown else None
        self.what = what
        self._names, self._numbers = number_entries(self.entries, padding, unknown)

    @classmethod
    def of(
        cls,
        items: Iterable[str],
        *,
        min_count: int = 1,
        padding: bool = False,
        unknown: bool = False,
        what: str = "label",
    ) -> "TokenVocabulary":
        """The vocabulary of what comes `min_count` times or more in `items`, in sorted order.

        Raises:
            ValueError: `min_count` is below 1, or above 1 with nothing to stand for the rest.
            DataError: nothing comes as often.
        """
        if min_count < 1 or (min_count > 1 and not unknown):
            wanted = "at least 1" if min_count < 1 else "1 where there is no unknown entry"
            raise ValueError(f"min_count: wanted {wanted}, got {min_count}")
        counts = Counter(items)
        entries = sorted(item for item, count in counts.items() if count >= min_count)
        if not entries:
            got = "none: the data are empty"
            if counts:
                got = f"{len(counts)} that come more rarely; give a smaller --min-count"
            often = f" that comes {min_count} times or more" if min_count > 1 else ""
            raise DataError(f"{what}: wanted one or more{often}, got {got}")
        return cls(entries, padding=padding, unknown=unknown, what=what)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, entry: str) -> bool:
        return entry in self._numbers

    def encode(self, items: Iterable[str], place: str = "") -> Tensor:
        """The number of each item, `[items]`, int64.

        Args:
            place: where the items come from, for messages: "file.csv, line 3".

        Raises:
            DataError: an item is not known and there is no unknown entry; the message has the
                place, the item and the known ones.
        """
        numbers = []
        for item in items:
            number = self._numbers.get(item, self.unknown)
            if number is None:
                raise DataError(self._refusal(item, place))
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int]) -> list[str]:
        """The entry of each number; `PADDING` and `UNKNOWN` for those two."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return [self._names[i] for i in numbers]

    def state(self) -> dict[str, Any]:
        """Plain values from which `from_state` makes the same vocabulary."""
        return {
            "entries": list(self.entries),
            "padding": self.padding is not None,
            "unknown": self.unknown is not None,
            "what": self.what,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TokenVocabulary":
        """The vocabulary that `state` came from.

        Raises:
            ValueError: the state is damaged.
        """
        try:
            return cls(
                state["entries"],
                padding=bool(state["padding"]),
                unknown=bool(state["unknown"]),
                what=str(state["what"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"state: wanted that of a vocabulary of words ({error!r})") from None

    def _refusal(self, item: str, place: str) -> str:
        known = ", ".join(map(repr, self.entries[:_SHOWN]))
        if len(self.entries) > _SHOWN:
            known += f" and {len(self.entries) - _SHOWN} more"
        near = get_close_matches(item, self.entries, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f"{place}: " if place else ""
        return f"{where}wanted a known {self.what} ({known}), got {item!r}{hint}"
