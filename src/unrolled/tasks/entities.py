"""Entities in the labels of tokens: found, checked, written, and scored as conlleval does."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unrolled.tasks.data.source import DataError

__all__ = [
    "EntityScore",
    "EntityScores",
    "EntitySpan",
    "entity_scores",
    "find_spans",
    "has_entities",
    "labels_from_spans",
    "malformed_labels",
]


class EntitySpan(NamedTuple):
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


def malformed_labels(labels: Iterable[str]) -> set[str]:
    """Those that mark no entity, where more than half of all do or are `O`, and some do."""
    counts = Counter(labels)
    well_formed = {label for label in counts if _LABEL.fullmatch(label)}
    share = sum(counts[label] for label in well_formed)
    if not well_formed - {"O"} or 2 * share <= counts.total():
        return set()
    return counts.keys() - well_formed


def find_spans(labels: Sequence[str]) -> list[EntitySpan]:
    """The entities that labels mark, in IOB1, IOB2, BILOU or BIOES, in order.

    As in the script conlleval (Tjong Kim Sang and De Meulder 2003) nothing is malformed: an entity
    begins at B, U or S, wherever an entity's label follows O, L, E, U or S, and wherever the type
    changes; it ends before the next beginning, before O, and after L, E, U or S. So one reading
    serves all the schemes.

    Raises:
        DataError: a label is none of these schemes'.
    """
    found: list[EntitySpan] = []
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
            found.append(EntitySpan(kind, start, position))
        if mark != "O" and (before == "O" or not continues):
            start = position
        before, kind = mark, now
    return found


def labels_from_spans(
    entities: Iterable[EntitySpan], length: int, scheme: Scheme = "IOB2"
) -> list[str]:
    """The labels of `length` tokens that mark these entities; the inverse of `spans`.

    IOB2 begins every entity with B, IOB1 only those that touch one of the same type before them,
    BILOU marks first, inner, last and single tokens.

    Raises:
        ValueError: the scheme is unknown, or entities overlap, are empty or outside the sentence.
    """
    if scheme not in ("IOB1", "IOB2", "BILOU"):
        raise ValueError(f"scheme: wanted one of IOB1, IOB2, BILOU, got {scheme!r}")
    labels = ["O"] * length
    last = EntitySpan("", 0, 0)
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
        here, there = set(find_spans(true)), set(find_spans(guess))
        for name, entities in (("wanted", here), ("found", there), ("right", here & there)):
            counts[name].update(span.kind for span in entities)
    kinds = sorted(counts["wanted"].keys() | counts["found"].keys())
    by_type = {k: EntityScore(**{name: count[k] for name, count in counts.items()}) for k in kinds}
    return EntityScores(EntityScore(**{n: c.total() for n, c in counts.items()}), by_type)
