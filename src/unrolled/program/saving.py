"""What forward saves for backward and what backward computes again: the cheapest choice.

Backward reads some vectors that forward computed. Each can be stored, at the cost of moving it
through memory twice, or recomputed from others that are stored. The cheapest choice is a minimum
cut (as in Chen et al. 2016 and its descendants, on the few dozen nodes of one step).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.program.graph import LEAVES, PRODUCTS, Node, needed
from unrolled.program.operations import OPERATIONS

STORE = 6.0
"""Writing and reading back one vector, in additions of vectors in cache."""

_NEVER = float("inf")


@dataclass(frozen=True)
class Saving:
    """``stored`` forward writes; ``again`` backward recomputes, in an order of computation."""

    stored: tuple[Node, ...]
    again: tuple[Node, ...]


def choose_saving(
    forward: Sequence[Node], backward: Sequence[Node], free: Sequence[Node] = ()
) -> Saving:
    """Split what ``backward`` reads of ``forward`` into stored and recomputed vectors.

    ``free`` are vectors that stand in memory anyway: the outputs, the states at t-1. Inputs that
    all steps share (constants, parameter vectors) are free too; products are never recomputed.
    """
    made = {node.number: node for node in needed(forward)}
    read = [
        arg
        for node in needed(backward)
        if node.number not in made
        for arg in node.args
        if arg.number in made
    ]
    read += [node for node in backward if node.number in made]
    known = {node.number for node in free}
    known |= {number for number, node in made.items() if node.op in ("const", "size", "vector")}
    wanted = {node.number for node in read} - known
    cut = _Flow()
    for number, node in made.items():
        if number in known:
            continue
        # "a": the vector is at hand in backward. "r": it is recomputed there.
        cut.edge(("a", number), ("r", number), STORE * (0.0625 if node.width == 1 else 1.0))
        cut.edge(("r", number), "end", _price(node))
        for arg in node.args:
            if arg.number not in known:
                cut.edge(("r", number), ("a", arg.number), _NEVER)
    for number in wanted:
        cut.edge("start", ("a", number), _NEVER)
    reached = cut.minimum()
    stored = [n for n in made if ("a", n) in reached and ("r", n) not in reached]
    again = [n for n in made if ("r", n) in reached]
    return Saving(tuple(made[n] for n in sorted(stored)), tuple(made[n] for n in sorted(again)))


def _price(node: Node) -> float:
    if node.op in LEAVES or node.op in PRODUCTS:
        return _NEVER
    return OPERATIONS[node.op].cost


class _Flow:
    """Maximum flow by shortest augmenting paths (Edmonds & Karp 1972)."""

    def __init__(self) -> None:
        self.capacity: dict[object, dict[object, float]] = {"start": {}, "end": {}}

    def edge(self, a: object, b: object, capacity: float) -> None:
        self.capacity.setdefault(a, {})[b] = self.capacity.get(a, {}).get(b, 0.0) + capacity
        self.capacity.setdefault(b, {}).setdefault(a, 0.0)

    def minimum(self) -> set[object]:
        """The side of the start in a minimum cut."""
        while True:
            before = self._search()
            if "end" not in before:
                return set(before)
            path = ["end"]
            while path[-1] != "start":
                path.append(before[path[-1]])  # type: ignore[arg-type]
            steps = list(zip(path[1:], path[:-1], strict=True))
            room = min(self.capacity[a][b] for a, b in steps)
            for a, b in steps:
                self.capacity[a][b] -= room
                self.capacity[b][a] += room

    def _search(self) -> dict[object, object]:
        before: dict[object, object] = {"start": None}
        waiting: deque[object] = deque(["start"])
        while waiting:
            a = waiting.popleft()
            for b, room in self.capacity[a].items():
                if room > 0 and b not in before:
                    before[b] = a
                    waiting.append(b)
        return before
