"""What each operator of ONNX becomes in a torch module: layers here, the rest in ``arithmetic`` and
``rearranging``. An operator without a rule is refused by name, when its value is asked for: what
nothing needs may be anything.
"""

import operator
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from unrolled.cells import Sizes
from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.models.initial_state import LearnedInitialState
from unrolled.nn import Recurrent
from unrolled.onnx.directions import Directions
from unrolled.onnx.importer import math_rules, shape_rules
from unrolled.onnx.importer.graph_builder import (
    Builder,
    Node,
    RefusedError,
    Rule,
    Rules,
    Separated,
    Value,
)
from unrolled.onnx.importer.recurrent_node import (
    INPUTS,
    check_state,
    filled,
    from_node,
    read_attributes,
    where_of,
)
from unrolled.onnx.importer.scan_cell import read_body

__all__ = ["follow"]

RULES = Rules()
_LETTERS = {"W": 1, "R": 2, "B": 3, "P": 7}


def follow(b: Builder, node: onnx.NodeProto) -> None:
    """Give the outputs of a node their values; where that fails, the reason."""
    inputs = [b.values[name] if name else None for name in node.input]
    try:
        attributes = read_attributes(node)
        rule = _rule_of(node)
        b.shapes.follow(node, attributes)
        found = rule(b, Node(node, attributes, inputs))
    except RefusedError as error:
        found = [Value(refused=str(error))]
    except CORRUPT_FILE_ERRORS as error:
        told = str(error).replace("\n", " ")
        where = where_of(node)
        found = [Value(refused=told if told.startswith(where) else f"{where}: {told}")]
    found += [Value(refused=found[0].refused or f"{where_of(node)}: has no such output")] * len(
        node.output
    )
    b.note({name: value for name, value in zip(node.output, found, strict=False) if name})


def _rule_of(node: onnx.NodeProto) -> Rule:
    for table in (RULES, math_rules.RULES, shape_rules.RULES):
        if node.op_type in table and node.domain in ("", "ai.onnx"):
            return table[node.op_type]
    raise RefusedError(
        f"{where_of(node)}: wanted operators of layers, embeddings, products with weights and "
        "functions of numbers; layers_of gives a model's layers alone"
    )


@RULES.of("RNN", "LSTM", "GRU")
def _recurrent(b: Builder, n: Node) -> list[Value]:
    given = n.inputs + [None] * (8 - len(n.inputs))
    x, W, R, B, lengths, P = (*given[:5], given[7])
    weights = {
        name: one for name, one in zip(_LETTERS, (W, R, B, P), strict=True) if one is not None
    }
    tensors = {}
    for letter, value in weights.items():
        if value.array is None:
            raise RefusedError(f"{n.where}: wanted {letter} to be constant")
        tensors[n.proto.input[_LETTERS[letter]]] = value.array
    b.take(2 * sum(array.size for array in tensors.values()), n.where)
    layer = from_node(n.proto, tensors)
    D, H = weights["R"].array.shape[0], weights["R"].array.shape[2]
    if x.array is not None:  # outputs that no input has a part in
        b.take(x.array.size * D * H, n.where)
    batched = n.told.get("layout", 0) == 1
    layer.batch_first = batched != x.turned
    raw = b.raw(x)
    options: dict[str, Any] = {}
    if lengths is not None:
        options["lengths"] = b.node(lengths)
    states = given[5 : 7 if n.proto.op_type == "LSTM" else 6]
    fixed = [_has_shape(b, n, k + 5, one, D, H) for k, one in enumerate(states)]
    hx = _initial(b, states, fixed, batched, layer, raw)
    if hx is not None:
        options["hx"] = hx
    called = b.module(n.proto.op_type.lower(), layer, raw, **options)
    outputs = b.call(operator.getitem, called, 0)
    final = b.call(operator.getitem, called, 1)
    made = [shape_rules.separated(b, Separated(outputs, D, H, x.turned, last=batched))]
    for k in range(2 if n.proto.op_type == "LSTM" else 1):
        state = b.call(operator.getitem, final, k) if n.proto.op_type == "LSTM" else final
        plain = b.call(torch.transpose, state, 0, 1) if batched else state
        made.append(Value(plain, state_of_one=D == 1 and not batched))
    return made


