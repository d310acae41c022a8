"""Entities in the labels of tokens: found, checked, written, and scored as conlleval does."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unrolled.tasks.data._source import DataError


class EntitySpan(NamedTuple):
    """An entity of some type over the tokens from `start` up to, not including, `end`."""

    type: str
    start: int
    end: int


Scheme = Literal["IOB1", "IOB2", "BILOU"]
_LABEL = re.compile(r"O|[BILUES]-.+", re.DOTALL)
# L(ast) and E(nd), and U(nit) and S(ingle), have the same meaning in different schemes.
_END_MARKS = frozenset("LEUS")
_BEGIN_MARKS = frozenset("BUS")


def has_entities(labels: Iterable[str]) -> bool:
    """Whether labels mark entities: all are `O` or one of B, I, L, U, E, S with `-` and a type, and
    some are not `O`."""
    distinct = set(labels)
    return bool(distinct - {"O"}) and all(_LABEL.fullmatch(label) for label in distinct)


def malformed_labels(labels: Iterable[str]) -> set[str]:
    """The labels that mark no entity, provided that some do and more than half of all do or are
    `O`; otherwise none."""
    counts = Counter(labels)
    well_formed = {label for label in counts if _LABEL.fullmatch(label)}
    count = sum(counts[label] for label in well_formed)
    if not well_formed - {"O"} or 2 * count <= counts.total():
        return set()
    return counts.keys() - well_formed


def find_spans(labels: Sequence[str]) -> list[EntitySpan]:
    """The entities that labels mark, in IOB1, IOB2, BILOU or BIOES, in order.

    As in the script conlleval (Tjong Kim Sang and De Meulder 2003) no sequence is malformed: an
    entity begins at B, U or S, wherever the label of an entity follows O, L, E, U or S, and
    wherever the type changes; it ends before the next begin, before O, and after L, E, U or S. So
    one function reads all the schemes.

    Raises:
        DataError: a label belongs to none of these schemes.
    """
    spans: list[EntitySpan] = []
    start = 0
    previous_mark, previous_type = "O", ""
    for position, label in enumerate((*labels, "O")):
        if not _LABEL.fullmatch(label):
            raise DataError(
                f"label: must be O, or one of B, I, L, U, E, S with - and a type, got {label!r}"
            )
        mark, _, entity_type = label.partition("-")
        continues = (
            mark != "O"
            and mark not in _BEGIN_MARKS
            and previous_mark not in _END_MARKS
            and entity_type == previous_type
        )
        if previous_mark != "O" and not continues:
            spans.append(EntitySpan(previous_type, start, position))
        if mark != "O" and (previous_mark == "O" or not continues):
            start = position
        previous_mark, previous_type = mark, entity_type
    return spans


def labels_from_spans(
    entities: Iterable[EntitySpan], length: int, scheme: Scheme = "IOB2"
) -> list[str]:
    """The labels of `length` tokens that mark these entities; the inverse of `find_spans`.

    IOB2 begins every entity with B, IOB1 only those that touch one of the same type before them,
    BILOU marks begin, inner, last and single tokens.

    Raises:
        ValueError: the scheme is unknown, or entities overlap, are empty or outside the sentence.
    """
    if scheme not in ("IOB1", "IOB2", "BILOU"):
        raise ValueError(
            f"labels_from_spans: scheme must be one of IOB1, IOB2, BILOU, got {scheme!r}"
        )
    labels = ["O"] * length
    previous = EntitySpan("", 0, 0)
    for span in sorted(entities, key=lambda s: s.start):
        name, start, end = span
        if not previous.end <= start < end <= length:
            raise ValueError(
                f"labels_from_spans: entities must be disjoint spans within {length} tokens, "
                f"got {span}"
            )
        labels[start:end] = [f"I-{name}"] * (end - start)
        touches = previous.type == name and previous.end == start
        if scheme != "IOB1" or touches:
            labels[start] = f"B-{name}"
        if scheme == "BILOU":
            labels[end - 1] = f"L-{name}" if end - start > 1 else f"U-{name}"
        previous = span
    return labels


@dataclass(frozen=True)
class EntityScore:
    """The numbers of entities expected, predicted, and correct (type and both ends)."""

    expected: int = 0
    predicted: int = 0
    correct: int = 0

    @property
    def precision(self) -> float:
        """Correct / predicted, in [0, 1]; 0 where none was predicted."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Correct / expected, in [0, 1]; 0 where none was expected."""
        return self.correct / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, in [0, 1]."""
        total = self.expected + self.predicted
        return 2 * self.correct / total if total else 0.0


@dataclass(frozen=True)
class EntityScores:
    """The score over all entities, and that of each type."""

    micro: EntityScore
    by_type: dict[str, EntityScore]

    def __str__(self) -> str:
        rows = [("all", self.micro), *self.by_type.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(
            f"{name:{width}}  precision {s.precision:7.2%}  recall {s.recall:7.2%}  "
            f"F1 {s.f1:7.2%}  ({s.expected} in the data, {s.predicted} found)"
            for name, s in rows
        )


def entity_scores(
    expected: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> EntityScores:
    """Score predicted labels against the expected ones, by sentence, as conlleval counts.

    An entity is correct if its type, begin and end are (Tjong Kim Sang and De Meulder 2003,
    "Introduction to the CoNLL-2003 shared task").

    Raises:
        DataError: a label marks no entity (see `find_spans`).
        ValueError: sentences differ in number or length.
    """
    counts: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    for reference, prediction in zip(expected, predicted, strict=True):
        if len(reference) != len(prediction):
            raise ValueError(
                f"entity_scores: predicted must have {len(reference)} labels as in expected, "
                f"got {len(prediction)}"
            )
        true_spans, predicted_spans = set(find_spans(reference)), set(find_spans(prediction))
        for counter, spans in zip(
            counts, (true_spans, predicted_spans, true_spans & predicted_spans), strict=True
        ):
            counter.update(span.type for span in spans)
    types = sorted(counts[0].keys() | counts[1].keys())
    by_type = {name: EntityScore(*(counter[name] for counter in counts)) for name in types}
    return EntityScores(EntityScore(*(counter.total() for counter in counts)), by_type)
