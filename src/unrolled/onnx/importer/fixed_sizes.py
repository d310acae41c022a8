"""What a graph says of one size of its inputs only: such inputs are checked at each call.

Exporters write the sizes of their example into a graph. Where all it does is free in T and N, as
layers, linear layers and functions of single numbers are, the module takes any. Where it reads
single steps, cuts or rearranges by number, or adds constants that have a row for each step, other
sizes would give numbers that nobody asked for.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from unrolled.nn import Recurrent
from unrolled.onnx.directions import Directions
from unrolled.onnx.importer import torch_functions

__all__ = ["guard", "sized"]

Sizes = Sequence[int | None]


def sized(x: Tensor, name: str, sizes: Sizes) -> Tensor:
    """The same tensor, if it has these sizes; None stands for any.

    Raises:
        ValueError: it has others.
    """
    shape = tuple(x.shape)
    if len(shape) != len(sizes) or any(
        wanted not in (None, size) for size, wanted in zip(shape, sizes, strict=True)
    ):
        told = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(f"{name}: wanted the shape [{told}] that the file fixes, got {shape}")
    return x


def guard(module: fx.GraphModule, inputs: Mapping[str, tuple[str, Sizes]]) -> None:
    """Check the inputs on which the graph depends by their fixed sizes; ``inputs`` has the name
    and the sizes of each by its placeholder's."""
    states = _states(module)
    bound: set[fx.Node] = set()
    read: set[fx.Node] = set()  # by more than initial states, whose shape a layer itself checks
    for node in reversed(module.graph.nodes):
        if node.op != "output" and node not in read:
            continue
        reads = _numbers(node)
        read.update(reads)
        if node in bound or not _free(module, node, states):
            bound.update(reads)
    checked = False
    for node in [one for one in bound if one.op == "placeholder"]:
        name, sizes = inputs[str(node.target)]
        # The width of rows needs no check here: a product with weights of another one fails.
        if all(size is None for size in (sizes[:-1] if len(sizes) > 2 else sizes)):
            continue
        with module.graph.inserting_after(node):
            made = module.graph.call_function(sized, (node, name, tuple(sizes)))
        for user in [one for one in node.users if one is not made]:
            user.replace_input_with(node, made)
        checked = True
    if checked:
        module.graph.lint()
        module.recompile()


def _numbers(node: fx.Node) -> list[fx.Node]:
    """What a node reads, but for a layer's initial states."""
    if node.op != "call_module":
        return node.all_input_nodes
    return [one for one in (*node.args, node.kwargs.get("lengths")) if isinstance(one, fx.Node)]


def _free(module: fx.GraphModule, node: fx.Node, states: set[fx.Node]) -> bool:
    """Whether a node does the same for any T and N, or fails."""
    target, args = node.target, node.args
    if node.op != "call_function":
        return True
    if target is operator.getitem:
        return _is_tuple(module, args[0]) or args[0] in states or _is_end(args[1])
    if target is torch.select:
        return -1 in args[1:]
    if target is torch_functions.slices:
        axes = args[3] if len(args) > 3 else None
        return isinstance(axes, Sequence) and all(axis == -1 for axis in axes)
    if target is torch_functions.split_:
        return bool(args[2] == -1) or args[0] in states
    if target is torch_functions.reshape:
        return isinstance(args[1], fx.Node) or all(size in (0, -1) for size in args[1][:-1])  # type: ignore[index, union-attr]
    if target is torch_functions.pick:
        return not (isinstance(args[1], fx.Node) and args[1].op == "get_attr")
    if target in (torch_functions.expand, torch_functions.constant_of_shape):
        return True
    # A sum over the steps of an example, divided by their number.
    averaged = target is torch_functions.divide and getattr(args[0], "target", None) is torch.sum
    return not averaged and not any(_has_rows(module, one) for one in node.all_input_nodes)


def _is_tuple(module: fx.GraphModule, node: Any) -> bool:
    """Whether its items are results of a layer, or parts of a value."""
    split = node.target is torch_functions.split_
    return split or _is_layer(module, node) or _is_states(module, node)


def _is_layer(module: fx.GraphModule, node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return isinstance(module.get_submodule(str(node.target)), Recurrent | Directions)


def _is_states(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is the final states of a layer."""
    if node.target is not operator.getitem or node.args[1] != 1:
        return False
    return _is_layer(module, node.args[0])


def _states(module: fx.GraphModule) -> set[fx.Node]:
    """What is made of states alone, which have rows for layers and no steps."""
    moves = (operator.getitem, torch.cat, torch_functions.unsqueeze, torch_functions.slices)
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        reads = node.all_input_nodes
        if node.target is torch_functions.expand:
            reads = reads[:1]
        elif node.op != "call_function" or node.target not in moves:
            reads = []
        start = node.op == "placeholder" and _is_start(node)
        if start or _is_states(module, node) or (reads and all(one in found for one in reads)):
            found.add(node)
    return found


def _is_start(node: fx.Node) -> bool:
    """Whether rows of it are what a layer begins with."""
    given = [(user, layer.kwargs.get("hx")) for user in node.users for layer in user.users]
    return any(user in (hx if isinstance(hx, tuple) else (hx,)) for user, hx in given)


def _is_end(index: Any) -> bool:
    """Whether an index counts from the end, which any length has."""
    whole = [index] if not isinstance(index, tuple) else list(index)
    return all(
        one == -1 or (isinstance(one, slice) and one.stop is None and (one.start or -1) < 0)
        for one in whole
    )


def _has_rows(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a constant has a row for each step or sequence, or numbers them."""
    if node.op != "get_attr":
        return False
    value = module.get_buffer(str(node.target))
    counts = not value.is_floating_point() and value.numel() > 1
    return bool(counts or any(size > 1 for size in value.shape[:-1]))
