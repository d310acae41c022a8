"""Traces a cell's ``step``: it runs once on tracers, and each operation adds a node to a graph."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from unrolled import cells
from unrolled.cells import Cell, CellError, Sizes
from unrolled.cells._declaration import ProductDeclaration
from unrolled.cells._frozen import copy_with
from unrolled.cells._values import Gates, Operand, State
from unrolled.program import _graph as graph
from unrolled.program._graph import Node, NodeGraph, ProgramError, Width
from unrolled.program._operations import OPERATIONS

_SYMBOLS = Sizes(I=-1, H=-2, P=-3)
_PACKAGES = tuple(str(Path(module.__file__ or "").parent) for module in (cells, graph))


class TraceError(ProgramError):
    """A step cannot be traced; the message names the cell, the operation and the line."""


@dataclass(frozen=True)
class Traced:
    """One step of a cell as a graph, its new states, and the names of the step's variables."""

    cell: Cell
    projected: bool
    graph: NodeGraph
    states: tuple[Node, ...]
    names: dict[int, str]
    products: dict[str, ProductDeclaration]


def trace(cell: Cell, projected: bool = False) -> Traced:
    """Trace one step of a cell.

    ``projected`` says whether the output state passes through the projection ``hr`` to a separate
    width P; otherwise P is H.

    Raises:
        TraceError: the step branches on values, calls a function without an operation, or combines
            unequal widths.
        CellError: the step returns a different number of states than the cell declares.
    """
    recorder = _Recorder(cell, projected)
    return recorder.run()


class Tracer:
    """Stands for a vector while a step is traced; every operation on it adds a node."""

    __array_ufunc__ = None  # NumPy defers its operators instead of looping over objects

    def __init__(self, recorder: "_Recorder", node: Node) -> None:
        self._recorder = recorder
        self._node = node

    def __cell_function__(self, name: str, *args: object) -> "Tracer":
        if name in ("linear", "split"):
            raise ProgramError(f"{name} on arrays: declare a product of the cell instead")
        return self._recorder.apply(name, *args)

    def __add__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("add", self, operand)

    def __radd__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("add", operand, self)

    def __sub__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("sub", self, operand)

    def __rsub__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("sub", operand, self)

    def __mul__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("mul", self, operand)

    def __rmul__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("mul", operand, self)

    def __truediv__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("div", self, operand)

    def __rtruediv__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("div", operand, self)

    def __pow__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("pow", self, operand)

    def __rpow__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("pow", operand, self)

    def __neg__(self) -> "Tracer":
        return self._recorder.apply("neg", self)

    def __abs__(self) -> "Tracer":
        return self._recorder.apply("abs", self)

    def __lt__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("lt", self, operand)

    def __le__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("le", self, operand)

    def __gt__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("lt", operand, self)

    def __ge__(self, operand: Operand) -> "Tracer":
        return self._recorder.apply("le", operand, self)

    def __eq__(self, operand: object) -> "Tracer":  # type: ignore[override]
        return self._recorder.apply("eq", self, operand)

    def __ne__(self, operand: object) -> "Tracer":  # type: ignore[override]
        return self._recorder.apply("ne", self, operand)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ProgramError("a branch on a value; use where(condition, a, b)")

    def __float__(self) -> float:
        raise ProgramError("a conversion to a number")

    __int__ = __index__ = __float__

    def __iter__(self) -> Iterator[object]:
        raise ProgramError("a loop over the units of a vector")

    def __getitem__(self, index: object) -> object:
        raise ProgramError("indexing units of a vector")

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"{name!r} of a vector; use the functions of unrolled.cells")


class _TracedProduct:
    """Stands for a product of the cell while a step is traced."""

    def __init__(self, recorder: "_Recorder", name: str, declared: ProductDeclaration) -> None:
        self.recorder = recorder
        self.name = name
        self.declared = declared

    def __call__(self, v: object) -> Gates | Tracer:
        if not isinstance(v, Tracer):
            raise ProgramError(f"product {self.name!r}: argument must be a vector, got {v!r}")
        source = self.recorder.width(self.declared.source)
        if v._node.width != source:
            raise ProgramError(
                f"product {self.name!r}: argument must have width {source}, got {v._node.width}"
            )
        if self.recorder.sources.setdefault(self.name, v._node) is not v._node:
            raise ProgramError(f"product {self.name!r}: argument must be one vector, got two")
        width = self.recorder.width(self.declared.width)
        targets = self.declared.targets
        graph = self.recorder.graph
        blocks = [
            Tracer(self.recorder, graph.product("product", (v._node,), (self.name, k), width))
            for k in range(self.declared.parts)
        ]
        return Gates(targets, blocks) if targets else blocks[0]


