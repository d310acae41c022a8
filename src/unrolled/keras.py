"""Weights from and to the layouts of Keras 3, as functions on arrays. Needs numpy alone.

The weights of a layer in Keras, in the order of ``get_weights()``:

- ``SimpleRNN``: kernel [I, H], recurrent kernel [H, H], bias [H];
- ``LSTM``: kernel [I, 4·H], recurrent kernel [H, 4·H], bias [4·H]; gates i, f, c, o;
- ``GRU``: kernel [I, 3·H], recurrent kernel [H, 3·H], bias [2, 3·H] of the input and of the
  recurrent product, or [3·H] with ``reset_after=False``; gates z, r, h;
- ``Bidirectional``: those of the forward layer, then those of the backward layer;
- ``TimeDistributed`` and ``RNN`` around one cell: those of the wrapped layer or cell;
- ``StackedRNNCells``: those of each cell in order; convert the arrays of one cell at a time, with
  ``layer=k``.

Arrays have no names: two stacked cells whose input is as wide as their state cannot be
distinguished from two directions, and ``bidirectional`` decides. Layers of Keras 2 named CuDNN have
arrays of the same shapes in another order, and one bias of 8·H or 6·H; those are refused.

Our parameters are those of one layer of ``unrolled.nn``, by name. Each of our gates has two biases,
of the input and of the recurrent product, where most layers of Keras have one: towards Keras they
are added, in their own dtype; from Keras the bias of the recurrent product is zero. So weights from
Keras go back to the same bits. Our weights come back unchanged, but the sum of the biases replaces
the first (except in GRU with ``reset_after``, which has both).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["from_keras", "to_keras"]

_GATES = {"SimpleRNN": ("n", "n"), "LSTM": ("ifgo", "ifgo"), "GRU": ("rzn", "zrn")}
"""For each layer our order of the gates, and that of Keras, which calls the LSTM's g c, and n h."""


def from_keras(
    class_name: str,
    weights: Sequence[ArrayLike],
    *,
    reset_after: bool | None = None,
    bidirectional: bool = False,
    layer: int = 0,
) -> dict[str, np.ndarray]:
    """Our parameters, from the weights of a Keras layer.

    ``module.load_state_dict({name: torch.from_numpy(a) for name, a in parameters.items()})`` loads
    them into an ``unrolled.nn.RNN``, ``LSTM`` or ``GRU``, or, without ``reset_after``, into a
    ``Recurrent(ResetBeforeGRU, …)``; with ``bias=False`` if there are no biases.

    Args:
        class_name: "SimpleRNN", "LSTM" or "GRU".
        weights: the result of ``get_weights()``; two arrays a direction with ``use_bias=False``.
        reset_after: that of the GRU; by default inferred from the shape of its bias, so required if
            it has none.
        bidirectional: whether the layer is wrapped in ``Bidirectional``.
        layer: the number of our layer in its stack, for the names.

    Raises:
        ValueError: the number of arrays is wrong, a shape does not fit or is ambiguous, or the
            shapes of two directions differ.
        TypeError: an array does not hold floating-point numbers.
    """
    gates = _gates(class_name)
    arrays = [np.asarray(array) for array in weights]
    directions = 2 if bidirectional else 1
    count = len(arrays) // directions
    if count not in (2, 3) or count * directions != len(arrays):
        raise ValueError(
            f"{class_name}: weights must be kernel, recurrent kernel and optionally bias for each "
            f"of {directions} directions, got {len(arrays)} arrays; of stacked cells pass those of "
            "one cell"
        )
    _check_dtypes(class_name, arrays)
    _check_directions(class_name, arrays[:count], arrays[count:])
    if class_name == "GRU":
        reset_after = _is_reset_after(arrays[:count], reset_after)
    has_two_biases = class_name == "GRU" and bool(reset_after)
    parameters: dict[str, np.ndarray] = {}
    for d in range(directions):
        direction = _from_direction(
            class_name, gates, arrays[d * count : (d + 1) * count], has_two_biases
        )
        if class_name == "GRU" and not reset_after:
            direction = _with_candidate(direction)
        parameters |= {name + _suffix(layer, d): array for name, array in direction.items()}
    return parameters


