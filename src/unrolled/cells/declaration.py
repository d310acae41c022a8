"""What a cell declares, and what follows from it: parameters and their shapes.

Here is the form that all cells share; their equations are in the files beside it, one step of them
with parameters in ``bound``.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from unrolled.cells.settings import check_settings

Size = int | str
Init = float | tuple[float, float] | None
ROTATIONS = "rotations"

_FOUND = ("_found", "_texts", "_whole", "_version")


class CellError(TypeError):
    """A cell's declaration or step contradicts itself; the message names the cell and the fault."""


@dataclass(frozen=True)
class Product:
    """A matrix product W v + b of the cell; see :func:`product`."""

    targets: tuple[str, ...] = ()
    source: Size = "H"
    width: Size = "H"
    bias: bool = True
    blocks: int = 1
    init: Init | str = None

    def __call__(self, v: Any) -> Any:
        raise CellError("a product has no weights outside of step")


@dataclass(frozen=True)
class Vector:
    """A parameter vector of the cell; see :func:`vector`."""

    size: Size = "H"
    init: Init = None
    bias: bool = False


def product(
    *targets: str,
    source: Size = "H",
    width: Size = "H",
    bias: bool = True,
    blocks: int = 1,
    init: Init | str = None,
) -> Any:
    """Declare a matrix product of a cell's own, W v + b, applied in ``step`` as ``self.name(v)``.

    Parameters ``weight_name`` and, if ``bias``, ``bias_name``. With targets the result has one
    vector of ``width`` for each (``self.name(v).target``), stacked in the weight in their order;
    without, the result is one vector. Sizes are numbers or letters: I (input), H (hidden), P (the
    output state: ``proj_size``, or H). ``blocks`` makes the matrix block-diagonal: within each
    target, block k of the result sees only block k of v. ``init`` is as for a vector, of the
    weight; "rotations" starts a square one as ``unrolled.nn.init.rotations_`` does.
    """
    _check_targets(targets)
    if not isinstance(blocks, int) or blocks < 1:
        raise CellError(f"product: blocks must be a positive int, got {blocks!r}")
    for name, size in (("source", source), ("width", width)):
        _check_size("product", name, size)
    if init != ROTATIONS:
        _check_init("product", init)
    return Product(targets, source, width, bias, blocks, init)


def vector(size: Size = "H", init: Init = None, bias: bool = False) -> Any:
    """Declare a parameter vector of a cell's own, in ``step`` ``self.name``.

    ``size`` 1 is a number shared by all units. ``init`` is a starting value, or a pair (low, high)
    between which it is drawn (else it is drawn as the weights are); with ``bias`` the vector is 0
    in layers built with ``bias=False``.
    """
    _check_size("vector", "size", size)
    _check_init("vector", init)
    return Vector(size, init, bias)


@dataclass(frozen=True)
class ParameterSpec:
    """Shape of one parameter, and what it starts from: a constant, a range to draw from, the name
    of a way to draw, or (None) the range of the weights."""

    shape: tuple[int, ...]
    init: Init | str = None


@dataclass(frozen=True)
class Sizes:
    """The letters of one layer: I inputs, H hidden units, P width of the output state."""

    I: int  # noqa: E741
    H: int
    P: int

    @property
    def projected(self) -> bool:
        return self.P != self.H

    def resolve(self, size: Size) -> int:
        return size if isinstance(size, int) else int(getattr(self, size))


class Gates:
    """The results of one product, by name: ``x.r``, ``h.z``."""

    def __init__(self, names: tuple[str, ...], values: Any) -> None:
        self.__dict__.update(zip(names, values, strict=True))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no gate {name!r} among {', '.join(map(repr, self.__dict__))}")


class States:
    """The states before the step, by name: ``state.h``, ``state.c``."""

    def __init__(self, names: tuple[str, ...], values: Any) -> None:
        self.__dict__.update(zip(names, values, strict=True))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no state {name!r} among {', '.join(map(repr, self.__dict__))}")


