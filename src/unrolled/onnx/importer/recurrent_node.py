"""One node RNN, LSTM or GRU as a layer: its attributes read, its weights brought to our order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from unrolled.cells import Cell
from unrolled.nn import GRU, LSTM, RNN, Recurrent
from unrolled.onnx import gate_orders
from unrolled.onnx.directions import Directions
from unrolled.onnx.operator_cells import ACTIVATIONS, DEFAULTS, Activation, Operator, cell_of

__all__ = [
    "INPUTS",
    "Weights",
    "check_state",
    "filled",
    "from_node",
    "is_recurrent",
    "read_attributes",
]

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
}
"""Of each operator, in order."""

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_FLOATS = (np.float32, np.float64, np.float16)
_ATTRIBUTES = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
    "input_forget", "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The weights of a node: W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], P [D, 3·H]."""

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None
    P: np.ndarray | None = None


def is_recurrent(node: onnx.NodeProto) -> bool:
    """Whether a node is one of the three operators of the standard."""
    return node.domain in ("", "ai.onnx") and node.op_type in INPUTS


def from_node(node: onnx.NodeProto, tensors: Mapping[str, np.ndarray]) -> nn.Module:
    """The layer that a node RNN, LSTM or GRU is.

    A :class:`unrolled.nn.LSTM`, ``GRU`` or ``RNN`` where its equations are theirs, else a
    :class:`unrolled.nn.Recurrent`; a node that runs backward alone, or has another cell in each
    direction, is a :class:`Directions`. With ``layout`` 1 it is ``batch_first``. Without B it has
    no biases. Lengths and initial states are for whoever calls it.

    Args:
        tensors: the node's W, R, B and P by their names in the graph.

    Raises:
        ValueError: the node is none of the three, an attribute or a shape does not fit, or a
            weight is missing.
    """
    if not is_recurrent(node):
        raise ValueError(f"node: wanted RNN, LSTM or GRU, got {node.op_type!r}")
    names = dict(zip(INPUTS[node.op_type], node.input, strict=False))
    found = {}
    for letter in "WRBP":
        name = names.get(letter, "")
        if name and name not in tensors:
            raise ValueError(f"{where_of(node)}: {letter} ({name!r}) is not among the tensors")
        found[letter] = np.asarray(tensors[name]) if name else None
    if found["W"] is None or found["R"] is None:
        raise ValueError(f"{where_of(node)}: wanted W and R, got {list(node.input)}")
    weights = Weights(found["W"], found["R"], found["B"], found["P"])
    try:
        return _layer(node, weights)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where_of(node)}: {error}") from error


def where_of(node: onnx.NodeProto) -> str:
    """A node as messages name it."""
    return f"{node.op_type} {node.name or ', '.join(node.output)!r}"