def to_keras(
    class_name: str,
    parameters: Mapping[str, ArrayLike],
    *,
    reset_after: bool | None = None,
    bidirectional: bool = False,
    layer: int = 0,
) -> list[np.ndarray]:
    """Weights for ``set_weights()`` of a Keras layer, from our parameters.

    Args:
        class_name, bidirectional, layer: as in ``from_keras``.
        reset_after: that of the GRU; by default inferred from the parameters, which are those of
            ``GRU`` or of ``ResetBeforeGRU``.
        parameters: arrays by name, as ``from_keras`` returns them; parameters of other layers are
            ignored. Tensors of torch are accepted if numpy can read them.

    Raises:
        ValueError: a parameter is missing, or a shape does not fit.
    """
    gates = _gates(class_name)
    weights: list[np.ndarray] = []
    if reset_after is None:
        reset_after = f"weight_candidate{_suffix(layer, 0)}" not in parameters
    for d in range(2 if bidirectional else 1):
        suffix = _suffix(layer, d)
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        if class_name == "GRU" and not reset_after:
            names += ["weight_candidate", "bias_candidate"]
        direction = {
            name: np.asarray(parameters[name + suffix])
            for name in names
            if name + suffix in parameters
        }
        if class_name == "GRU" and not reset_after:
            direction = _without_candidate(direction, suffix)
        weights += _to_direction(
            class_name, gates, direction, class_name == "GRU" and reset_after, suffix
        )
    return weights


def _suffix(layer: int, d: int) -> str:
    return f"_l{layer}" + "_reverse" * d


def _gates(class_name: str) -> tuple[str, str]:
    if class_name not in _GATES:
        raise ValueError(
            f"keras: class_name must be one of {', '.join(_GATES)}, got {class_name!r}"
        )
    return _GATES[class_name]


def _check_dtypes(class_name: str, arrays: Sequence[np.ndarray]) -> None:
    wrong = [array.dtype for array in arrays if array.dtype.kind != "f"]
    if wrong:
        raise TypeError(f"{class_name}: weights must be floating-point numbers, got {wrong[0]}")


def _check_directions(
    class_name: str, forward: Sequence[np.ndarray], backward: Sequence[np.ndarray]
) -> None:
    """Both directions read the same input; of stacked cells the second reads the first's state."""
    for array, reverse_array in zip(forward, backward, strict=False):
        if array.shape != reverse_array.shape:
            raise ValueError(
                f"{class_name}: weights of two directions must have the same shapes, got "
                f"{list(array.shape)} and {list(reverse_array.shape)}; of stacked cells pass those "
                "of one cell"
            )


def _is_reset_after(weights: Sequence[np.ndarray], reset_after: bool | None) -> bool:
    """Whether a GRU resets after its recurrent product: then the bias is [2, 3·H]."""
    if reset_after is not None:
        return reset_after
    if len(weights) == 2:
        raise ValueError(
            "GRU: reset_after must be given if there is no bias to infer it from, got None; the "
            "default of Keras is True"
        )
    return weights[2].ndim == 2


def _check_bias(class_name: str, bias: np.ndarray, rows: int, has_two_biases: bool) -> None:
    shape = (2, rows) if has_two_biases else (rows,)
    if bias.shape == (2 * rows,) and class_name != "SimpleRNN":
        raise ValueError(
            f"{class_name}: bias must have shape {list(shape)}, got [{2 * rows}], the layout of "
            f"CuDNN{class_name}, whose kernels are in another order, too; load them into "
            f"keras.layers.{class_name} by Keras 2 first"
        )
    _check_shape(class_name, "bias", bias, shape)


def _reordered(rows: np.ndarray, old_order: str, new_order: str) -> np.ndarray:
    """Blocks of rows, one for each gate, in another order."""
    blocks = dict(zip(old_order, np.split(rows, len(old_order)), strict=True))
    return np.concatenate([blocks[gate] for gate in new_order])


def _check_shape(class_name: str, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"{class_name}: {name} must have shape {list(shape)}, got {list(array.shape)}"
        )


