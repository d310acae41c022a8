"""A cell's program: one step forward, the vectors that it stores, one step backward."""

from dataclasses import dataclass
from functools import cached_property

from unrolled.cells import Cell
from unrolled.program._differentiate import Derivative, differentiate
from unrolled.program._graph import Node, dependencies
from unrolled.program._listing import Listing
from unrolled.program._saving import Saving, choose_saving
from unrolled.program._trace import Traced, trace


@dataclass(frozen=True)
class Program:
    """One step of a cell, forward and backward. ``print`` shows both."""

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
        """The vector that each product multiplies; the gradients of weights need it."""
        return product_sources(self.traced)

    @cached_property
    def stages(self) -> int:
        """The number of stages; each product of a computed vector begins another stage."""
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
        gradients = {
            **{f"dx.{name}" if name else "dx": node for name, node in derivative.x.items()},
            **{
                listing.product(matrix, block, "d"): node
                for (matrix, block), node in derivative.products.items()
            },
            **{f"dstate.{name}": node for name, node in derivative.states.items()},
            **{f"d{name}": node for name, node in derivative.vectors.items()},
        }
        available = [*self.saving.stored, *free_vectors(self.traced)]
        return [
            f"backward from {', '.join(f'd{name}' for name in self.traced.cell.states)}",
            *(f"    {line}" for line in listing.assignments(gradients, available)),
        ]

    def _listing(self) -> Listing:
        products = {name: p.targets for name, p in self.traced.products.items()}
        return Listing(self.traced.names, products)


def make_program(cell: Cell | type[Cell] | object, projected: bool = False) -> Program:
    """Trace a cell or its class, derive its gradients, and choose the vectors to store.

    Raises:
        TraceError: the step cannot be traced; the message names cell, operation and line.
        TypeError: ``cell`` is not a cell.
    """
    if isinstance(cell, type) and issubclass(cell, Cell):
        cell = cell()
    if not isinstance(cell, Cell):
        advice = "; a layer has one: layer.cell" if hasattr(cell, "forward") else ""
        raise TypeError(
            f"make_program: cell must be a Cell or a subclass of it, got {cell!r}{advice}"
        )
    traced = trace(cell, projected)
    derivative = differentiate(traced)
    backward = [*derivative.outputs, *product_sources(traced).values()]
    saving = choose_saving(traced.states, backward, free_vectors(traced))
    return Program(traced, derivative, saving)


def free_vectors(traced: Traced) -> list[Node]:
    """The vectors that are in memory after forward in any case: the states at t-1 and at t."""
    return [*traced.states, *state_leaves(traced)]


def state_leaves(traced: Traced) -> list[Node]:
    """The states at t-1, in their order."""
    return [node for node in traced.graph.nodes if node.op == "state"]


def product_sources(traced: Traced) -> dict[str, Node]:
    """The vector that each product multiplies, by the product's name."""
    products = [node for node in dependencies(traced.states) if node.op == "product"]
    return {str(node.key[0]): node.args[0] for node in products}
