"""The declarations of a cell: products, vectors and their sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, overload

from unrolled.cells._values import Gates, Value

Size = int | str
Init = float | tuple[float, float] | None
Result_co = TypeVar("Result_co", Value, Gates, covariant=True)

ROTATIONS = "rotations"


class CellError(TypeError):
    """A cell's declaration or step is inconsistent; the message names the cell and the reason."""


@dataclass(frozen=True)
class Product(Generic[Result_co]):
    """A matrix product W v + b of the cell; see :func:`product`."""

    targets: tuple[str, ...] = ()
    source: Size = "H"
    width: Size = "H"
    bias: bool = True
    blocks: int = 1
    init: Init | str = None

    @property
    def parts(self) -> int:
        """The number of vectors in the result: one for each target."""
        return max(1, len(self.targets))

    def __call__(self, v: Value) -> Result_co:
        raise CellError("a product has no weights outside of step")


ProductDeclaration = Product[Value] | Product[Gates]
"""A product whose result is one vector, or one for each of its targets."""


@dataclass(frozen=True)
class Vector:
    """A parameter vector of the cell; see :func:`vector`."""

    size: Size = "H"
    init: Init = None
    bias: bool = False


@overload
def product(
    *,
    source: Size = "H",
    width: Size = "H",
    bias: bool = True,
    blocks: int = 1,
    init: Init | str = None,
) -> Product[Value]: ...


@overload
def product(
    target: str,
    /,
    *targets: str,
    source: Size = "H",
    width: Size = "H",
    bias: bool = True,
    blocks: int = 1,
    init: Init | str = None,
) -> Product[Gates]: ...


def product(
    *targets: str,
    source: Size = "H",
    width: Size = "H",
    bias: bool = True,
    blocks: int = 1,
    init: Init | str = None,
) -> Product[Value] | Product[Gates]:
    """Declare a matrix product W v + b, which ``step`` applies as ``self.name(v)``.

    Its parameters are ``weight_name`` and, if ``bias``, ``bias_name``. With targets the result has
    a vector of ``width`` for each target (``self.name(v).target``), stacked in the weight in their
    order; without targets the result is one vector. Sizes are numbers or letters: I (input), H
    (hidden), P (the output state: ``proj_size``, or H). ``blocks`` makes the matrix block-diagonal:
    within each target, block k of the result reads only block k of v. ``init`` initialises the
    weight, with values as for a vector; "rotations" calls ``unrolled.nn.init.rotations_`` for a
    square weight.
    """
    check_targets(targets)
    if not isinstance(blocks, int) or blocks < 1:
        raise CellError(f"product: blocks must be a positive int, got {blocks!r}")
    for name, size in (("source", source), ("width", width)):
        check_size("product", name, size)
    if init != ROTATIONS:
        _check_init("product", init)
    return Product(targets, source, width, bias, blocks, init)


def vector(size: Size = "H", init: Init = None, bias: bool = False) -> Value:
    """Declare a parameter vector, which ``step`` reads as ``self.name``.

    ``size`` 1 is a number shared by all units. ``init`` is an initial value, or a pair (low, high)
    for a uniform distribution; by default the vector is initialised as the weights are. With
    ``bias`` the vector is 0 in layers built with ``bias=False``.

    The result has the type of ``self.name`` in ``step``.
    """
    check_size("vector", "size", size)
    _check_init("vector", init)
    return cast(Value, Vector(size, init, bias))


@dataclass(frozen=True)
class ParameterSpec:
    """Shape of one parameter, and its initialisation: a constant, the range of a uniform
    distribution, a name, or None for the distribution of the weights."""

    shape: tuple[int, ...]
    init: Init | str = None


@dataclass(frozen=True)
class Sizes:
    """The sizes of one layer: I inputs, H hidden units, P width of the output state."""

    I: int  # noqa: E741
    H: int
    P: int

    @property
    def projected(self) -> bool:
        """Whether the output state passes through a projection."""
        return self.P != self.H

    def resolve(self, size: Size) -> int:
        """The number that a letter stands for."""
        return size if isinstance(size, int) else int(getattr(self, size))


def parameter_names(product_name: str) -> tuple[str, str]:
    """The names of a product's weight and bias, as in torch.nn for ``input`` and ``recurrent``."""
    short = {"input": "ih", "recurrent": "hh"}.get(product_name, product_name)
    return f"weight_{short}", f"bias_{short}"


def check_targets(targets: Sequence[str]) -> None:
    """Raise a CellError unless the targets can be names of gates."""
    for target in targets:
        if not isinstance(target, str) or not target.isidentifier():
            raise CellError(f"product: a target must be an attribute name, got {target!r}")
    if len(set(targets)) != len(targets):
        raise CellError(f"product: targets must differ, got {targets!r}")


def check_size(owner: str, name: str, size: object) -> None:
    """Raise a CellError unless the size is a letter or a positive number."""
    if size not in ("I", "H", "P") and not (isinstance(size, int) and size > 0):
        raise CellError(f"{owner}: {name} must be I, H, P or a positive int, got {size!r}")


def _check_init(owner: str, init: object) -> None:
    bounds: Sequence[object] = init if isinstance(init, tuple) and len(init) == 2 else (init,)
    if init is not None and not all(isinstance(bound, int | float) for bound in bounds):
        raise CellError(f"{owner}: init must be a number, a pair (low, high) or None, got {init!r}")
