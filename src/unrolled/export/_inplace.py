"""Rejects in-place operations that the exported graph would lose, since no node reads their
result."""

from torch import fx, nn

from unrolled.export._errors import error_at

_HARMLESS = ("requires_grad_", "detach_", "share_memory_", "pin_memory_")
"""Methods that change no values."""


def check_inplace_operations(module: nn.Module, graph: fx.Graph) -> None:
    """Check that no node changes a value in place on which the first output depends, unless the
    output depends on that node.

    Raises:
        ExportError: a node does so; the message has its line.
    """
    output = next(node for node in reversed(graph.nodes) if node.op == "output").args[0]
    if isinstance(output, tuple | list):
        output = output[0]
    read: set[fx.Node] = set()
    pending: list[object] = [output]
    while pending:
        node = pending.pop()
        if isinstance(node, fx.Node) and node not in read:
            read.add(node)
            pending += node.all_input_nodes
    for node in graph.nodes:
        if node not in read and any(_is_read(value, read) for value in _changed(module, node)):
            raise error_at(
                node,
                "a function whose result is read",
                "in-place changes are not exported: write y = torch.relu(y), not y.relu_()",
            )


def _changed(module: nn.Module, node: fx.Node) -> list[object]:
    """The values that a node changes in place."""
    name = getattr(node.target, "__name__", str(node.target))
    in_place = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    if node.op == "call_module":
        child = module.get_submodule(str(node.target))
        is_dropout = isinstance(child, nn.modules.dropout._DropoutNd)  # the identity in evaluation
        in_place = bool(getattr(child, "inplace", False)) and not is_dropout
    elif node.op not in ("call_function", "call_method"):
        return []
    in_place = in_place or node.kwargs.get("inplace") is True
    arguments = node.args or tuple(node.kwargs.values())  # functions of nn.init pass by name
    return [*(arguments[:1] if in_place else ()), node.kwargs.get("out")]


def _is_read(value: object, read: set[fx.Node]) -> bool:
    """Whether a value, or a tensor that it is a view of, is read."""
    while isinstance(value, fx.Node):
        if value in read:
            return True
        value = value.args[0] if value.args else None
    return False