def _from_direction(
    class_name: str, gates: tuple[str, str], weights: list[np.ndarray], has_two_biases: bool
) -> dict[str, np.ndarray]:
    """The parameters of one direction by their names without suffix."""
    our_order, keras_order = gates
    kernel, recurrent = weights[:2]
    shapes = f"{list(kernel.shape)} and {list(recurrent.shape)}"
    if kernel.ndim != 2 or recurrent.ndim != 2:
        raise ValueError(
            f"{class_name}: kernel and recurrent kernel must be 2D, got shapes {shapes}"
        )
    if 0 in kernel.shape or 0 in recurrent.shape:
        raise ValueError(
            f"{class_name}: kernel and recurrent kernel must not be empty, got shapes {shapes}"
        )
    H = len(recurrent)
    rows = H * len(our_order)
    _check_shape(class_name, "recurrent kernel", recurrent, (H, rows))
    _check_shape(class_name, "kernel", kernel, (len(kernel), rows))
    parameters = {
        "weight_ih": _reordered(kernel.T, keras_order, our_order),
        "weight_hh": _reordered(recurrent.T, keras_order, our_order),
    }
    if len(weights) == 3:
        bias = weights[2]
        _check_bias(class_name, bias, rows, has_two_biases)
        input_bias, recurrent_bias = bias if has_two_biases else (bias, np.zeros_like(bias))
        parameters["bias_ih"] = _reordered(input_bias, keras_order, our_order)
        parameters["bias_hh"] = _reordered(recurrent_bias, keras_order, our_order)
    return parameters


def _with_candidate(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters of ResetBeforeGRU: its candidate has a separate recurrent product."""
    divided = dict(parameters)
    H = parameters["weight_hh"].shape[-1]
    for name in ("weight", "bias"):
        if f"{name}_hh" in parameters:
            rows = parameters[f"{name}_hh"]
            divided[f"{name}_hh"], divided[f"{name}_candidate"] = rows[: 2 * H], rows[2 * H :]
    return divided


def _without_candidate(parameters: dict[str, np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    """The parameters of ResetBeforeGRU with one recurrent product, as in Keras."""
    joined = dict(parameters)
    for name in ("weight", "bias"):
        names = (f"{name}_hh", f"{name}_candidate")
        blocks = [parameters[block] for block in names if block in parameters]
        if len(blocks) == 1:
            raise ValueError(
                f"GRU: parameters must have both {names[0]}{suffix} and {names[1]}{suffix} or "
                "neither, got one"
            )
        if blocks:
            joined[f"{name}_hh"] = np.concatenate(blocks)
    return joined


def _to_direction(
    class_name: str,
    gates: tuple[str, str],
    parameters: dict[str, np.ndarray],
    has_two_biases: bool,
    suffix: str,
) -> list[np.ndarray]:
    """The weights of one direction."""
    our_order, keras_order = gates
    for name in ("weight_ih", "weight_hh"):
        if name not in parameters:
            raise ValueError(
                f"{class_name}: parameters must include {name}{suffix}, got none of that name"
            )
    W, R = parameters["weight_ih"], parameters["weight_hh"]
    rows = R.shape[-1] * len(our_order)
    _check_shape(class_name, f"weight_hh{suffix}", R, (rows, R.shape[-1]))
    _check_shape(class_name, f"weight_ih{suffix}", W, (rows, W.shape[-1]))
    weights = [_reordered(matrix, our_order, keras_order).T.copy() for matrix in (W, R)]
    biases = {name: parameters[name] for name in ("bias_ih", "bias_hh") if name in parameters}
    if len(biases) == 1:
        raise ValueError(
            f"{class_name}: parameters must have both bias_ih{suffix} and bias_hh{suffix} or "
            "neither, got one"
        )
    if biases:
        for name, bias in biases.items():
            _check_shape(class_name, f"{name}{suffix}", bias, (rows,))
        input_bias, recurrent_bias = (
            _reordered(bias, our_order, keras_order) for bias in biases.values()
        )
        weights.append(
            np.stack([input_bias, recurrent_bias])
            if has_two_biases
            else input_bias + recurrent_bias
        )
    return weights
