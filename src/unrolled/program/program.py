"""A cell's program, whole: one step forward, what it stores, one step backward; printable."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unrolled.cells import Cell
from unrolled.program.differentiate import Derivative, differentiate
from unrolled.program.graph import Node, needed
from unrolled.program.listing import Listing
from unrolled.program.saving import Saving, choose_saving
from unrolled.program.trace import Traced, trace


@dataclass(frozen=True)
class Program:
    """One step of a cell in both directions. ``print`` shows it."""

    traced: Traced
    derivative: Derivative
    saving: Saving

    @property
    def name(self) -> str:
        return type(self.traced.cell).__name__

    @property
    def state_leaves(self) -> list[Node]:
        """The states at t-1, in their order."""
        return state_leaves(self.traced)

    @property
    def sources(self) -> dict[str, Node]:
        """What each product multiplies; the weights' gradients need it."""
        return product_sources(self.traced)

    @cached_property
    def stages(self) -> int:
        """How many times products follow on pointwise work, the first included."""
        return 1 + max(node.stage for node in self.traced.states)

    def __str__(self) -> str:
        return "\n".join([*self._forward(), "", *self._backward()])

    def _forward(self) -> list[str]:
        cell = self.traced.cell
        listing = self._listing()
        body = listing.lines(list(self.traced.states))
        stored = ", ".join(listing.expression(node) for node in self.saving.stored)
        return [
            f"{self.name}: gates {', '.join(cell.gates) or '(one)'}; states "
            f"{', '.join(cell.states)}; stages {self.stages}",
            "forward",
            *(f"    {line}" for line in body),
            f"    stores {stored or 'nothing'}",
        ]

    def _backward(self) -> list[str]:
        derivative = self.derivative
        listing = self._listing()
        named = {
            **{f"dx.{name}" if name else "dx": node for name, node in derivative.x.items()},
            **{
                listing.product(matrix, block, "d"): node
                for (matrix, block), node in derivative.products.items()
            },
            **{f"dstate.{name}": node for name, node in derivative.states.items()},
            **{f"d{name}": node for name, node in derivative.vectors.items()},
        }
        given = [*self.saving.stored, *self._free()]
        return [
            f"backward from {', '.join(f'd{name}' for name in self.traced.cell.states)}",
            *(f"    {line}" for line in listing.assignments(named, given)),
        ]

    def _free(self) -> list[Node]:
        return free_vectors(self.traced)

    def _listing(self) -> Listing:
        products = {name: p.targets for name, p in self.traced.products.items()}
        return Listing(self.traced.names, products)


def make_program(cell: Cell | type[Cell], projected: bool = False) -> Program:
    """Trace a cell, or a class of cells, derive its gradients, choose what to store.

    Raises:
        TraceError: the step cannot be a program; the message names cell, operation and line.
        TypeError: it is no cell.
    """
    if isinstance(cell, type) and issubclass(cell, Cell):
        cell = cell()
    value: Any = cell
    if not isinstance(value, Cell):
        cure = "; a layer has one: layer.cell" if hasattr(value, "forward") else ""
        raise TypeError(
            f"make_program: cell must be a Cell or a subclass of it, got {value!r}{cure}"
        )
    traced = trace(cell, projected)
    derivative = differentiate(traced)
    read = [*derivative.outputs, *product_sources(traced).values()]
    saving = choose_saving(traced.states, read, free_vectors(traced))
    return Program(traced, derivative, saving)


def free_vectors(traced: Traced) -> list[Node]:
    """What stands in memory after forward without being stored: all states, before and after."""
    return [*traced.states, *state_leaves(traced)]


def state_leaves(traced: Traced) -> list[Node]:
    """The states at t-1, in their order."""
    return [node for node in traced.graph.nodes if node.op == "state"]


def product_sources(traced: Traced) -> dict[str, Node]:
    """What each product multiplies, by its name."""
    products = [node for node in needed(traced.states) if node.op == "product"]
    return {str(node.key[0]): node.args[0] for node in products}
