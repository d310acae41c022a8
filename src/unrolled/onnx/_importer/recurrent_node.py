"""Converts an RNN, LSTM or GRU node to a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import onnx
import torch

from unrolled.cells import Cell
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.onnx._activations import ACTIVATIONS, Activation
from unrolled.onnx._directions import Directions
from unrolled.onnx._gate_orders import (
    GATES,
    biases_from_onnx,
    from_onnx,
    peepholes_from_onnx,
)
from unrolled.onnx._importer.attributes import STANDARD_DOMAINS, Attributes, node_label
from unrolled.onnx._operator_cells import DEFAULTS, Operator, cell_of

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
}
"""The names of each operator's inputs, in order."""

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_FLOAT_TYPES = (np.float32, np.float64, np.float16)
_ATTRIBUTES = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
    "input_forget", "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip


@dataclass(frozen=True)
class _Weights:
    """The weights of a node: W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], P [D, 3·H]."""

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None
    P: np.ndarray | None = None


@dataclass(frozen=True)
class LayerOptions:
    """The sizes and options of a layer that a node becomes."""

    input_size: int
    hidden_size: int
    bias: bool
    batch_first: bool
    dtype: torch.dtype


def is_recurrent(node: onnx.NodeProto) -> bool:
    """Whether a node is one of the three standard operators."""
    return node.domain in STANDARD_DOMAINS and node.op_type in INPUTS


def from_node(node: onnx.NodeProto, tensors: Mapping[str, np.ndarray]) -> Recurrent | Directions:
    """Convert an RNN, LSTM or GRU node to a layer with its equations and weights.

    The layer is a :class:`unrolled.nn.LSTM`, ``GRU`` or ``RNN`` if it has their equations, else a
    :class:`unrolled.nn.Recurrent`; a node that runs only backward, or has a different cell in each
    direction, becomes a :class:`Directions`. With ``layout`` 1 the layer is ``batch_first``.
    Without B it has no biases. Lengths and initial states are arguments of the layer's calls.

    Args:
        node: the node.
        tensors: the node's W, R, B and P by their names in the graph.

    Raises:
        ValueError: the node is not one of the three, an attribute or a shape is wrong, or a weight
            is missing.
    """
    if not is_recurrent(node):
        raise ValueError(f"from_node: node must be RNN, LSTM or GRU, got {node.op_type!r}")
    names = dict(zip(INPUTS[node.op_type], node.input, strict=False))
    arrays: dict[str, np.ndarray] = {}
    for letter in "WRBP":
        name = names.get(letter, "")
        if name and name not in tensors:
            raise ValueError(
                f"{node_label(node)}: {letter} must be among the tensors, got no {name!r}"
            )
        if name:
            arrays[letter] = np.asarray(tensors[name])
    if "W" not in arrays or "R" not in arrays:
        raise ValueError(f"{node_label(node)}: inputs must include W and R, got {list(node.input)}")
    try:
        return _layer(node, _Weights(**arrays))
    except (ValueError, TypeError) as error:
        label = node_label(node)
        message = str(error)
        raise ValueError(message if message.startswith(label) else f"{label}: {message}") from error


def _layer(node: onnx.NodeProto, weights: _Weights) -> Recurrent | Directions:
    op, attributes = node.op_type, Attributes(node)
    if unknown := set(attributes) - _ATTRIBUTES:
        raise ValueError(f"attributes must be those of ONNX, got {', '.join(sorted(unknown))}")
    direction = attributes.get("direction", "forward")
    if not isinstance(direction, str) or direction not in _DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(_DIRECTIONS)}, got {direction!r}")
    D = _DIRECTIONS[direction]
    I, H = _checked_sizes(op, weights, D, attributes.get("hidden_size"))  # noqa: E741
    layout = attributes.get("layout", 0)
    if layout not in (0, 1):
        raise ValueError(f"layout must be 0 or 1, got {layout!r}")
    operators = _operators(op, attributes, D, weights.P is not None)
    cells = [cell_of(operator) for operator in operators]
    parameters = [_parameters(op, cells[d], weights, d) for d in range(D)]
    dtype = torch.from_numpy(np.empty(0, weights.W.dtype)).dtype
    options = LayerOptions(I, H, weights.B is not None, layout == 1, dtype)
    if direction == "forward" or (D == 2 and operators[0] == operators[1]):
        return filled_layer(cells[0], options, parameters)
    layers = [filled_layer(cells[d], options, [parameters[d]]) for d in range(D)]
    return Directions(None, layers[0]) if D == 1 else Directions(layers[0], layers[1])


