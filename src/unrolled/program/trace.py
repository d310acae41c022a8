"""From a cell's ``step`` to a program: run it once on tracers and keep what they record."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, CellError, Sizes
from unrolled.cells.declaration import Product
from unrolled.cells.frozen import copy_with
from unrolled.cells.values import Gates, State
from unrolled.program import graph
from unrolled.program.graph import Graph, Node, ProgramError, Width
from unrolled.program.operations import OPERATIONS

_SYMBOLS = Sizes(I=-1, H=-2, P=-3)
_ROOMS = tuple(str(Path(module.__file__ or "").parent) for module in (cells, graph))


class TraceError(ProgramError):
    """A step does what no program can; the message names the cell, the operation and the line."""


@dataclass(frozen=True)
class Traced:
    """What one step of a cell computes: the graph, the new states, and the step's own names."""

    cell: Cell
    projected: bool
    graph: Graph
    states: tuple[Node, ...]
    names: dict[int, str]
    products: dict[str, Product[Any]]


def trace(cell: Cell, projected: bool = False) -> Traced:
    """Record one step of a cell.

    ``projected`` says whether the output state has a width of its own, P, and passes through the
    projection ``hr``; without, P is H.

    Raises:
        TraceError: the step branches on values, calls what it cannot, or joins unequal widths.
        CellError: it returns another number of states than the cell declares.
    """
    recorder = _Recorder(cell, projected)
    return recorder.run()