class Cell:
    """A recurrent cell: its equations, and the names that they use.

    Subclasses declare

    - ``gates``: names of what the input and the recurrent product feed, in the order of their
      blocks in ``weight_ih`` and ``weight_hh``. Without: one gate, ``x`` and ``h`` are vectors.
    - ``states``: names of what is carried from step to step. The first is the output and what the
      recurrent product multiplies. ``widths`` holds the sizes of those that differ from H.
    - ``input``, ``recurrent``: the two usual products, where they do not feed all gates
      (``recurrent = product("r", "z")``) or are absent (``recurrent = None``).
    - ``keeps``, ``writes``: the gates, or the vectors that are their biases, which keep the state
      while they are open, and which write over it. The chrono initialisation goes by them.
    - further products and vectors of its own, by :func:`product` and :func:`vector`.

    and define ``step(self, x, h, state)``, which returns the new states in their order (one state:
    just that). Attributes set in ``__init__`` are settings of the cell, not parameters.

    Raises:
        CellError: when a subclass is defined with names or a ``step`` that do not fit together.
    """

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    widths: ClassVar[Mapping[str, Size]] = {}
    keeps: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    input: Any
    recurrent: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        for name in ("gates", "states"):
            _check_names(cls, name, getattr(cls, name))
        for name in ("input", "recurrent"):
            refill = "gates" in own and getattr(cls, name, cls) is not None
            if name not in own and (refill or not hasattr(cls, name)):
                setattr(cls, name, Product(cls.gates))
        for name in ("input", "recurrent"):
            _check_product(cls.__name__, name, getattr(cls, name), cls.gates)
        if unknown := set(cls.widths) - set(cls.states):
            raise CellError(
                f"cell {cls.__name__}: widths names {min(unknown)!r}, which is no state"
            )
        for role in ("keeps", "writes"):
            if "gates" in own and role not in own:
                setattr(cls, role, ())
            _check_names(cls, role, getattr(cls, role))
            for name in getattr(cls, role):
                if name not in cls.gates and not isinstance(getattr(cls, name, None), Vector):
                    raise CellError(
                        f"cell {cls.__name__}: {role} has {name!r}, which is no gate and no vector"
                    )
        for name, value in own.items():
            if isinstance(value, Product | Vector) and name in _TAKEN:
                raise CellError(f"cell {cls.__name__}: {name!r} cannot be declared, Cell has it")
        if "step" in own:
            _check_step(cls)

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """A cell; what its ``__init__`` does not take may be meant for a layer."""
        if args or settings:
            check_settings(cls, args, settings)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name[0] != "_":
            vars(self)["_version"] = self.version + 1

    @property
    def version(self) -> int:
        """How often a setting was set: a program holds for the settings that it was traced with."""
        return vars(self).get("_version", 0)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        """The equations: states at t from the input products x, the recurrent products h and the
        states at t-1."""
        raise CellError(f"cell {type(self).__name__} defines no step")

    def prepare(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Weights as the sweep uses them, from the stored ones; runs once per call."""
        return parameters

    @property
    def output(self) -> str:
        """Name of the output state."""
        return self.states[0]

    def _declared(self, kind: type) -> dict[str, Any]:
        """Products or vectors by name, in the order of their declaration, base classes first."""
        merged: dict[str, Any] = {}
        for cls in reversed(type(self).__mro__):
            merged.update(vars(cls))
        merged.update(vars(self))
        return {name: value for name, value in merged.items() if isinstance(value, kind)}

    @property
    def vectors(self) -> dict[str, Vector]:
        """Parameter vectors by name."""
        known = self._once()
        if "vectors" not in known:
            known["vectors"] = self._declared(Vector)
        return known["vectors"]

    def products(self, sizes: Sizes) -> dict[str, Product]:
        """All products by name, the usual two first; ``hr`` is the projection of the output."""
        known = self._once()
        if sizes not in known:
            known[sizes] = self._resolve_products(sizes)
        return known[sizes]

    def __getstate__(self) -> dict[str, Any]:
        """What is found again on demand is neither copied nor pickled."""
        return {name: value for name, value in list(vars(self).items()) if name not in _FOUND}

    def _once(self) -> dict[Any, Any]:
        """What this instance declares, found once: a step is too short to search each time."""
        known: dict[Any, Any] = vars(self).setdefault("_found", {})
        return known

    def _resolve_products(self, sizes: Sizes) -> dict[str, Product]:
        found: dict[str, Product] = self._declared(Product)
        usual = {"input": replace(found.pop("input"), source="I")}
        if "recurrent" in found:
            source = self.widths.get(self.output, "P")
            usual["recurrent"] = replace(found.pop("recurrent"), source=source)
        if sizes.projected:
            usual["hr"] = Product(width="P", bias=False)
        return usual | found

    def state_widths(self, sizes: Sizes) -> tuple[int, ...]:
        """Units of each state, in their order."""
        default = {self.output: "P"}
        return tuple(
            sizes.resolve(self.widths.get(name, default.get(name, "H"))) for name in self.states
        )

    def parameters(self, sizes: Sizes, bias: bool = True) -> dict[str, ParameterSpec]:
        """Names and shapes, in torch.nn's order: both weights, both biases, then the cell's own.

        Raises:
            CellError: the blocks of a product do not divide its width or its source.
        """
        groups: list[dict[str, ParameterSpec]] = [{}, {}, {}]
        for name, p in self.products(sizes).items():
            W, K = sizes.resolve(p.width), sizes.resolve(p.source)
            if W % p.blocks or K % p.blocks:
                raise CellError(
                    f"cell {type(self).__name__}: product {name!r} has {p.blocks} blocks, which do "
                    f"not divide its width {W} and its source {K}"
                )
            M = W * max(1, len(p.targets))
            if p.init == ROTATIONS and M != K:
                raise CellError(
                    f"cell {type(self).__name__}: product {name!r} starts at rotations, which a "
                    f"weight [{M}, {K}] cannot"
                )
            weight, offset = parameter_names(name)
            usual = name in ("input", "recurrent")
            self._add(groups, 0 if usual else 2, weight, ParameterSpec((M, K // p.blocks), p.init))
            if bias and p.bias:
                self._add(groups, 1 if usual else 2, offset, ParameterSpec((M,)))
        for name, v in self.vectors.items():
            if bias or not v.bias:
                self._add(groups, 2, name, ParameterSpec((sizes.resolve(v.size),), v.init))
        return groups[0] | groups[1] | groups[2]

    def _add(
        self, groups: list[dict[str, ParameterSpec]], at: int, name: str, spec: ParameterSpec
    ) -> None:
        if any(name in group for group in groups):
            raise CellError(f"cell {type(self).__name__}: two parameters are called {name!r}")
        groups[at][name] = spec

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{name}={getattr(value, '__name__', value)}"
            for name, value in list(vars(self).items())
            if not isinstance(value, Product | Vector) and not name.startswith("_")
        )
        return f"{type(self).__name__}({settings})"


_TAKEN = frozenset(dir(Cell)) - {"input", "recurrent", "__doc__", "__module__", "__dict__"}


def parameter_names(product_name: str) -> tuple[str, str]:
    """Weight and bias of a product: torch.nn's names for the usual two, else the product's own."""
    short = {"input": "ih", "recurrent": "hh"}.get(product_name, product_name)
    return f"weight_{short}", f"bias_{short}"


def check_cell(cell: Cell) -> None:
    """Check what an instance has become by its ``__init__``.

    Raises:
        CellError: it defines no step, or an attribute took the place of what a cell must have.
    """
    name = type(cell).__name__
    if type(cell).step is Cell.step:
        raise CellError(f"cell {name} defines no step")
    for key in ("input", "recurrent"):
        _check_product(name, key, getattr(cell, key), cell.gates)
    for state, size in cell.widths.items():
        _check_size(f"cell {name}: widths", state, size)
    for key, value in list(vars(cell).items()):
        if key in _TAKEN - {"gates", "states", "widths"} or (
            key == "hr" and not isinstance(value, Product)
        ):
            raise CellError(f"cell {name}: a setting cannot be called {key!r}, Cell has it")
        if isinstance(value, Product):
            _check_targets(value.targets)


def _check_targets(targets: tuple[str, ...]) -> None:
    for target in targets:
        if not isinstance(target, str) or not target.isidentifier():
            raise CellError(f"product: a target must be the name of an attribute, got {target!r}")
    if len(set(targets)) != len(targets):
        raise CellError(f"product: the same target twice: {targets!r}")


def _check_size(what: str, name: str, size: Size) -> None:
    if size not in ("I", "H", "P") and not (isinstance(size, int) and size > 0):
        raise CellError(f"{what}: {name} must be I, H, P or a positive int, got {size!r}")


def _check_init(what: str, init: Any) -> None:
    ends = init if isinstance(init, tuple) and len(init) == 2 else (init,)
    if init is not None and not all(isinstance(end, int | float) for end in ends):
        raise CellError(f"{what}: init must be a number, a pair (low, high) or None, got {init!r}")


def _check_names(cls: type, attribute: str, names: Any) -> None:
    who = f"cell {cls.__name__}: {attribute}"
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise CellError(f"{who} must be a tuple of names, got {names!r}")
    for name in names:
        if not name.isidentifier() or name.startswith("_"):
            raise CellError(f"{who} holds {name!r}, which cannot be the name of an attribute")
    if len(set(names)) != len(names):
        raise CellError(f"{who} names the same one twice: {names!r}")
    if attribute == "states" and not names:
        raise CellError(f"{who} is empty: a recurrent cell carries at least one state")


def _check_product(cell: str, name: str, declared: Any, gates: tuple[str, ...]) -> None:
    if declared is None and name == "recurrent":
        return
    if not isinstance(declared, Product):
        raise CellError(f"cell {cell}: {name} must be a product(...), got {declared!r}")
    if unknown := [target for target in declared.targets if target not in gates]:
        raise CellError(
            f"cell {cell}: {name} feeds {unknown[0]!r}, which is not among the gates {gates!r}"
        )


def _check_step(cls: type[Cell]) -> None:
    wanted = ["self", "x", "h", "state"]
    found = list(inspect.signature(cls.step).parameters)
    if len(found) != len(wanted):
        raise CellError(
            f"cell {cls.__name__}: step takes ({', '.join(found)}), wanted ({', '.join(wanted)})"
        )