def _checked_sizes(op: str, weights: _Weights, D: int, hidden_size: object) -> tuple[int, int]:
    """I and H, after checking the shapes of all weights."""
    W, R = weights.W, weights.R
    if W.ndim != 3 or R.ndim != 3 or 0 in W.shape or 0 in R.shape:
        raise ValueError(
            f"W and R must have shapes [D, G·H, I] and [D, G·H, H], got {list(W.shape)} and "
            f"{list(R.shape)}"
        )
    I, H = W.shape[2], R.shape[2]  # noqa: E741
    if hidden_size not in (None, H):
        raise ValueError(f"hidden_size must be {H}, as in R {list(R.shape)}, got {hidden_size!r}")
    G = len(GATES[op][0])
    _check_weight("W", W, (D, G * H, I), W.dtype)
    _check_weight("R", R, (D, G * H, H), W.dtype)
    _check_weight("B", weights.B, (D, 2 * G * H), W.dtype)
    _check_weight("P", weights.P, (D, 3 * H), W.dtype)
    return I, H


def _check_weight(
    name: str, array: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> None:
    if array is None:
        return
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(array.shape)}")
    if array.dtype != dtype or array.dtype not in _FLOAT_TYPES:
        raise ValueError(f"{name} must be float32, float64 or float16, as W, got {array.dtype}")


def check_state(
    node: onnx.NodeProto, name: str, shape: Sequence[int | str], D: int, H: int
) -> bool:
    """Whether an initial state, some of whose sizes may be names, certainly has the sizes D and H
    that the operator requires.

    Raises:
        ValueError: it certainly has other sizes.
    """
    batched = Attributes(node).get("layout", 0) == 1
    required: list[int | str] = ["N", D, H] if batched else [D, "N", H]
    axes = (1 if batched else 0, 2)
    if len(shape) != 3 or any(
        shape[axis] != required[axis] for axis in axes if isinstance(shape[axis], int)
    ):
        sizes = ", ".join(str(size) or "?" for size in shape)
        raise ValueError(
            f"{node_label(node)}: {name} must have shape [{', '.join(map(str, required))}], got "
            f"[{sizes}]"
        )
    return all(isinstance(shape[axis], int) for axis in axes)


def _operators(op: str, attributes: Attributes, D: int, peepholes: bool) -> list[Operator]:
    """The equations of each direction."""
    defaults = [activation.name for activation in DEFAULTS[op]]
    names = attributes.texts("activations") or defaults * D
    if op == "RNN" and len(names) == 2 and D == 1:
        names = names[:1]  # the default of the definition names two, for two directions
    count = len(defaults)
    if len(names) != count * D:
        raise ValueError(f"activations must have {count * D} items, got {names}")
    activations = _activations(names, attributes)
    return [
        Operator(
            op,
            tuple(activations[d * count : (d + 1) * count]),
            attributes.number("clip"),
            attributes.flag("input_forget"),
            attributes.flag("linear_before_reset"),
            peepholes,
        )
        for d in range(D)
    ]


def _activations(names: list[str], attributes: Attributes) -> list[Activation]:
    """The named functions, with their α and β."""
    exact_names = {name.lower(): name for name in ACTIVATIONS}
    unknown = [name for name in names if name.lower() not in exact_names]
    if unknown:
        raise ValueError(f"activations must be among {', '.join(ACTIVATIONS)}, got {unknown[0]!r}")
    functions = [exact_names[name.lower()] for name in names]
    have_alpha = [ACTIVATIONS[name].alpha is not None for name in functions]
    have_beta = [ACTIVATIONS[name].beta is not None for name in functions]
    alphas = _assigned("activation_alpha", functions, have_alpha, attributes)
    betas = _assigned("activation_beta", functions, have_beta, attributes)
    return [Activation(*fields) for fields in zip(functions, alphas, betas, strict=True)]


