"""Tracks which nodes of a graph hold which parts of a layer's results."""

from collections.abc import Sequence

from torch import fx

from unrolled.export._errors import error_at
from unrolled.nn import Recurrent
from unrolled.nn._snapshot import ExportError

Role = str | int
"""What a node holds: "all" (outputs and state), "outputs", "states" (a tuple of several), or
"state"; "packed" for outputs as packed sequences, "unpacked" for the pair that pad_packed_sequence
returns; "last" for the final output of each sequence; a negative number for a row of the state."""


class LayerResults:
    """The results of the last layer that was visited.

    Attributes:
        has_lengths: whether the layer reads lengths.
        packed_batch_first: batch_first of packed sequences; None if they are not packed.
    """

    def __init__(
        self,
        layer: Recurrent | None = None,
        node: fx.Node | None = None,
        has_lengths: bool = False,
        packed_batch_first: bool | None = None,
    ) -> None:
        self.layer = layer
        self.has_lengths = has_lengths
        self.packed_batch_first = packed_batch_first
        self._roles: dict[fx.Node, Role] = {} if node is None else {node: "all"}

    @property
    def batch_first(self) -> bool:
        return self.layer is not None and self.layer.batch_first

    @property
    def bidirectional(self) -> bool:
        return self.layer is not None and bool(self.layer.bidirectional)

    def role(self, node: object) -> Role | None:
        return self._roles.get(node) if isinstance(node, fx.Node) else None

    def set_role(self, node: fx.Node, role: Role) -> None:
        self._roles[node] = role

    def copy_role(self, source: fx.Node | None, node: fx.Node) -> None:
        if (role := self.role(source)) is not None:
            self._roles[node] = role

    def are_fresh(self, current: fx.Node | None) -> bool:
        """Whether nothing has been computed from the outputs yet."""
        return current is None or self.role(current) in ("outputs", "packed")

    def is_only_row(self, node: object, current: fx.Node | None) -> bool:
        """Whether a node is the state of one layer in one direction."""
        return self.role(node) == "state" and self._rows() == 1 and self.are_fresh(current)

    def item(self, node: fx.Node, current: fx.Node | None) -> Role | None:
        """The role of an item of a result; None if it cannot be exported."""
        owner, key = node.args
        role = self.role(owner)
        if role == "all" and key == 0:
            return "outputs" if self.packed_batch_first is None else "packed"
        if role == "all" and key == 1:
            is_tuple = self.layer is not None and len(self.layer.cell.states) > 1
            return "states" if is_tuple else "state"
        if role in ("unpacked", "states") and key == 0:
            return "outputs" if role == "unpacked" else "state"
        return self._indexed(role, _trimmed(key), current)

    def _indexed(
        self, role: Role | None, index: Sequence[object], current: fx.Node | None
    ) -> Role | None:
        """A row of the state, or the last step of the outputs."""
        row = index[0] if len(index) == 1 else None
        if role == "state" and isinstance(row, int):
            row = row if row < 0 else row - self._rows()
            if self.bidirectional:
                return row if row in (-2, -1) else None
            return "last" if row == -1 and self.are_fresh(current) else None
        last_step = (slice(None), -1) if self.batch_first else (-1,)
        plain = not self.has_lengths and not self.bidirectional and self.are_fresh(current)
        return "last" if role == "outputs" and index == last_step and plain else None

    def item_error(self, node: fx.Node) -> ExportError:
        """An error that an item cannot be exported."""
        last_step = "[:, -1]" if self.batch_first else "[-1]"
        if self.has_lengths:
            return error_at(
                node, "a layer's outputs, or [-1] of its state, where sequences have lengths"
            )
        advice = None
        if self.bidirectional:
            advice = (
                "the backward direction ends at the first step: torch.cat((h[-2], h[-1]), 1) has "
                "the final states of both"
            )
        return error_at(node, f"a layer's outputs, or {last_step} of them in one direction", advice)

    def _rows(self) -> int:
        """L·D of the layer."""
        assert self.layer is not None
        return self.layer.num_layers * self.layer.spec.num_directions


def arguments_of(node: fx.Node, names: Sequence[str], skip: int = 0) -> dict[str, object]:
    """Arguments of a node by name, without the first ``skip`` positional ones."""
    return {**dict(zip(names, node.args[skip:], strict=False)), **node.kwargs}


def _trimmed(key: object) -> tuple[object, ...]:
    """An index without full slices at its end."""
    index = list(key) if isinstance(key, tuple) else [key]
    while index and index[-1] in (slice(None), Ellipsis):
        index.pop()
    return tuple(index)
