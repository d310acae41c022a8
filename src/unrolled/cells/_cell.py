"""``Cell``, the base class of all cells.

``_bound`` runs one step of a cell on given parameters, ``_checks`` checks a declaration, and
``_frozen`` makes cells immutable and comparable by their settings.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from unrolled.cells import _checks as checks
from unrolled.cells._declaration import (
    ROTATIONS,
    CellError,
    ParameterSpec,
    Product,
    ProductDeclaration,
    Size,
    Sizes,
    Vector,
    parameter_names,
)
from unrolled.cells._frozen import FrozenAttributes, attributes_of
from unrolled.cells._values import State, Value

_STANDARD_PRODUCTS = ("input", "recurrent")


class Cell(FrozenAttributes):
    """A recurrent cell: its equations, and the names that they use.

    Subclasses declare

    - ``gates``: names of the gates that the input and the recurrent product feed, in the order of
      their blocks in ``weight_ih`` and ``weight_hh``. A cell without gates has one block, and ``x``
      and ``h`` are vectors.
    - ``states``: names of the values carried from step to step. The first is the output, which the
      recurrent product multiplies. ``widths`` holds the sizes of states whose width is not H.
    - ``input``, ``recurrent``: the two standard products, where they do not feed all gates
      (``recurrent = product("r", "z")``) or are absent (``recurrent = None``).
    - ``forget_gates``, ``input_gates``: the gates (or the vectors that are their biases) that keep
      the state while they are open, and those that overwrite it. The chrono initialisation reads
      them.
    - further products and vectors, by :func:`product` and :func:`vector`.

    and define ``step(self, x, h, state)``, which returns a tuple of the new states, or the new
    state if there is only one. Attributes set in ``__init__`` are settings of the cell, not
    parameters. They cannot be changed after ``__init__``: ``cell.replace(name=value)`` returns
    another cell. Cells of one class with equal settings are equal.

    Raises:
        CellError: when a subclass is defined whose names or ``step`` contradict each other.
    """

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    widths: ClassVar[Mapping[str, Size]] = {}
    forget_gates: ClassVar[tuple[str, ...]] = ()
    input_gates: ClassVar[tuple[str, ...]] = ()
    input: ProductDeclaration
    recurrent: ProductDeclaration | None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        declared = vars(cls)
        for name in ("gates", "states"):
            checks.check_names(cls, name, getattr(cls, name))
        for name in _STANDARD_PRODUCTS:
            new_gates = "gates" in declared and getattr(cls, name, cls) is not None
            if name not in declared and (new_gates or not hasattr(cls, name)):
                setattr(cls, name, Product(cls.gates))
        for name in _STANDARD_PRODUCTS:
            checks.check_product(cls.__name__, name, getattr(cls, name), cls.gates)
        if unknown := set(cls.widths) - set(cls.states):
            raise CellError(
                f"cell {cls.__name__}: widths must name states, got {min(unknown)!r}, which is not "
                f"one of {', '.join(map(repr, cls.states))}"
            )
        for role in ("forget_gates", "input_gates"):
            if "gates" in declared and role not in declared:
                setattr(cls, role, ())
            checks.check_names(cls, role, getattr(cls, role))
            for name in getattr(cls, role):
                if name not in cls.gates and not isinstance(getattr(cls, name, None), Vector):
                    raise CellError(
                        f"cell {cls.__name__}: {role} must name gates or vectors, got {name!r}"
                    )
        for name, value in declared.items():
            if isinstance(value, Product | Vector) and name in _RESERVED:
                raise CellError(f"cell {cls.__name__}: {name!r} cannot be declared, Cell has it")
        if "step" in declared:
            checks.check_step_signature(cls.__name__, cls.step)

    def step(self, x: Any, h: Any, state: State) -> Value | tuple[Value, ...]:
        """The equations: states at t from the input products x, the recurrent products h and the
        states at t-1.

        ``x`` and ``h`` are :class:`Gates`, or a :class:`Value` each if the cell declares no gates.
        """
        raise CellError(f"cell {type(self).__name__}: step must be defined")

    def prepare(self, parameters: dict[str, Any]) -> Mapping[str, Any]:
        """Compute the weights that the sweep uses from the stored ones; called once per call of a
        layer."""
        return parameters

    @property
    def output(self) -> str:
        """Name of the output state."""
        return self.states[0]

    def _attributes(self) -> dict[str, object]:
        """Attributes of the class and of the instance in the order of definition, starting with
        the base classes."""
        merged: dict[str, object] = {}
        for cls in reversed(type(self).__mro__):
            merged.update(vars(cls))
        merged.update(vars(self))
        return merged

    @property
    def vectors(self) -> dict[str, Vector]:
        """Parameter vectors by name."""
        cached: dict[str, Vector] | None = vars(self).get("_vectors")
        if cached is None:
            cached = {n: v for n, v in self._attributes().items() if isinstance(v, Vector)}
            vars(self)["_vectors"] = cached
        return cached

    def products(self, sizes: Sizes) -> dict[str, ProductDeclaration]:
        """All products by name, ``input`` and ``recurrent`` first; ``hr`` projects the output."""
        cached: dict[Sizes, dict[str, ProductDeclaration]] = vars(self).setdefault("_products", {})
        if sizes not in cached:
            cached[sizes] = self._resolve_products(sizes)
        return cached[sizes]

    def _resolve_products(self, sizes: Sizes) -> dict[str, ProductDeclaration]:
        declared = {n: p for n, p in self._attributes().items() if isinstance(p, Product)}
        standard = {"input": replace(declared.pop("input"), source="I")}
        if "recurrent" in declared:
            source = self.widths.get(self.output, "P")
            standard["recurrent"] = replace(declared.pop("recurrent"), source=source)
        if sizes.projected:
            standard["hr"] = Product(width="P", bias=False)
        return standard | declared

    def state_widths(self, sizes: Sizes) -> tuple[int, ...]:
        """The width of each state, in the order of ``states``."""
        default = {self.output: "P"}
        return tuple(
            sizes.resolve(self.widths.get(name, default.get(name, "H"))) for name in self.states
        )

    def parameters(self, sizes: Sizes, bias: bool = True) -> dict[str, ParameterSpec]:
        """Names and shapes, in torch.nn's order: both weights, both biases, then the others.

        Raises:
            CellError: the number of blocks of a product does not divide its width or its source.
        """
        weights: dict[str, ParameterSpec] = {}
        biases: dict[str, ParameterSpec] = {}
        further: dict[str, ParameterSpec] = {}

        def add(group: dict[str, ParameterSpec], name: str, spec: ParameterSpec) -> None:
            if any(name in names for names in (weights, biases, further)):
                raise CellError(f"cell {type(self).__name__}: two parameters are called {name!r}")
            group[name] = spec

        for name, p in self.products(sizes).items():
            M, K = sizes.resolve(p.width) * p.parts, sizes.resolve(p.source)
            checks.check_blocks(type(self).__name__, name, p, M // p.parts, K)
            if p.init == ROTATIONS and M != K:
                raise CellError(
                    f"cell {type(self).__name__}: product {name!r} must have a square weight to "
                    f"be initialised with rotations, got [{M}, {K}]"
                )
            weight, offset = parameter_names(name)
            standard = name in _STANDARD_PRODUCTS
            add(weights if standard else further, weight, ParameterSpec((M, K // p.blocks), p.init))
            if bias and p.bias:
                add(biases if standard else further, offset, ParameterSpec((M,)))
        for name, v in self.vectors.items():
            if bias or not v.bias:
                add(further, name, ParameterSpec((sizes.resolve(v.size),), v.init))
        return weights | biases | further

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{name}={getattr(value, '__name__', value)}"
            for name, value in attributes_of(self).items()
            if not isinstance(value, Product | Vector) and not name.startswith("_")
        )
        return f"{type(self).__name__}({settings})"


_RESERVED = frozenset(dir(Cell)) - {*_STANDARD_PRODUCTS, "__doc__", "__module__", "__dict__"}


def check_cell(cell: Cell) -> None:
    """Check the attributes that ``__init__`` has set.

    Raises:
        CellError: the cell defines no ``step``, or an attribute hides one that ``Cell`` has.
    """
    name = type(cell).__name__
    if type(cell).step is Cell.step:
        raise CellError(f"cell {name}: step must be defined")
    for key in _STANDARD_PRODUCTS:
        checks.check_product(name, key, getattr(cell, key), cell.gates)
    checks.check_attributes(name, cell.widths, attributes_of(cell), _RESERVED)