def _assigned(
    attribute: str, functions: list[str], have_parameter: list[bool], attributes: Attributes
) -> list[float | None]:
    """α or β of each function. Functions that have the parameter consume the numbers in order.

    A list with a number for every function, even those without the parameter, is read by position;
    it raises an error if this gives other values.
    """
    numbers = attributes.numbers(attribute)
    remaining = iter(numbers)
    consumed = [next(remaining, None) if has else None for has in have_parameter]
    if len(numbers) > sum(have_parameter):
        by_position = [
            number if has else None for has, number in zip(have_parameter, numbers, strict=False)
        ]
        by_position += [None] * (len(have_parameter) - len(by_position))
        if by_position != consumed:
            raise ValueError(
                f"{attribute} must have {sum(have_parameter)} numbers, one for each of "
                f"{', '.join(functions)} that has this parameter, got {numbers}"
            )
    return consumed


def _parameters(op: str, cell: Cell, weights: _Weights, d: int) -> dict[str, np.ndarray]:
    """The parameters of direction d by their names without suffix, with our order of gates."""
    our_order = GATES[op][0]
    gates = cell.gates or tuple(our_order)

    def select(rows: np.ndarray, selected: tuple[str, ...]) -> np.ndarray:
        blocks = dict(zip(our_order, np.split(rows, len(our_order)), strict=True))
        return np.concatenate([blocks[gate] for gate in selected])

    assert cell.recurrent is not None
    recurrent = cell.recurrent.targets or gates
    candidate = tuple(gate for gate in gates if gate not in recurrent)  # fed by its own product
    R = from_onnx(op, weights.R[d])
    parameters = {
        "weight_ih": select(from_onnx(op, weights.W[d]), gates),
        "weight_hh": select(R, recurrent),
    }
    if candidate:
        parameters["weight_candidate"] = select(R, candidate)
    if weights.B is not None:
        input_bias, recurrent_bias = biases_from_onnx(op, weights.B[d])
        parameters["bias_ih"] = select(input_bias, gates)
        parameters["bias_hh"] = select(recurrent_bias, recurrent)
        if candidate:
            parameters["bias_candidate"] = select(recurrent_bias, candidate)
    if weights.P is not None:
        peepholes = peepholes_from_onnx(weights.P[d])
        parameters |= {name: peepholes[name] for name in cell.vectors}
    return parameters


def filled_layer(
    cell: Cell, options: LayerOptions, parameters: Sequence[Mapping[str, np.ndarray]]
) -> Recurrent:
    """Build a layer with these parameters, one mapping for each direction, without drawing random
    numbers."""
    with torch.random.fork_rng(devices=[]):
        layer = _new_layer(cell, options, bidirectional=len(parameters) == 2)
    with torch.no_grad():
        for arrays, suffix in zip(parameters, ("_l0", "_l0_reverse"), strict=False):
            for name, array in arrays.items():
                getattr(layer, name + suffix).copy_(torch.from_numpy(np.array(array)))
    return layer


class _Keywords(TypedDict):
    bias: bool
    batch_first: bool
    bidirectional: bool
    dtype: torch.dtype


def _new_layer(cell: Cell, options: LayerOptions, bidirectional: bool) -> Recurrent:
    """Build an ``unrolled.nn.RNN``, ``LSTM`` or ``GRU`` for their cells, else a ``Recurrent``."""
    keywords: _Keywords = {
        "bias": options.bias,
        "batch_first": options.batch_first,
        "bidirectional": bidirectional,
        "dtype": options.dtype,
    }
    I, H = options.input_size, options.hidden_size  # noqa: E741
    name = type(cell).__name__
    if type(cell).__module__ != "unrolled.cells._classic":
        return Recurrent(cell, I, H, **keywords)
    if name == "RNN":
        function = vars(cell)["activation"]
        function_name = getattr(function, "__name__", "")
        is_named = function_name in ("tanh", "relu")
        return RNN(I, H, nonlinearity=function_name if is_named else function, **keywords)
    return LSTM(I, H, **keywords) if name == "LSTM" else GRU(I, H, **keywords)
