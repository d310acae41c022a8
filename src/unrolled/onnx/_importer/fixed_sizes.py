"""Inserts checks of inputs on whose sizes a graph depends.

Exporters write the sizes of their example into a graph. Layers, linear layers and pointwise
functions accept any T and N, and so does a module that consists of them. A graph that reads single
steps, slices or reshapes to fixed sizes, or adds constants with a row for each step would return
wrong results for other sizes: the sizes of its inputs are checked at each call.
"""

import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.fx.node import Argument

from unrolled.nn import Recurrent
from unrolled.onnx._directions import Directions
from unrolled.onnx._importer import torch_functions

Sizes = Sequence[int | None]
"""None stands for a free size."""


def check_sizes(x: Tensor, name: str, sizes: Sizes) -> Tensor:
    """Check the sizes of x, and return x.

    Raises:
        ValueError: x has other sizes.
    """
    shape = tuple(x.shape)
    if len(shape) != len(sizes) or any(
        fixed not in (None, size) for size, fixed in zip(shape, sizes, strict=True)
    ):
        fixed_shape = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(
            f"Imported: {name} must have the shape [{fixed_shape}] that the file fixes, got "
            f"{list(shape)}"
        )
    return x


def guard_inputs(module: fx.GraphModule, inputs: Mapping[str, tuple[str, Sizes]]) -> None:
    """Insert checks of the inputs on whose fixed sizes the graph depends.

    ``inputs`` has the name and the sizes of each input by its placeholder's name.
    """
    is_changed = False
    for node in _size_dependent_inputs(module):
        name, sizes = inputs[str(node.target)]
        # The width of rows needs no check: a product with weights of another width fails.
        if all(size is None for size in (sizes[:-1] if len(sizes) > 2 else sizes)):
            continue
        with module.graph.inserting_after(node):
            checked = module.graph.call_function(check_sizes, (node, name, tuple(sizes)))
        for user in [user for user in node.users if user is not checked]:
            user.replace_input_with(node, checked)
        is_changed = True
    if is_changed:
        module.graph.lint()
        module.recompile()


def _size_dependent_inputs(module: fx.GraphModule) -> list[fx.Node]:
    """The placeholders read by nodes whose result is right for only one T and N."""
    classifier = _Classifier(module)
    dependent: set[fx.Node] = set()
    used: set[fx.Node] = set()  # other than as initial states, whose shape the layer checks
    for node in reversed(module.graph.nodes):
        if node.op != "output" and node not in used:
            continue
        inputs = _inputs_of(node)
        used.update(inputs)
        if node in dependent or not classifier.takes_any_size(node):
            dependent.update(inputs)
    return [node for node in dependent if node.op == "placeholder"]


def _inputs_of(node: fx.Node) -> list[fx.Node]:
    """The nodes that a node reads, without the initial states of a layer."""
    if node.op != "call_module":
        return node.all_input_nodes
    arguments = (*node.args, node.kwargs.get("lengths"))
    return [argument for argument in arguments if isinstance(argument, fx.Node)]


class _Classifier:
    """Finds the nodes of a graph that accept any T and N."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.states = self._state_nodes()

    def takes_any_size(self, node: fx.Node) -> bool:
        """Whether a node is right, or raises an error, for any T and N."""
        target, args = node.target, node.args
        if node.op != "call_function":
            return True
        if target is operator.getitem:
            source = args[0]
            is_state = isinstance(source, fx.Node) and source in self.states
            return self._is_tuple(source) or is_state or _counts_from_end(args[1])
        if target is torch.select:
            return -1 in args[1:]
        if target is torch_functions.slice_along:
            axes = args[3] if len(args) > 3 else None
            return isinstance(axes, Sequence) and all(axis == -1 for axis in axes)
        if target is torch_functions.split_along:
            return bool(args[2] == -1) or args[0] in self.states
        if target is torch_functions.reshape:
            return _copies_sizes(args[1])
        if target is torch_functions.gather:
            indices = args[1]
            return not (isinstance(indices, fx.Node) and indices.op == "get_attr")
        if target in (torch_functions.expand, torch_functions.constant_of_shape):
            return True
        # The sum over the steps of the example divided by their number.
        is_mean = (
            target is torch_functions.divide
            and isinstance(args[0], fx.Node)
            and args[0].target is torch.sum
        )
        return not is_mean and not any(self._has_rows(read) for read in node.all_input_nodes)

    def _is_tuple(self, node: Argument) -> bool:
        """Whether the items of a node are results of a layer or parts of a value."""
        if not isinstance(node, fx.Node):
            return False
        is_split = node.target is torch_functions.split_along
        return is_split or self._is_layer(node) or self._is_final_state(node)

    def _is_layer(self, node: Argument) -> bool:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return False
        return isinstance(self.module.get_submodule(str(node.target)), Recurrent | Directions)

    def _is_final_state(self, node: fx.Node) -> bool:
        """Whether a node is the final states of a layer."""
        if node.target is not operator.getitem or node.args[1] != 1:
            return False
        return self._is_layer(node.args[0])

    def _state_nodes(self) -> set[fx.Node]:
        """The nodes computed from states alone, which have rows for layers and no steps."""
        moves = (
            operator.getitem, torch.cat, torch_functions.unsqueeze, torch_functions.slice_along,
        )  # fmt: skip
        states: set[fx.Node] = set()
        for node in self.module.graph.nodes:
            inputs = node.all_input_nodes
            if node.target is torch_functions.expand:
                inputs = inputs[:1]
            elif node.op != "call_function" or node.target not in moves:
                inputs = []
            is_initial = node.op == "placeholder" and _is_initial_state(node)
            is_moved = bool(inputs) and all(read in states for read in inputs)
            if is_initial or is_moved or self._is_final_state(node):
                states.add(node)
        return states

    def _has_rows(self, node: fx.Node) -> bool:
        """Whether a constant has a row for each step or sequence, or numbers them."""
        if node.op != "get_attr":
            return False
        value = self.module.get_buffer(str(node.target))
        if not value.is_floating_point() and value.numel() > 1:
            return True
        return any(size > 1 for size in value.shape[:-1])


def _is_initial_state(node: fx.Node) -> bool:
    """Whether rows of an input are the initial states of a layer."""
    for user in node.users:
        for layer in user.users:
            hx = layer.kwargs.get("hx")
            if user in (hx if isinstance(hx, tuple) else (hx,)):
                return True
    return False


def _counts_from_end(index: Argument) -> bool:
    """Whether an index counts from the end, which is right for any length."""
    items = index if isinstance(index, tuple) else (index,)
    return all(
        item == -1 or (isinstance(item, slice) and item.stop is None and (item.start or -1) < 0)
        for item in items
    )


def _copies_sizes(shape: Argument) -> bool:
    """Whether a Reshape takes all sizes but the final one from its input."""
    if isinstance(shape, fx.Node):
        return True
    return isinstance(shape, Sequence) and all(size in (0, -1) for size in shape[:-1])
