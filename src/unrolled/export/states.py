"""The states that a layer begins with, where a module makes them in its forward: zeros of the
batch's size, or a row of numbers for all sequences."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from unrolled.export.faults import fault_at
from unrolled.export.parts import rows_of
from unrolled.models.initial_state import LearnedInitialState
from unrolled.nn import Recurrent
from unrolled.nn.snapshot import array_of
from unrolled.runtime.schema import InitialStates

__all__ = ["Start"]

_MAKERS = (
    "zeros", "ones", "full", "zeros_like", "ones_like", "cat", "stack", "new_zeros", "new_ones",
    "new_full", "expand", "repeat", "unsqueeze", "squeeze", "transpose", "permute", "view",
    "reshape", "zero_", "expand_as",
)  # fmt: skip
"""Functions of torch, and methods, that make states or lay them out."""
_OF_GIVEN = (operator.getitem, torch.transpose, torch.zeros_like)
"""What may be done to states that a module is given, before a layer has them."""
_SAME = (
    "to", "cpu", "cuda", "detach", "detach_", "requires_grad_", "contiguous", "clone", "type_as",
    "float", "double",
)  # fmt: skip
"""Methods that change no number of a state."""


class _NotConstantError(ValueError):
    """A state is not the same for all sequences and inputs: a node is not what the message says."""

    def __init__(self, node: fx.Node, wanted: str) -> None:
        super().__init__(wanted)
        self.node = node


class Start:
    """What a layer of a module begins with.

    Args:
        data: the input of the module and what its parts so far gave, of which a state may read
            sizes, dtype and device only.
        source: the input.
    """

    def __init__(
        self, module: nn.Module, data: set[fx.Node], source: fx.Node | None, layer: Recurrent
    ) -> None:
        self.module, self.data, self.source, self.layer = module, data, source, layer
        self.given: set[str] = set()  # inputs of the module that are states

    def rows(self, call: fx.Node) -> InitialStates | None:
        """The states of each layer and direction in a call, [1, width] each; None: zeros, or what
        the module is given.

        Raises:
            ExportError: they are something else.
        """
        hx = call.kwargs.get("hx", call.args[1] if len(call.args) > 1 else None)
        states: list[Any] = list(hx) if isinstance(hx, tuple | list) else [hx]
        states = [one for one in states if one is not None]
        if len(states) == 1 and (start := self._learned(states[0])) is not None:
            return rows_of(start)
        given = [self._is_given(one) for one in states]
        if all(given):
            return None
        spec = self.layer.spec
        count = spec.num_layers * spec.num_directions
        if len(states) != len(spec.state_widths):
            raise fault_at(call, f"a layer with {len(spec.state_widths)} states")
        axis = int(not self.layer.batch_first)
        shapes = [(count, width) for width in spec.state_widths]
        try:
            made = [
                _initial_rows(self.module, one, self.data, axis, shape)
                for one, shape, is_given in zip(states, shapes, given, strict=True)
                if not is_given
            ]
        except _NotConstantError as error:
            raise fault_at(error.node, str(error)) from error
        if not any(state.any() for state in made):
            return None
        if any(given):
            raise fault_at(call, "initial states that are all inputs, or all made in forward")
        dtype = next(self.layer.parameters()).dtype
        arrays = [array_of(state.to(dtype), "start") for state in made]
        return tuple(tuple(array[row] for array in arrays) for row in range(count))

    def _learned(self, node: Any) -> LearnedInitialState | None:
        """The states, where they are a part of the module."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        part = self.module.get_submodule(str(node.target))
        return part if isinstance(part, LearnedInitialState) else None

    def _is_given(self, state: Any) -> bool:
        """Whether a state is an input of the module, or made of inputs that are states."""
        open_, inputs = [state], set()
        while open_:
            node = open_.pop()
            if not isinstance(node, fx.Node):
                return False
            if node.op == "placeholder" and node is not self.source:
                inputs.add(str(node.target))
            elif node.target in _OF_GIVEN and node.all_input_nodes:
                open_ += node.all_input_nodes
            else:
                return False
        self.given |= inputs
        return True


