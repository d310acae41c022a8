"""Changes in place whose result nobody reads: a graph without them computes something else."""

from torch import fx, nn

from unrolled.export.faults import fault_at

__all__ = ["check_changes"]

_HARMLESS = ("requires_grad_", "detach_", "share_memory_", "pin_memory_")
"""Methods that change no number."""


def check_changes(module: nn.Module, graph: fx.Graph) -> None:
    """Refuse a graph that loses a change in place of what the first output is made of.

    Raises:
        ExportError: there is such a change; the message has its line.
    """
    end = next(node for node in reversed(graph.nodes) if node.op == "output")
    first = end.args[0]
    if isinstance(first, tuple | list):
        first = first[0]
    read: set[fx.Node] = set()
    open_ = [first]
    while open_:
        node = open_.pop()
        if isinstance(node, fx.Node) and node not in read:
            read.add(node)
            open_ += node.all_input_nodes
    for node in graph.nodes:
        if node not in read and any(_views(of, read) for of in _changed(module, node)):
            raise fault_at(
                node,
                "a function whose result is read",
                "a change in place is not followed: y = torch.relu(y) is, y.relu_() is not",
            )


def _changed(module: nn.Module, node: fx.Node) -> list[object]:
    """What a node changes in place."""
    name = getattr(node.target, "__name__", str(node.target))
    in_place = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        drops = isinstance(part, nn.modules.dropout._DropoutNd)  # nothing, in evaluation
        in_place = bool(getattr(part, "inplace", False)) and not drops
    elif node.op not in ("call_function", "call_method"):
        return []
    in_place = in_place or node.kwargs.get("inplace") is True
    given = node.args or tuple(node.kwargs.values())  # functions of nn.init name theirs
    return [*(given[:1] if in_place else ()), node.kwargs.get("out")]


def _views(node: object, read: set[fx.Node]) -> bool:
    """Whether a value, or what it is made of, is read."""
    while isinstance(node, fx.Node):
        if node in read:
            return True
        node = node.args[0] if node.args else None
    return False
