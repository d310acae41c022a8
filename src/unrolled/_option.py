"""Fields of a configuration that carry their help line and range, and the checks of their values.

Imports nothing heavy: the command line builds its options from these fields.
"""

from dataclasses import Field, field, fields
from math import inf
from os import PathLike
from types import NoneType, UnionType
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast, get_args, get_origin

from unrolled._limits import brief

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["TYPES", "Metadata", "check", "metadata_of", "option", "range_text"]

T = TypeVar("T")


class Metadata(TypedDict):
    """What `option` stores in a field: its help line and its range."""

    help: str
    minimum: float | None
    above: float | None
    below: float | None
    choices: tuple[str, ...]


def option(
    default: T,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A dataclass field with its help line and its range: numbers of at least `minimum`, above
    `above` and below `below`, or one of the strings in `choices`."""
    metadata = Metadata(help=help, minimum=minimum, above=above, below=below, choices=choices)
    return field(default=default, metadata=cast(dict[str, object], metadata))


def metadata_of(option_field: Field[object]) -> Metadata:
    """The help line and the range of a field that `option` made."""
    return cast(Metadata, option_field.metadata)


def range_text(option_field: Field[object]) -> str:
    """The range of a field's numbers in words, such as "above 0 and below 1"; empty if there is
    none."""
    metadata = metadata_of(option_field)
    bounds = (
        ("at least", metadata["minimum"]),
        ("above", metadata["above"]),
        ("below", metadata["below"]),
    )
    words = [
        f"{word} {bound}" if isinstance(bound, int) else f"{word} {bound:g}"
        for word, bound in bounds
        if bound is not None and bound != inf
    ]
    finite = ["finite"] if metadata["below"] == inf else []
    return " and ".join(words + finite)


def check(config: "DataclassInstance") -> None:
    """Check the type and the range of every field of a configuration; None is in every range.

    Raises:
        ValueError: a value has another type or is out of range; the message names the field.
    """
    for option_field in fields(config):
        value = getattr(config, option_field.name)
        problem = _type_problem(value, option_field.type) or _range_problem(value, option_field)
        if problem:
            raise ValueError(f"{type(config).__name__}: {option_field.name} must {problem}")


def _range_problem(value: object, option_field: Field[object]) -> str | None:
    """What follows "must" in the message about a value out of range; None if it is in range."""
    if value is None:
        return None
    metadata = metadata_of(option_field)
    choices = metadata["choices"]
    if choices and value not in choices:
        return f"be one of {', '.join(choices)}, got {brief(value)}"
    if not isinstance(value, int | float):
        return None
    minimum, above, below = metadata["minimum"], metadata["above"], metadata["below"]
    in_range = (
        (minimum is None or value >= minimum)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    return None if in_range else f"be {range_text(option_field)}, got {value}"


def _type_problem(value: object, annotation: object) -> str | None:
    """What follows "must" in the message about a value of another type; None if the type fits.

    An integer is a valid float, and must fit 64 bits.
    """
    types: tuple[object, ...]
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if get_origin(annotation) is tuple:
        if isinstance(value, tuple | list) and all(isinstance(v, str | PathLike) for v in value):
            return None
        return f"be a list of strings, got {brief(value)}"
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "be below 2**63, got a larger number"
    fits = (is_integer and {int, float} & set(types)) or (isinstance(value, str) and str in types)
    if not fits and type(value) not in types:
        return f"be {' or '.join(TYPES[t] for t in types)}, got {brief(value)}"
    return None


TYPES: dict[object, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    NoneType: "null",
}
