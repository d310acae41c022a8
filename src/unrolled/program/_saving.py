"""Chooses which vectors forward stores for backward, and which backward recomputes.

Backward reads some vectors that forward computed. Each can be stored, which moves it through memory
twice, or recomputed from others that are stored. The cheapest choice is a minimum cut of the graph
of one step, which has a few dozen nodes (gradient checkpointing as in Chen et al. 2016).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unrolled.program._graph import LEAVES, PRODUCTS, Node, dependencies
from unrolled.program._operations import OPERATIONS

STORE_COST = 6.0
"""The cost of writing and reading one vector, in units of one addition of vectors in cache."""

_SHARED_VALUE = 0.0625
"""The fraction of that cost for a value shared by all units."""

_NEVER = float("inf")

Vertex = tuple[str, int]
"""A vertex of the flow network: ("available", node), ("recomputed", node), _SOURCE or _SINK."""
_SOURCE: Vertex = ("source", -1)
_SINK: Vertex = ("sink", -1)


@dataclass(frozen=True)
class Saving:
    """Forward writes ``stored`` vectors; backward computes ``recomputed`` ones, in this order."""

    stored: tuple[Node, ...]
    recomputed: tuple[Node, ...]


def choose_saving(
    forward: Sequence[Node], backward: Sequence[Node], free: Sequence[Node] = ()
) -> Saving:
    """Split the vectors of ``forward`` that ``backward`` reads into stored and recomputed ones.

    ``free`` vectors are in memory in any case: the outputs, the states at t-1. Inputs shared by all
    steps (constants, parameter vectors) are free too; products are never recomputed.
    """
    nodes = {node.number: node for node in dependencies(forward)}
    available = {node.number for node in free}
    available |= {n for n, node in nodes.items() if node.op in ("const", "size", "vector")}
    network = _FlowNetwork()
    for number, node in nodes.items():
        if number in available:
            continue
        is_available, is_recomputed = ("available", number), ("recomputed", number)
        cost = STORE_COST * (_SHARED_VALUE if node.width == 1 else 1.0)
        network.add_edge(is_available, is_recomputed, cost)
        network.add_edge(is_recomputed, _SINK, _recompute_cost(node))
        for arg in node.args:
            if arg.number not in available:
                network.add_edge(is_recomputed, ("available", arg.number), _NEVER)
    for number in _read_by_backward(nodes, backward) - available:
        network.add_edge(_SOURCE, ("available", number), _NEVER)
    reached = network.minimum_cut()
    stored = [n for n in nodes if ("available", n) in reached and ("recomputed", n) not in reached]
    recomputed = [n for n in nodes if ("recomputed", n) in reached]
    return Saving(
        tuple(nodes[n] for n in sorted(stored)), tuple(nodes[n] for n in sorted(recomputed))
    )


def _read_by_backward(forward: Mapping[int, Node], backward: Sequence[Node]) -> set[int]:
    """The nodes of forward that backward reads."""
    arguments = {
        arg.number
        for node in dependencies(backward)
        if node.number not in forward
        for arg in node.args
    }
    return (arguments | {node.number for node in backward}) & forward.keys()


def _recompute_cost(node: Node) -> float:
    if node.op in LEAVES or node.op in PRODUCTS:
        return _NEVER
    return OPERATIONS[node.op].cost


class _FlowNetwork:
    """Maximum flow by shortest augmenting paths (Edmonds & Karp 1972)."""

    def __init__(self) -> None:
        self.capacity: dict[Vertex, dict[Vertex, float]] = {_SOURCE: {}, _SINK: {}}

    def add_edge(self, a: Vertex, b: Vertex, capacity: float) -> None:
        self.capacity.setdefault(a, {})[b] = self.capacity.get(a, {}).get(b, 0.0) + capacity
        self.capacity.setdefault(b, {}).setdefault(a, 0.0)

    def minimum_cut(self) -> set[Vertex]:
        """The vertices on the source's side of a minimum cut."""
        while True:
            predecessors = self._search()
            if _SINK not in predecessors:
                return {_SOURCE, *predecessors}
            path = [_SINK]
            while path[-1] != _SOURCE:
                path.append(predecessors[path[-1]])
            edges = list(zip(path[1:], path[:-1], strict=True))
            flow = min(self.capacity[a][b] for a, b in edges)
            for a, b in edges:
                self.capacity[a][b] -= flow
                self.capacity[b][a] += flow

    def _search(self) -> dict[Vertex, Vertex]:
        """The vertex before each one on a shortest path from the source with capacity left."""
        predecessors: dict[Vertex, Vertex] = {}
        queue = deque([_SOURCE])
        while queue:
            a = queue.popleft()
            for b, capacity in self.capacity[a].items():
                if capacity > 0 and b != _SOURCE and b not in predecessors:
                    predecessors[b] = a
                    queue.append(b)
        return predecessors
