"""Checks of a cell's declaration: names, sizes, products, the signature of ``step``."""

import inspect
from collections.abc import Callable, Collection, Mapping

from unrolled.cells._declaration import (
    CellError,
    Product,
    ProductDeclaration,
    Size,
    check_size,
    check_targets,
)


def check_names(cls: type, attribute: str, names: object) -> None:
    """Raise a CellError unless an attribute is a tuple of distinct names."""
    subject = f"cell {cls.__name__}: {attribute}"
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise CellError(f"{subject} must be a tuple of names, got {names!r}")
    for name in names:
        if not name.isidentifier() or name.startswith("_"):
            raise CellError(f"{subject} must be names of attributes, got {name!r}")
    if len(set(names)) != len(names):
        raise CellError(f"{subject} must differ from one another, got {names!r}")
    if attribute == "states" and not names:
        raise CellError(f"{subject} must have at least one name: that of the output")


def check_product(cell: str, name: str, declared: object, gates: tuple[str, ...]) -> None:
    """Raise a CellError unless ``input`` or ``recurrent`` is a product for gates of the cell."""
    if declared is None and name == "recurrent":
        return
    if not isinstance(declared, Product):
        raise CellError(f"cell {cell}: {name} must be a product(...), got {declared!r}")
    if unknown := [target for target in declared.targets if target not in gates]:
        raise CellError(
            f"cell {cell}: {name} must feed gates, got {unknown[0]!r}, which is not among {gates!r}"
        )


def check_blocks(
    cell: str, name: str, declared: ProductDeclaration, width: int, source: int
) -> None:
    """Raise a CellError unless the blocks of a product divide its width and its source."""
    if width % declared.blocks or source % declared.blocks:
        raise CellError(
            f"cell {cell}: the blocks of product {name!r} must divide its width and its source, "
            f"got {declared.blocks} blocks, width {width} and source {source}"
        )


def check_step_signature(cell: str, step: Callable[..., object]) -> None:
    """Raise a CellError unless ``step`` takes (self, x, h, state)."""
    expected = ["self", "x", "h", "state"]
    arguments = list(inspect.signature(step).parameters)
    if len(arguments) != len(expected):
        raise CellError(
            f"cell {cell}: step must take ({', '.join(expected)}), got ({', '.join(arguments)})"
        )


def check_attributes(
    cell: str,
    widths: Mapping[str, Size],
    attributes: Mapping[str, object],
    reserved: Collection[str],
) -> None:
    """Raise a CellError if a width is not a size, or a setting hides a member of ``Cell``."""
    for state, size in widths.items():
        check_size(f"cell {cell}: widths", state, size)
    for key, value in list(attributes.items()):
        hidden = key in reserved and key not in ("gates", "states", "widths")
        if hidden or (key == "hr" and not isinstance(value, Product)):
            raise CellError(f"cell {cell}: a setting cannot be called {key!r}, Cell has it")
        if isinstance(value, Product):
            check_targets(value.targets)