class Tracer:
    """Stands for a vector while a step runs; every operation makes a node."""

    __array_ufunc__ = None  # NumPy hands its operators over instead of looping over objects

    def __init__(self, recorder: "_Recorder", node: Node) -> None:
        self._recorder = recorder
        self._node = node

    def __cell_function__(self, name: str, *args: Any) -> Any:
        if name in ("linear", "split"):
            raise ProgramError(f"{name} on arrays: declare a product of the cell instead")
        return self._recorder.apply(name, *args)

    def __add__(self, other: Any) -> Any:
        return self._recorder.apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._recorder.apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._recorder.apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._recorder.apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._recorder.apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._recorder.apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._recorder.apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._recorder.apply("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._recorder.apply("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._recorder.apply("pow", other, self)

    def __neg__(self) -> Any:
        return self._recorder.apply("neg", self)

    def __abs__(self) -> Any:
        return self._recorder.apply("abs", self)

    def __lt__(self, other: Any) -> Any:
        return self._recorder.apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return self._recorder.apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._recorder.apply("lt", other, self)

    def __ge__(self, other: Any) -> Any:
        return self._recorder.apply("le", other, self)

    def __eq__(self, other: object) -> Any:
        return self._recorder.apply("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return self._recorder.apply("ne", self, other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ProgramError("a branch on a value; use where(condition, a, b)")

    def __float__(self) -> float:
        raise ProgramError("a conversion to a number")

    __int__ = __index__ = __float__

    def __iter__(self) -> Any:
        raise ProgramError("a loop over the units of a vector")

    def __getitem__(self, index: Any) -> Any:
        raise ProgramError("indexing units of a vector")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name!r} of a vector; use the functions of unrolled.cells")


class _TracedProduct:
    """A product of the cell's own while a step runs."""

    def __init__(self, recorder: "_Recorder", name: str, declared: Product[Any]) -> None:
        self.recorder = recorder
        self.name = name
        self.declared = declared

    def __call__(self, v: Any) -> Any:
        if not isinstance(v, Tracer):
            raise ProgramError(f"product {self.name!r} of {v!r}, which is no vector")
        source = self.recorder.width(self.declared.source)
        if v._node.width != source:
            raise ProgramError(
                f"product {self.name!r} of a vector of width {v._node.width}, declared is {source}"
            )
        before = self.recorder.applied.setdefault(self.name, v._node)
        if before is not v._node:
            raise ProgramError(f"product {self.name!r} of two different vectors")
        width = self.recorder.width(self.declared.width)
        targets = self.declared.targets
        made = [
            Tracer(
                self.recorder,
                self.recorder.graph.product("product", (v._node,), (self.name, k), width),
            )
            for k in range(max(1, len(targets)))
        ]
        return Gates(targets, made) if targets else made[0]


class _Recorder:
    """One tracing of one cell."""

    def __init__(self, cell: Cell, projected: bool) -> None:
        self.cell = cell
        self.projected = projected
        self.graph = Graph()
        self.locals: dict[str, Any] = {}
        self.applied: dict[str, Node] = {}
        steps = [vars(cls)["step"] for cls in type(cell).__mro__ if "step" in vars(cls)]
        self.codes = {step.__code__ for step in steps if hasattr(step, "__code__")}
        sizes = _SYMBOLS if projected else Sizes(_SYMBOLS.I, _SYMBOLS.H, _SYMBOLS.H)
        self.products = cell.products(sizes)

    def width(self, size: int | str) -> Width:
        if size == "P" and not self.projected:
            return "H"
        return size

    def apply(self, name: str, *args: Any) -> Any:
        return Tracer(self, self.graph.apply(name, *(self.node(arg) for arg in args)))

    def node(self, value: Any) -> Node:
        if isinstance(value, Tracer):
            return value._node
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProgramError(f"a vector joined with {type(value).__name__}")
        return self.graph.const(float(value))

    def run(self) -> Traced:
        products = {name: _TracedProduct(self, name, p) for name, p in self.products.items()}
        vectors = {
            name: Tracer(self, self.graph.leaf("vector", name, self.width(v.size)))
            for name, v in self.cell.vectors.items()
        }
        cell = copy_with(self.cell, {**products, **vectors})
        states = [
            Tracer(self, self.graph.leaf("state", name, self.width(self._state_width(name))))
            for name in self.cell.states
        ]
        x = self._input_products()
        h = products["recurrent"](states[0]) if "recurrent" in products else None
        result = self._guarded(cell, x, h, State(self.cell.states, states))
        new = result if isinstance(result, tuple) else (result,)
        if len(new) != len(self.cell.states):
            raise CellError(
                f"cell {type(self.cell).__name__}: step must return {len(self.cell.states)} "
                f"states, got {len(new)}"
            )
        if self.projected:
            new = (products["hr"](new[0]), *new[1:])
        ends = tuple(self.node(value) for value in new)
        for name, node in zip(self.cell.states, ends, strict=True):
            if node.width not in (1, wanted := self.width(self._state_width(name))):
                raise TraceError(
                    f"cell {type(self.cell).__name__}: state {name!r} has width {node.width}, "
                    f"declared is {wanted}"
                )
        return Traced(self.cell, self.projected, self.graph, ends, self._names(), self.products)

    def _state_width(self, name: str) -> int | str:
        default = "P" if name == self.cell.output else "H"
        return self.cell.widths.get(name, default)

    def _input_products(self) -> Any:
        declared = self.products["input"]
        width = self.width(declared.width)
        names = declared.targets or ("",)
        made = [Tracer(self, self.graph.leaf("x", name, width)) for name in names]
        return Gates(declared.targets, made) if declared.targets else made[0]

    def _guarded(self, cell: Cell, x: Any, h: Any, state: State) -> Any:
        """Run the step, note its local variables, and turn what it may not do into an error."""
        before = sys.getprofile()
        sys.setprofile(self._watch)
        try:
            return cell.step(x, h, state)
        except CellError:
            raise
        except Exception as error:
            where = _line(error)
            name = type(self.cell).__name__
            raise TraceError(f"cell {name}, {where}: no program for this: {error}") from error
        finally:
            sys.setprofile(before)

    def _watch(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code in self.codes:
            self.locals.update(frame.f_locals)

    def _names(self) -> dict[int, str]:
        """Local variables of the step that hold a computed vector."""
        found: dict[int, str] = {}
        for name, value in self.locals.items():
            if isinstance(value, Tracer) and value._node.op in OPERATIONS:
                found.setdefault(value._node.number, name)
        return found


def _line(error: Exception) -> str:
    """Where in the user's code an error came from: the last line outside of this room."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(_ROOMS)]
    last = (outside or [frame for frame in frames if frame.name == "step"] or list(frames))[-1]
    return f"{last.filename}:{last.lineno} `{last.line or 'step'}`"