def read_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, bytes as text.

    Raises:
        ValueError: one refers to an attribute of a function, or is no text where text is wanted.
    """
    found: dict[str, Any] = {}
    for one in node.attribute:
        if one.ref_attr_name:
            raise ValueError(f"{where_of(node)}: {one.name} is an attribute of a function")
        found[one.name] = _plain(onnx.helper.get_attribute_value(one))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated"):
        return [_plain(one) for one in value]
    return value


def _layer(node: onnx.NodeProto, weights: Weights) -> nn.Module:
    kind, told = node.op_type, read_attributes(node)
    if unknown := set(told) - _ATTRIBUTES:
        raise ValueError(f"unknown attributes: {', '.join(sorted(unknown))}")
    direction = told.get("direction", "forward")
    if direction not in _DIRECTIONS:
        raise ValueError(f"direction: wanted one of {', '.join(_DIRECTIONS)}, got {direction!r}")
    D = _DIRECTIONS[direction]
    I, H = _check_shapes(kind, weights, D, told.get("hidden_size"))  # noqa: E741
    if told.get("layout", 0) not in (0, 1):
        raise ValueError(f"layout: wanted 0 or 1, got {told['layout']!r}")
    batch_first = told.get("layout", 0) == 1
    operators = _operators(kind, told, D, weights.P is not None)
    cells = [cell_of(operator) for operator in operators]
    own = [_parameters(kind, cells[d], weights, d) for d in range(D)]
    dtype = torch.from_numpy(np.empty(0, weights.W.dtype)).dtype
    sizes = (I, H, weights.B is not None, batch_first, dtype)
    if direction == "forward" or (D == 2 and operators[0] == operators[1]):
        return filled(cells[0], sizes, own)
    alone = [filled(cell, sizes, [one]) for cell, one in zip(cells, own, strict=True)]
    return Directions(None, alone[0]) if D == 1 else Directions(alone[0], alone[1])


def _check_shapes(kind: str, weights: Weights, D: int, hidden: Any) -> tuple[int, int]:
    """I and H; every weight has the shape that follows from them."""
    W, R = weights.W, weights.R
    if W.ndim != 3 or R.ndim != 3 or 0 in W.shape or 0 in R.shape:
        raise ValueError(
            f"wanted W [D, G·H, I] and R [D, G·H, H], got {list(W.shape)} and {list(R.shape)}"
        )
    I, H = W.shape[2], R.shape[2]  # noqa: E741
    if hidden not in (None, H):
        raise ValueError(f"hidden_size: wanted {H} as R {list(R.shape)} says, got {hidden!r}")
    G = len(gate_orders.GATES[kind][0])
    wanted = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
    for name, shape in wanted.items():
        array = getattr(weights, name)
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: wanted shape {list(shape)}, got {list(array.shape)}")
        if array is not None and (array.dtype != W.dtype or array.dtype not in _FLOATS):
            raise ValueError(f"{name}: wanted float32, float64 or float16, as W, got {array.dtype}")
    return I, H


def check_state(
    node: onnx.NodeProto, name: str, shape: Sequence[int | str], D: int, H: int
) -> bool:
    """Whether an initial state, of which some sizes may be known by names only, is certain to have
    D and H where the operator wants them.

    Raises:
        ValueError: it is certain not to.
    """
    batched = read_attributes(node).get("layout", 0) == 1
    wanted: list[int | str] = ["N", D, H] if batched else [D, "N", H]
    checked = (1 if batched else 0, 2)
    fits = len(shape) == 3 and all(
        shape[k] == wanted[k] for k in checked if isinstance(shape[k], int)
    )
    if not fits:
        plain = ", ".join(map(str, wanted))
        sizes = ", ".join(str(size) or "?" for size in shape)
        raise ValueError(f"{where_of(node)}: {name} must have shape [{plain}], got [{sizes}]")
    return all(isinstance(shape[k], int) for k in checked)


def _operators(kind: str, told: dict[str, Any], D: int, peepholes: bool) -> list[Operator]:
    """What the node says of each direction."""
    usual = [one.name for one in DEFAULTS[kind]]
    names = told.get("activations") or usual * D
    if kind == "RNN" and len(names) == 2 and D == 1:
        names = names[:1]  # the default of the definition names two, for two directions
    if len(names) != len(usual) * D:
        raise ValueError(f"activations: wanted {len(usual) * D} of them, got {names}")
    flags = {name: bool(told.get(name, 0)) for name in ("input_forget", "linear_before_reset")}
    functions = _activations(names, told)
    size = len(usual)
    return [
        Operator(
            kind, tuple(functions[d * size : (d + 1) * size]), told.get("clip"),
            peepholes=peepholes, **flags,
        )
        for d in range(D)
    ]  # fmt: skip


def _activations(names: list[Any], told: dict[str, Any]) -> list[Activation]:
    """The functions that are named, with their α and β."""
    exact = {name.lower(): name for name in ACTIVATIONS}
    unknown = [name for name in names if str(name).lower() not in exact]
    if unknown:
        raise ValueError(
            f"activations: wanted some of {', '.join(ACTIVATIONS)}, got {unknown[0]!r}"
        )
    known = [exact[str(name).lower()] for name in names]
    alphas = _numbers("alpha", known, told.get("activation_alpha") or [])
    betas = _numbers("beta", known, told.get("activation_beta") or [])
    return [Activation(*one) for one in zip(known, alphas, betas, strict=True)]


def _numbers(letter: str, names: list[str], given: list[float]) -> list[float | None]:
    """α or β of each function: those that have one take from the list in their order.

    A list with a number for each function, also those that have none, is read by place; where the
    two readings differ, it is refused.
    """
    takes = [getattr(ACTIVATIONS[name], letter) is not None for name in names]
    rest = iter(given)
    consumed = [next(rest, None) if one else None for one in takes]
    if len(given) > sum(takes):
        placed = [number if one else None for one, number in zip(takes, given, strict=False)]
        if placed + [None] * (len(takes) - len(placed)) != consumed:
            raise ValueError(
                f"activation_{letter}: wanted {sum(takes)} numbers, one for each of "
                f"{', '.join(names)} that has one, got {given}"
            )
    return consumed


def _parameters(kind: str, cell: Cell, weights: Weights, d: int) -> dict[str, np.ndarray]:
    """One direction's parameters by their plain names, in our order."""
    ours = gate_orders.GATES[kind][0]
    gates = cell.gates or tuple(ours)

    def blocks(rows: np.ndarray, wanted: tuple[str, ...]) -> np.ndarray:
        parts = dict(zip(ours, np.split(rows, len(ours)), strict=True))
        return np.concatenate([parts[gate] for gate in wanted])

    assert cell.recurrent is not None
    recurrent = cell.recurrent.targets or gates
    own = tuple(gate for gate in gates if gate not in recurrent)  # fed by a product of its own
    R = gate_orders.from_onnx(kind, weights.R[d])
    found = {
        "weight_ih": blocks(gate_orders.from_onnx(kind, weights.W[d]), gates),
        "weight_hh": blocks(R, recurrent),
    }
    if own:
        found["weight_candidate"] = blocks(R, own)
    if weights.B is not None:
        first, second = gate_orders.biases_from_onnx(kind, weights.B[d])
        found["bias_ih"], found["bias_hh"] = blocks(first, gates), blocks(second, recurrent)
        if own:
            found["bias_candidate"] = blocks(second, own)
    if weights.P is not None:
        peepholes = gate_orders.peepholes_from_onnx(weights.P[d])
        found |= {name: peepholes[name] for name in cell.vectors}
    return found