def _is_batch_size(node: fx.Node, axis: int) -> bool:
    """Whether a node is the size of an axis of something."""
    if node.op == "call_method" and node.target == "size":
        return bool(node.args[1:] == (axis,) or node.kwargs.get("dim") == axis)
    of = node.args[0] if node.args else None
    if getattr(node.target, "__name__", "") != "getitem" or not isinstance(of, fx.Node):
        return False
    whole = of.op == "call_method" and of.target == "size" and len(of.args) == 1
    return bool(node.args[1] == axis) and (whole or _is_attribute(of, "shape"))


def _is_attribute(node: fx.Node, name: str) -> bool:
    return node.target is getattr and node.args[1] == name


def _initial_rows(
    module: nn.Module, node: fx.Node, data: set[fx.Node], axis: int, shape: tuple[int, int]
) -> Tensor:
    """The state [L·D, 1, width] that every sequence begins with.

    Args:
        node: what the layer is given, made without the numbers of ``data``, of which only sizes,
            dtype and device may be read.
        axis: that of the batch in ``data``.
        shape: L·D and width.

    Raises:
        _NotConstantError: it depends on something else, or has another shape.
    """
    one, two = (_Evaluation(module, data, axis, N).value(node) for N in (1, 2))
    rows, width = shape
    fits = one.dim() == 3 and (one.shape[0], one.shape[2]) == shape
    if not fits or (two.shape != (rows, 2, width) and two.shape != one.shape):
        told = [*one.shape[:1], "N", *one.shape[2:]] if one.dim() == 3 else list(one.shape)
        raise _NotConstantError(node, f"initial states of shape [{rows}, N, {width}], got {told}")
    first = one[:, :1]
    if not (torch.equal(one, first.expand_as(one)) and torch.equal(two, first.expand_as(two))):
        raise _NotConstantError(node, "initial states that are the same for all sequences")
    return first


class _Evaluation:
    """Runs the nodes that make a state, for a batch of N."""

    def __init__(self, module: nn.Module, data: set[fx.Node], axis: int, N: int) -> None:
        self.module, self.data, self.axis, self.N = module, data, axis, N
        self.known: dict[fx.Node, Any] = {}

    def value(self, node: fx.Node) -> Any:
        if node not in self.known:
            self.known[node] = self._value(node)
        return self.known[node]

    def _value(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            value = _attribute(self.module, str(node.target))
            return value.clone() if isinstance(value, Tensor) else value
        sized = [one for one in _sizes_of(node) if one in self.data]
        if sized:
            if _is_batch_size(node, self.axis):
                return self.N
            raise _NotConstantError(
                node,
                f"initial states with a row for each sequence, of which there are "
                f"x.size({self.axis})",
            )
        if node.target is getattr and node.args[1] in ("device", "dtype"):
            return self._device_or_dtype(node)
        name = getattr(node.target, "__name__", str(node.target))
        if name in _SAME:
            return self.value(node.args[0])  # type: ignore[arg-type]
        if name not in _MAKERS:
            raise _NotConstantError(node, "initial states of zeros, or the same for all sequences")
        creates = name.startswith("new_")  # which reads kind and device alone
        read = [one for one in node.all_input_nodes if one in self.data]
        if read and not (creates and read == [node.args[0]]):
            raise _NotConstantError(node, "initial states that are not made of the input's numbers")
        args = fx.node.map_arg(node.args, self._argument)
        kwargs = {key: value for key, value in node.kwargs.items() if key not in ("device", "out")}
        kwargs = fx.node.map_arg(kwargs, self._argument)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _argument(self, node: fx.Node) -> Any:
        return torch.zeros(()) if node in self.data else self.value(node)

    def _device_or_dtype(self, node: fx.Node) -> Any:
        return torch.float32 if node.args[1] == "dtype" else torch.device("cpu")


def _sizes_of(node: fx.Node) -> Iterator[fx.Node]:
    """What a node is a size of."""
    of = node.args[0] if node.args else None
    if not isinstance(of, fx.Node):
        return
    if node.target == "size":
        yield of
    elif getattr(node.target, "__name__", "") == "getitem" and (
        of.target == "size" or _is_attribute(of, "shape")
    ):
        yield from (one for one in of.args[:1] if isinstance(one, fx.Node))


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value