@RULES.of("Scan")
def _scan(b: Builder, n: Node) -> list[Value]:
    count = len(n.inputs) - n.told["num_scan_inputs"]
    fed = n.inputs[count]
    linear = None if fed.node is None or fed.node.op != "call_module" else fed.node.target
    made = None if linear is None else b.root.get_submodule(str(linear))
    ways = {*n.told.get("scan_input_directions", [0]), *n.told.get("scan_output_directions", [0])}
    axes = [*n.told.get("scan_input_axes", []), *n.told.get("scan_output_axes", [])]
    if not isinstance(made, nn.Linear) or any(axes) or len(ways) != 1:
        raise RefusedError(
            f"{n.where}: wanted steps along the first axis of a product with weights"
        )
    body = read_body(
        n.told["body"], partial(_constant, b), count, made.out_features, made.bias is not None
    )
    own = {"weight_ih": made.weight.detach().numpy()} | body.parameters
    b.take(2 * sum(array.size for array in own.values()), n.where)
    if made.bias is not None:
        own["bias_ih"] = made.bias.detach().numpy()
    width = body.cell.state_widths(Sizes(1, 1, 1))[0]
    sizes = (made.in_features, width, True, fed.turned, made.weight.dtype)
    layer: nn.Module = filled(body.cell, sizes, [own])
    if ways == {1}:
        layer = Directions(None, layer)  # type: ignore[arg-type]
    options: dict[str, Any] = {}
    if body.masked:
        if n.inputs[count + 1].until is None:
            raise RefusedError(f"{n.where}: wanted a comparison of steps with lengths")
        options["lengths"] = n.inputs[count + 1].until
    if any(one.fill != 0 for one in n.inputs[:count]):
        states = [b.call(torch.unsqueeze, b.node(one), 0) for one in n.inputs[:count]]
        options["hx"] = tuple(states) if count > 1 else states[0]
    called = b.module("layer", layer, fed.node.args[0], **options)
    output = Value(b.call(operator.getitem, called, 0), turned=fed.turned)
    final = b.call(operator.getitem, called, 1)
    found = [b.call(operator.getitem, final, k) if count > 1 else final for k in range(count)]
    return [*(_lifted(b, one) for one in found), output]


def _lifted(b: Builder, state: fx.Node) -> Value:
    """The only row of a final state [1, N, width]."""
    return Value(b.call(operator.getitem, state, -1), lifted=Value(state, state_of_one=True))


def _constant(b: Builder, name: str) -> np.ndarray:
    value = b.values.get(name)
    if value is None or value.array is None:
        raise ValueError(f"{name!r}: wanted a constant")
    return value.array


def _has_shape(b: Builder, n: Node, at: int, state: Value | None, D: int, H: int) -> bool:
    """Whether an initial state is left out, or certain to have the sizes that a layer wants.

    Raises:
        ValueError: it is certain not to.
    """
    if state is None:
        return True
    if state.array is not None:
        b.take(state.array.size, n.where)
    name, given = INPUTS[n.proto.op_type][at], n.proto.input[at]
    shape = b.dims(given) if state.array is None else list(state.array.shape)
    if shape is None or not check_state(n.proto, name, shape, D, H):
        return False
    axis = int(n.told.get("layout", 0) != 1)
    fed = b.dims(n.proto.input[0])
    N = fed[axis] if fed is not None and len(fed) == 3 else ""
    if state.array is not None and isinstance(N, int) and shape[axis] != N:
        raise ValueError(f"{n.where}: {name} must have {N} sequences, as X, got {shape[axis]}")
    return True


def _initial(
    b: Builder, given: list[Any], fixed: list[bool], batched: bool, layer: nn.Module, x: fx.Node
) -> Any:
    """What a layer takes as ``hx``; None where all states are zeros that fit. Zeros of a shape that
    is not certain (``fixed``) are handed to the layer, which checks them."""
    zero = [
        one is None or (fit and (one.fill == 0 or (one.array is not None and not one.array.any())))
        for one, fit in zip(given, fixed, strict=True)
    ]
    if all(zero):
        return None
    rows = [None if z else _row(one) for one, z in zip(given, zero, strict=True)]
    known = all(z or row is not None for z, row in zip(zero, rows, strict=True))
    if known and isinstance(layer, Recurrent) and not batched:
        start = LearnedInitialState(layer)
        for state, row in zip(start.states, rows, strict=True):
            if row is not None:
                state.data = b.parameter(row, "initial state").data
        N = b.graph.call_method("size", (x, 0 if layer.batch_first else 1))
        return b.module("start", start, N)
    # What a module is given has a row for each sequence already.
    wide = [
        one.narrow if one is not None and one.narrow is not None and one.narrow.array is None
        else one
        for one in given
    ]  # fmt: skip
    nodes = [None if one is None else b.node(one) for one in wide]
    like = next(one for one in nodes if one is not None)
    whole = [b.call(torch.zeros_like, like) if one is None else one for one in nodes]
    if batched:
        whole = [b.call(torch.transpose, one, 0, 1) for one in whole]
    return tuple(whole) if len(whole) > 1 else whole[0]


def _row(value: Value) -> np.ndarray | None:
    """A state that is constant and the same for all rows, [D, 1, H]."""
    array = value.array if value.narrow is None else value.narrow.array
    return array if array is not None and array.ndim == 3 and array.shape[1] == 1 else None
