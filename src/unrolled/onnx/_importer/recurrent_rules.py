"""Rules for the operators RNN, LSTM, GRU and Scan, which become layers."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx
from torch.fx.node import Argument

from unrolled.cells import Sizes
from unrolled.models._initial_state import LearnedInitialState
from unrolled.nn import Recurrent
from unrolled.onnx._directions import Directions
from unrolled.onnx._importer.graph_builder import GraphBuilder, ImportedNode, RuleTable
from unrolled.onnx._importer.recurrent_node import (
    INPUTS,
    LayerOptions,
    check_state,
    filled_layer,
    from_node,
)
from unrolled.onnx._importer.scan_body import ScanBody, read_body
from unrolled.onnx._importer.scan_input import ScanInput, input_product
from unrolled.onnx._importer.shape_rules import layer_output
from unrolled.onnx._importer.values import LayerOutput, RefusedError, Value

RULES = RuleTable()
_WEIGHT_INPUTS = {"W": 1, "R": 2, "B": 3, "P": 7}


@RULES.register("RNN", "LSTM", "GRU")
def _recurrent(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, lengths, is_lstm = n.input(0), n.optional_input(4), n.proto.op_type == "LSTM"
    weights = _constant_weights(n)
    b.charge(2 * sum(array.size for array in weights.values()), n.label)
    layer = from_node(n.proto, weights)
    D, _, H = weights[n.proto.input[_WEIGHT_INPUTS["R"]]].shape
    if x.array is not None:  # the outputs depend on no input of the graph
        b.charge(x.array.size * D * H, n.label)
    batched = n.attributes.get("layout", 0) == 1
    layer.batch_first = batched != x.swapped
    node = b.stored_node(x)
    options: dict[str, Argument] = {}
    if lengths is not None:
        options["lengths"] = b.node(lengths)
    initial_states = (
        [n.optional_input(5), n.optional_input(6)] if is_lstm else [n.optional_input(5)]
    )
    states = _InitialStates(
        initial_states,
        [_has_shape(b, n, 5 + k, state, D, H) for k, state in enumerate(initial_states)],
        batched,
    )
    hx = states.argument(b, layer, node)
    if hx is not None:
        options["hx"] = hx
    result = b.call_module(n.proto.op_type.lower(), layer, node, **options)
    output = b.call(operator.getitem, result, 0)
    final = b.call(operator.getitem, result, 1)
    values = [layer_output(b, LayerOutput(output, D, H, x.swapped, directions_last=batched))]
    for k in range(2 if is_lstm else 1):
        state = b.call(operator.getitem, final, k) if is_lstm else final
        node = b.call(torch.transpose, state, 0, 1) if batched else state
        values.append(Value(node, is_single_state=D == 1 and not batched))
    return values


def _constant_weights(n: ImportedNode) -> dict[str, np.ndarray]:
    """The weights of a recurrent node by their names in the graph."""
    arrays: dict[str, np.ndarray] = {}
    for letter, index in _WEIGHT_INPUTS.items():
        value = n.optional_input(index)
        if value is None:
            continue
        if value.array is None:
            raise RefusedError(f"{n.label}: {letter} must be constant, got a computed value")
        arrays[n.proto.input[index]] = value.array
    return arrays


def _has_shape(
    b: GraphBuilder, n: ImportedNode, index: int, state: Value | None, D: int, H: int
) -> bool:
    """Whether an initial state is omitted, or certainly has the sizes that a layer requires.

    Raises:
        ValueError: it certainly has other sizes.
    """
    if state is None:
        return True
    if state.array is not None:
        b.charge(state.array.size, n.label)
    name = INPUTS[n.proto.op_type][index]
    shape = b.dims(n.proto.input[index]) if state.array is None else list(state.array.shape)
    if shape is None or not check_state(n.proto, name, shape, D, H):
        return False
    axis = int(n.attributes.get("layout", 0) != 1)
    x_dims = b.dims(n.proto.input[0])
    N = x_dims[axis] if x_dims is not None and len(x_dims) == 3 else ""
    if state.array is not None and isinstance(N, int) and shape[axis] != N:
        raise ValueError(f"{n.label}: {name} must have {N} sequences, as X, got {shape[axis]}")
    return True


@dataclass(frozen=True)
class _InitialStates:
    """The initial states of a recurrent node.

    ``have_shape`` says for each whether its shape is certainly right. Zeros of another shape are
    passed to the layer, which checks them.
    """

    values: Sequence[Value | None]
    have_shape: Sequence[bool]
    batched: bool

    def argument(self, b: GraphBuilder, layer: Recurrent | Directions, x: fx.Node) -> Argument:
        """The argument ``hx`` of the layer; None if all states are zeros of the right shape."""
        are_zero = [
            value is None or (fits and _is_zero(value))
            for value, fits in zip(self.values, self.have_shape, strict=True)
        ]
        if all(are_zero):
            return None
        rows = [
            None if zero or value is None else _shared_row(value)
            for value, zero in zip(self.values, are_zero, strict=True)
        ]
        are_shared = all(zero or row is not None for zero, row in zip(are_zero, rows, strict=True))
        if are_shared and isinstance(layer, Recurrent) and not self.batched:
            return _learned(b, layer, rows, x)
        return self._computed(b)

    def _computed(self, b: GraphBuilder) -> Argument:
        nodes = [None if value is None else b.node(_per_sequence(value)) for value in self.values]
        like = next(node for node in nodes if node is not None)
        states = [b.call(torch.zeros_like, like) if node is None else node for node in nodes]
        if self.batched:
            states = [b.call(torch.transpose, state, 0, 1) for state in states]
        return tuple(states) if len(states) > 1 else states[0]


def _is_zero(value: Value) -> bool:
    return value.fill == 0 or (value.array is not None and not value.array.any())


def _shared_row(value: Value) -> np.ndarray | None:
    """A constant state that is equal for all sequences, [D, 1, H]; else None."""
    array = value.array if value.unexpanded is None else value.unexpanded.array
    return array if array is not None and array.ndim == 3 and array.shape[1] == 1 else None


def _per_sequence(value: Value) -> Value:
    """A state with a row for each sequence; an argument of the module has these rows already."""
    unexpanded = value.unexpanded
    return value if unexpanded is None or unexpanded.array is not None else unexpanded


def _learned(
    b: GraphBuilder, layer: Recurrent, rows: Sequence[np.ndarray | None], x: fx.Node
) -> fx.Node:
    """Constant initial states as parameters, expanded to the batch of x."""
    start = LearnedInitialState(layer)
    for state, row in zip(start.states, rows, strict=True):
        if row is not None:
            state.data = b.parameter(row, "initial state").data
    N = b.graph.call_method("size", (x, 0 if layer.batch_first else 1))
    return b.call_module("start", start, N)


@RULES.register("Scan")
def _scan(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    count = len(n.inputs) - n.attributes.integer("num_scan_inputs")
    reverse, product = _scan_direction(n), input_product(b, n, n.input(count))
    body = read_body(
        n.attributes.graph("body"), lambda name: _constant(b, name), count, product.form
    )
    recurrent = _scan_layer(b, n, body, product)
    layer = Directions(None, recurrent) if reverse else recurrent
    options = _scan_options(b, n, body, count)
    result = b.call_module("layer", layer, product.source, **options)
    output = Value(b.call(operator.getitem, result, 0), swapped=product.swapped)
    final = b.call(operator.getitem, result, 1)
    states = [b.call(operator.getitem, final, k) if count > 1 else final for k in range(count)]
    return [*(_state_row(b, state) for state in states), output]


def _scan_direction(n: ImportedNode) -> bool:
    """Whether a Scan runs backward, along the first axis of all inputs and outputs."""
    directions = {
        *(n.attributes.integers("scan_input_directions") or [0]),
        *(n.attributes.integers("scan_output_directions") or [0]),
    }
    axes = [
        *(n.attributes.integers("scan_input_axes") or []),
        *(n.attributes.integers("scan_output_axes") or []),
    ]
    if any(axes) or len(directions) != 1:
        raise RefusedError(
            f"{n.label}: steps must go along the first axis in one direction, got axes {axes} and "
            f"directions {sorted(directions)}"
        )
    return directions == {1}


def _scan_layer(b: GraphBuilder, n: ImportedNode, body: ScanBody, product: ScanInput) -> Recurrent:
    parameters = {"weight_ih": product.weight} | body.parameters
    b.charge(2 * sum(array.size for array in parameters.values()), n.label)
    if product.bias is not None:
        parameters["bias_ih"] = product.bias
    hidden_size = body.cell.state_widths(Sizes(1, 1, 1))[0]
    options = LayerOptions(
        product.weight.shape[1] * product.blocks,
        hidden_size,
        bias=True,
        batch_first=product.swapped,
        dtype=torch.from_numpy(product.weight).dtype,
    )
    return filled_layer(body.cell, options, [parameters])


def _scan_options(
    b: GraphBuilder, n: ImportedNode, body: ScanBody, count: int
) -> dict[str, Argument]:
    """Lengths and initial states of the layer that a Scan becomes."""
    options: dict[str, Argument] = {}
    if body.masked:
        lengths = n.input(count + 1).lengths
        if lengths is None:
            raise RefusedError(
                f"{n.label}: its mask must be a comparison of steps with lengths, got another value"
            )
        options["lengths"] = lengths
    initial_states = [n.input(k) for k in range(count)]
    if any(state.fill != 0 for state in initial_states):
        states = [b.call(torch.unsqueeze, b.node(state), 0) for state in initial_states]
        options["hx"] = tuple(states) if count > 1 else states[0]
    return options


def _state_row(b: GraphBuilder, state: fx.Node) -> Value:
    """The only row of a final state [1, N, width]."""
    row = b.call(operator.getitem, state, -1)
    return Value(row, unsqueezed=Value(state, is_single_state=True))


def _constant(b: GraphBuilder, name: str) -> np.ndarray:
    value = b.values.get(name)
    if value is None or value.array is None:
        raise ValueError(f"{name!r} must be constant, got a computed value")
    return value.array
