"""Reads the initial states that a module's forward creates for a layer: zeros of the batch's size,
or the same row for all sequences."""

import operator
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from unrolled.export._errors import error_at
from unrolled.export._known_modules import initial_rows
from unrolled.models._initial_state import LearnedInitialState
from unrolled.nn import Recurrent
from unrolled.nn._snapshot import array_of
from unrolled.runtime._schema import InitialStates

_CREATORS = (
    "zeros", "ones", "full", "zeros_like", "ones_like", "cat", "stack", "new_zeros", "new_ones",
    "new_full", "expand", "repeat", "unsqueeze", "squeeze", "transpose", "permute", "view",
    "reshape", "zero_", "expand_as",
)  # fmt: skip
"""Functions and methods of torch that create states or change their layout."""
_STATE_OPERATIONS = (operator.getitem, torch.transpose, torch.zeros_like)
"""Functions that a module may apply to states that are inputs."""
_IDENTITIES = (
    "to", "cpu", "cuda", "detach", "detach_", "requires_grad_", "contiguous", "clone", "type_as",
    "float", "double",
)  # fmt: skip
"""Methods that do not change the values of a state."""


class _NotConstantError(ValueError):
    """A state depends on the sequence; the message says what is expected of the node."""

    def __init__(self, node: fx.Node, expected: str) -> None:
        super().__init__(expected)
        self.node = node