def filled(cell: Cell, sizes: tuple[Any, ...], own: list[dict[str, np.ndarray]]) -> Recurrent:
    """A layer with these parameters, one dictionary a direction; no random number is drawn."""
    I, H, bias, batch_first, dtype = sizes  # noqa: E741
    both = len(own) == 2
    options: dict[str, Any] = {
        "bias": bias, "batch_first": batch_first, "bidirectional": both, "dtype": dtype,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        layer = _built(cell, I, H, options)
    with torch.no_grad():
        for parameters, suffix in zip(own, ("_l0", "_l0_reverse"), strict=False):
            for name, array in parameters.items():
                getattr(layer, name + suffix).copy_(torch.from_numpy(np.array(array)))
    return layer


def _built(cell: Cell, I: int, H: int, options: dict[str, Any]) -> Recurrent:  # noqa: E741
    """torch.nn's three by their names, where the cell is theirs."""
    name = type(cell).__name__
    if type(cell).__module__ == "unrolled.cells.classic":
        if name == "RNN":
            function = getattr(vars(cell)["activation"], "__name__", "")
            named = function if function in ("tanh", "relu") else vars(cell)["activation"]
            return RNN(I, H, nonlinearity=named, **options)
        return {"LSTM": LSTM, "GRU": GRU}[name](I, H, **options)
    return Recurrent(cell, I, H, **options)