class _Recorder:
    """Traces one cell once."""

    def __init__(self, cell: Cell, projected: bool) -> None:
        self.cell = cell
        self.projected = projected
        self.graph = NodeGraph()
        self.locals: dict[str, object] = {}
        self.sources: dict[str, Node] = {}  # by product
        steps = [vars(cls)["step"] for cls in type(cell).__mro__ if "step" in vars(cls)]
        self.codes = {step.__code__ for step in steps if hasattr(step, "__code__")}
        sizes = _SYMBOLS if projected else Sizes(_SYMBOLS.I, _SYMBOLS.H, _SYMBOLS.H)
        self.products = cell.products(sizes)

    def width(self, size: int | str) -> Width:
        if size == "P" and not self.projected:
            return "H"
        return size

    def apply(self, name: str, *args: object) -> Tracer:
        return Tracer(self, self.graph.apply(name, *(self.node(arg) for arg in args)))

    def node(self, value: object) -> Node:
        if isinstance(value, Tracer):
            return value._node
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProgramError(f"operands must be vectors or numbers, got {type(value).__name__}")
        return self.graph.const(float(value))

    def run(self) -> Traced:
        products = {name: _TracedProduct(self, name, p) for name, p in self.products.items()}
        vectors = {
            name: Tracer(self, self.graph.leaf("vector", name, self.width(v.size)))
            for name, v in self.cell.vectors.items()
        }
        cell = copy_with(self.cell, {**products, **vectors})
        inputs = [
            Tracer(self, self.graph.leaf("state", name, self.width(self._state_width(name))))
            for name in self.cell.states
        ]
        x = self._input_products()
        h = products["recurrent"](inputs[0]) if "recurrent" in products else None
        result = self._run_step(cell, x, h, State(self.cell.states, inputs))
        new = result if isinstance(result, tuple) else (result,)
        if len(new) != len(self.cell.states):
            raise CellError(
                f"cell {type(self.cell).__name__}: step must return {len(self.cell.states)} "
                f"states, got {len(new)}"
            )
        if self.projected:
            new = (products["hr"](new[0]), *new[1:])
        states = tuple(self.node(value) for value in new)
        for name, node in zip(self.cell.states, states, strict=True):
            width = self.width(self._state_width(name))
            if node.width not in (1, width):
                raise TraceError(
                    f"cell {type(self.cell).__name__}: state {name!r} must have width {width}, "
                    f"got {node.width}"
                )
        names = self._variable_names()
        return Traced(self.cell, self.projected, self.graph, states, names, self.products)

    def _state_width(self, name: str) -> int | str:
        default = "P" if name == self.cell.output else "H"
        return self.cell.widths.get(name, default)

    def _input_products(self) -> Gates | Tracer:
        declared = self.products["input"]
        width = self.width(declared.width)
        names = declared.targets or ("",)
        blocks = [Tracer(self, self.graph.leaf("x", name, width)) for name in names]
        return Gates(declared.targets, blocks) if declared.targets else blocks[0]

    def _run_step(self, cell: Cell, x: object, h: object, state: State) -> object:
        """Run the step, record its local variables, and raise its errors as a TraceError."""
        profiler = sys.getprofile()
        sys.setprofile(self._record_locals)
        try:
            return cell.step(x, h, state)
        except CellError:
            raise
        except Exception as error:
            name = type(self.cell).__name__
            raise TraceError(
                f"cell {name}, {_line(error)}: no program for this: {error}"
            ) from error
        finally:
            sys.setprofile(profiler)

    def _record_locals(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "return" and frame.f_code in self.codes:
            self.locals.update(frame.f_locals)

    def _variable_names(self) -> dict[int, str]:
        """Local variables of the step that hold a computed vector."""
        names: dict[int, str] = {}
        for name, value in self.locals.items():
            if isinstance(value, Tracer) and value._node.op in OPERATIONS:
                names.setdefault(value._node.number, name)
        return names


def _line(error: Exception) -> str:
    """The innermost line of an error's traceback that is outside of this package and the cells."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(_PACKAGES)]
    frame = (outside or [frame for frame in frames if frame.name == "step"] or list(frames))[-1]
    return f"{frame.filename}:{frame.lineno} `{frame.line or 'step'}`"