class InitialStateReader:
    """Reads the initial states of a layer from a graph.

    Args:
        data: the input of the module and the results of its blocks so far; a state may read only
            their sizes, dtype and device.
        source: the input.
    """

    def __init__(
        self,
        module: nn.Module,
        data: set[fx.Node],
        source: fx.Node | None,
        layer: Recurrent,
        dtype: torch.dtype,
    ) -> None:
        self.module, self.data, self.source, self.layer = module, data, source, layer
        self.dtype = dtype
        self.state_inputs: set[str] = set()  # inputs of the module that are states

    def rows(self, call: fx.Node) -> InitialStates | None:
        """The initial states in a call of the layer; None if they are zeros, or are inputs of the
        module.

        Raises:
            ExportError: they depend on the sequence, or have a wrong shape.
        """
        hx = call.kwargs.get("hx", call.args[1] if len(call.args) > 1 else None)
        states_passed = hx if isinstance(hx, tuple | list) else [hx]
        nodes = [node for node in states_passed if node is not None]
        if len(nodes) == 1 and (learned := self._learned(nodes[0])) is not None:
            return initial_rows(learned, self.dtype)
        are_inputs = [self._is_input(node) for node in nodes]
        if all(are_inputs):
            return None
        spec = self.layer.spec
        count = spec.num_layers * spec.num_directions
        if len(nodes) != len(spec.state_widths):
            raise error_at(call, f"a layer with {len(spec.state_widths)} states")
        states = []
        for node, width, is_input in zip(nodes, spec.state_widths, are_inputs, strict=True):
            if is_input:
                continue
            try:
                states.append(self._constant_rows(node, (count, width)))
            except _NotConstantError as error:
                raise error_at(error.node, str(error)) from error
        if not any(state.any() for state in states):
            return None
        if any(are_inputs):
            raise error_at(call, "initial states that are all inputs, or all created in forward")
        dtype = next(self.layer.parameters()).dtype
        arrays = [array_of(state.to(dtype), "start", self.dtype) for state in states]
        return tuple(tuple(array[row] for array in arrays) for row in range(count))

    def _learned(self, node: object) -> LearnedInitialState | None:
        """The ``LearnedInitialState`` that the states come from, or None."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        child = self.module.get_submodule(str(node.target))
        return child if isinstance(child, LearnedInitialState) else None

    def _is_input(self, state: object) -> bool:
        """Whether a state is an input of the module, or computed from inputs that are states."""
        pending, inputs = [state], set()
        while pending:
            node = pending.pop()
            if not isinstance(node, fx.Node):
                return False
            if node.op == "placeholder" and node is not self.source:
                inputs.add(str(node.target))
            elif node.target in _STATE_OPERATIONS and node.all_input_nodes:
                pending += node.all_input_nodes
            else:
                return False
        self.state_inputs |= inputs
        return True

    def _constant_rows(self, node: object, shape: tuple[int, int]) -> Tensor:
        """The state [L·D, 1, width] that is the same for all sequences.

        Args:
            shape: L·D and width.

        Raises:
            _NotConstantError: it depends on the sequence, or has another shape.
        """
        assert isinstance(node, fx.Node)
        axis = int(not self.layer.batch_first)
        single, double = (_Evaluation(self.module, self.data, axis, N).tensor(node) for N in (1, 2))
        rows, width = shape
        fits = single.dim() == 3 and (single.shape[0], single.shape[2]) == shape
        if not fits or double.shape not in ((rows, 2, width), single.shape):
            got: list[object] = list(single.shape)
            if single.dim() == 3:
                got[1] = "N"
            shown = ", ".join(map(str, got))
            raise _NotConstantError(
                node, f"initial states of shape [{rows}, N, {width}], not [{shown}]"
            )
        row = single[:, :1]
        if not all(torch.equal(state, row.expand_as(state)) for state in (single, double)):
            raise _NotConstantError(node, "initial states that are the same for all sequences")
        return row


class _Evaluation:
    """Evaluates the nodes that create a state, for a batch of N."""

    def __init__(self, module: nn.Module, data: set[fx.Node], axis: int, N: int) -> None:
        self.module, self.data, self.axis, self.N = module, data, axis, N
        self._values: dict[fx.Node, object] = {}

    def tensor(self, node: fx.Node) -> Tensor:
        value = self._value(node)
        if not isinstance(value, Tensor):
            raise _NotConstantError(node, "an initial state")
        return value

    def _value(self, node: fx.Node) -> object:
        if node not in self._values:
            self._values[node] = self._evaluate(node)
        return self._values[node]

    def _evaluate(self, node: fx.Node) -> object:
        if node.op == "get_attr":
            value = _attribute(self.module, str(node.target))
            return value.clone() if isinstance(value, Tensor) else value
        if any(sized in self.data for sized in _sized_by(node)):
            if _is_batch_size(node, self.axis):
                return self.N
            raise _NotConstantError(
                node,
                f"initial states with a row for each sequence, of which there are "
                f"x.size({self.axis})",
            )
        if node.target is getattr and node.args[1] in ("device", "dtype"):
            return torch.float32 if node.args[1] == "dtype" else torch.device("cpu")
        name = getattr(node.target, "__name__", str(node.target))
        if name in _IDENTITIES and isinstance(node.args[0], fx.Node):
            return self._value(node.args[0])
        if name not in _CREATORS:
            raise _NotConstantError(node, "initial states of zeros, or the same for all sequences")
        read = [argument for argument in node.all_input_nodes if argument in self.data]
        reads_type_only = name.startswith("new_") and read == [node.args[0]]
        if read and not reads_type_only:
            raise _NotConstantError(
                node, "initial states that do not depend on the numbers of the input"
            )
        return self._call(node)

    def _call(self, node: fx.Node) -> object:
        args = [self._resolve(argument) for argument in node.args]
        options = {
            key: self._resolve(value)
            for key, value in node.kwargs.items()
            if key not in ("device", "out")
        }
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **options)
        assert callable(node.target)
        return node.target(*args, **options)

    def _resolve(self, argument: object) -> object:
        """An argument with nodes replaced by their values."""
        if isinstance(argument, fx.Node):
            return torch.zeros(()) if argument in self.data else self._value(argument)
        if isinstance(argument, tuple | list):
            values = [self._resolve(value) for value in argument]
            return values if isinstance(argument, list) else tuple(values)
        if isinstance(argument, slice):
            return slice(*map(self._resolve, (argument.start, argument.stop, argument.step)))
        return argument


def _is_batch_size(node: fx.Node, axis: int) -> bool:
    """Whether a node is the size of a tensor along ``axis``."""
    if node.op == "call_method" and node.target == "size":
        return bool(node.args[1:] == (axis,) or node.kwargs.get("dim") == axis)
    sizes = node.args[0] if node.args else None
    if getattr(node.target, "__name__", "") != "getitem" or not isinstance(sizes, fx.Node):
        return False
    is_shape = sizes.op == "call_method" and sizes.target == "size" and len(sizes.args) == 1
    return bool(node.args[1] == axis) and (is_shape or _is_attribute(sizes, "shape"))


def _is_attribute(node: fx.Node, name: str) -> bool:
    return node.target is getattr and node.args[1] == name


def _sized_by(node: fx.Node) -> Iterator[fx.Node]:
    """The node whose size this node reads, if any."""
    owner = node.args[0] if node.args else None
    if not isinstance(owner, fx.Node):
        return
    if node.target == "size":
        yield owner
    elif getattr(node.target, "__name__", "") == "getitem" and (
        owner.target == "size" or _is_attribute(owner, "shape")
    ):
        yield from (argument for argument in owner.args[:1] if isinstance(argument, fx.Node))


def _attribute(module: nn.Module, path: str) -> object:
    value: object = module
    for name in path.split("."):
        value = getattr(value, name)
    return value
