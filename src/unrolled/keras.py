"""Weights from and to the layouts of Keras 3, as plain functions on arrays. Needs numpy alone.

What Keras calls a layer's weights, in the order of ``get_weights()``:

- ``SimpleRNN``: kernel [I, H], recurrent kernel [H, H], bias [H];
- ``LSTM``: kernel [I, 4·H], recurrent kernel [H, 4·H], bias [4·H]; gates i, f, c, o;
- ``GRU``: kernel [I, 3·H], recurrent kernel [H, 3·H], bias [2, 3·H] of the input and of the
  recurrent product, or [3·H] with ``reset_after=False``; gates z, r, h;
- ``Bidirectional``: those of the forward, then those of the backward layer;
- ``TimeDistributed`` and ``RNN`` around one cell: those of what is inside;
- ``StackedRNNCells``: those of each cell, in their order: give the arrays of one cell, ``layer=k``.

Arrays have no names: of two stacked cells whose input is as wide as their state, ``bidirectional``
is taken at its word. Layers of Keras 2 named CuDNN have arrays of the same shapes in another order,
and one bias of 8·H or 6·H; those are refused.

Ours are the parameters of one layer of ``unrolled.nn``, by their names. Each gate of ours has two
biases, of the input and of the recurrent product, where most of Keras' have one: on the way to
Keras they are added, in their own dtype; on the way here the one of the recurrent product is zero.
So what comes from Keras goes back to the same bits. What comes from here comes back with the same
weights and, but for GRU with ``reset_after``, with the sum of the biases in the place of the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["from_keras", "to_keras"]

_GATES = {"SimpleRNN": ("n", "n"), "LSTM": ("ifgo", "ifgo"), "GRU": ("rzn", "zrn")}
"""Of each layer: our order of the gates, and Keras'; Keras says c for g of the LSTM and h for n."""


def from_keras(
    kind: str,
    weights: Sequence[Any],
    *,
    reset_after: bool | None = None,
    bidirectional: bool = False,
    layer: int = 0,
) -> dict[str, np.ndarray]:
    """Our parameters, from the weights of a layer of Keras.

    ``module.load_state_dict({name: torch.from_numpy(a) for name, a in found.items()})`` takes them,
    where module is an ``unrolled.nn.RNN``, ``LSTM`` or ``GRU``, or, without ``reset_after``,
    ``Recurrent(ResetBeforeGRU, …)``; with ``bias=False`` where there are no biases.

    Args:
        kind: "SimpleRNN", "LSTM" or "GRU".
        weights: what ``get_weights()`` gives; two arrays a direction where ``use_bias=False``.
        reset_after: that of the GRU; the shape of its bias says it, too, without a bias it is
            needed.
        bidirectional: whether it is such a layer in ``Bidirectional``.
        layer: the number of ours in its stack, for the names.

    Raises:
        ValueError: there are too many or too few arrays, a shape does not fit or does not say what
            it is, or two directions differ in theirs.
        TypeError: an array is not of floating-point numbers.
    """
    _check_kind(kind)
    arrays = [np.asarray(one) for one in weights]
    directions = 2 if bidirectional else 1
    count = len(arrays) // directions
    if count not in (2, 3) or count * directions != len(arrays):
        raise ValueError(
            f"{kind}: weights must be kernel, recurrent kernel and (or not) bias for each of "
            f"{directions} directions, got {len(arrays)} arrays; of stacked cells give those of "
            "one cell"
        )
    _check_types(kind, arrays)
    _check_directions(kind, arrays, count)
    if kind == "GRU":
        reset_after = _is_reset_after(arrays[:count], reset_after)
    found: dict[str, np.ndarray] = {}
    for d in range(directions):
        one = _from_one(kind, arrays[d * count : (d + 1) * count], bool(reset_after))
        found |= {name + _suffix(layer, d): array for name, array in one.items()}
    return found


def to_keras(
    kind: str,
    parameters: Mapping[str, Any],
    *,
    reset_after: bool | None = None,
    bidirectional: bool = False,
    layer: int = 0,
) -> list[np.ndarray]:
    """Weights for ``set_weights()`` of a layer of Keras, from our parameters.

    Args:
        kind, bidirectional, layer: as of ``from_keras``.
        reset_after: that of the GRU; by default what the parameters are of, ``GRU`` or
            ``ResetBeforeGRU``.
        parameters: arrays by name, as ``from_keras`` gives them; more of them may be there, of
            other layers. Tensors of torch are taken, too, if numpy can read them.

    Raises:
        ValueError: a parameter is missing, or a shape does not fit.
    """
    _check_kind(kind)
    found: list[np.ndarray] = []
    if reset_after is None:
        reset_after = f"weight_candidate{_suffix(layer, 0)}" not in parameters
    for d in range(2 if bidirectional else 1):
        suffix = _suffix(layer, d)
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        if kind == "GRU" and not reset_after:
            names += ["weight_candidate", "bias_candidate"]
        one = {name: np.asarray(parameters[name + suffix])
               for name in names if name + suffix in parameters}  # fmt: skip
        found += _to_one(kind, one, reset_after, suffix)
    return found


def _suffix(layer: int, d: int) -> str:
    return f"_l{layer}" + "_reverse" * d


def _check_kind(kind: str) -> None:
    if kind not in _GATES:
        raise ValueError(f"kind: wanted one of {', '.join(_GATES)}, got {kind!r}")


def _check_types(kind: str, arrays: Sequence[np.ndarray]) -> None:
    wrong = [one.dtype for one in arrays if one.dtype.kind != "f"]
    if wrong:
        raise TypeError(f"{kind}: weights must be floating-point numbers, got {wrong[0]}")


def _check_directions(kind: str, arrays: Sequence[np.ndarray], count: int) -> None:
    """Both directions read the same input; of stacked cells the second reads the first's state."""
    for one, other in zip(arrays[:count], arrays[count:], strict=False):
        if one.shape != other.shape:
            raise ValueError(
                f"{kind}: weights of two directions must have the same shapes, got "
                f"{list(one.shape)} and {list(other.shape)}; of stacked cells give those of one "
                "cell"
            )


def _is_reset_after(weights: Sequence[np.ndarray], reset_after: bool | None) -> bool:
    """Whether a GRU resets behind its recurrent product: the bias is [2, 3·H] then."""
    if reset_after is not None:
        return reset_after
    if len(weights) == 2:
        raise ValueError(
            "GRU: reset_after must be given where there is no bias, whose shape would say it, got "
            "None; Keras' default is True"
        )
    return weights[2].ndim == 2


def _check_bias(kind: str, bias: np.ndarray, M: int, both: bool) -> None:
    if bias.shape == (2 * M,) and kind != "SimpleRNN":
        raise ValueError(
            f"{kind}: bias must have shape {[2, M] if both else [M]}, got [{2 * M}], the layout of "
            f"CuDNN{kind}, whose kernels are in another order, too; load them into "
            f"keras.layers.{kind} by Keras 2 first"
        )
    _check("bias", bias, (2, M) if both else (M,))


def _moved(rows: np.ndarray, before: str, after: str) -> np.ndarray:
    """Blocks of rows, a block a gate, in another order."""
    parts = dict(zip(before, np.split(rows, len(before)), strict=True))
    return np.concatenate([parts[gate] for gate in after])


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: wanted shape {list(shape)}, got {list(array.shape)}")


def _from_one(kind: str, weights: list[np.ndarray], reset_after: bool) -> dict[str, np.ndarray]:
    """One direction."""
    ours, theirs = _GATES[kind]
    kernel, recurrent = weights[:2]
    if kernel.ndim != 2 or recurrent.ndim != 2:
        raise ValueError(
            f"kernel and recurrent kernel: wanted two dimensions each, got shapes "
            f"{list(kernel.shape)} and {list(recurrent.shape)}"
        )
    if 0 in kernel.shape or 0 in recurrent.shape:
        raise ValueError(
            f"{kind}: kernel and recurrent kernel must not be empty, got shapes "
            f"{list(kernel.shape)} and {list(recurrent.shape)}"
        )
    H, M = len(recurrent), len(recurrent) * len(ours)
    _check("recurrent kernel", recurrent, (H, M))
    _check("kernel", kernel, (len(kernel), M))
    found = {
        "weight_ih": _moved(kernel.T, theirs, ours), "weight_hh": _moved(recurrent.T, theirs, ours),
    }  # fmt: skip
    if len(weights) == 3:
        bias = weights[2]
        both = kind == "GRU" and reset_after
        _check_bias(kind, bias, M, both)
        first, second = bias if both else (bias, np.zeros_like(bias))
        found["bias_ih"] = _moved(first, theirs, ours)
        found["bias_hh"] = _moved(second, theirs, ours)
    return _parted(found, H) if kind == "GRU" and not reset_after else found


def _parted(found: dict[str, np.ndarray], H: int) -> dict[str, np.ndarray]:
    """The recurrent product as ResetBeforeGRU has it: r and z, and the candidate's own."""
    parted = dict(found)
    for name in ("weight", "bias"):
        if f"{name}_hh" in found:
            whole = found[f"{name}_hh"]
            parted[f"{name}_hh"], parted[f"{name}_candidate"] = whole[: 2 * H], whole[2 * H :]
    return parted


def _to_one(
    kind: str, parameters: dict[str, np.ndarray], reset_after: bool, suffix: str
) -> list[np.ndarray]:
    """One direction."""
    ours, theirs = _GATES[kind]
    whole = dict(parameters)
    if kind == "GRU" and not reset_after:
        for name in ("weight", "bias"):
            parts = [whole.get(f"{name}_{part}") for part in ("hh", "candidate")]
            known = [part for part in parts if part is not None]
            if len(known) == 1:
                raise ValueError(
                    f"parameters: wanted both of {name}_hh{suffix} and {name}_candidate{suffix}"
                )
            if known:
                whole[f"{name}_hh"] = np.concatenate(known)
    for name in ("weight_ih", "weight_hh"):
        if name not in whole:
            raise ValueError(f"parameters: {name}{suffix} is missing")
    W, R = whole["weight_ih"], whole["weight_hh"]
    H, M = R.shape[-1], R.shape[-1] * len(ours)
    _check(f"weight_hh{suffix}", R, (M, H))
    _check(f"weight_ih{suffix}", W, (M, W.shape[-1]))
    found = [_moved(one, ours, theirs).T.copy() for one in (W, R)]
    biases = [whole[name] for name in ("bias_ih", "bias_hh") if name in whole]
    if len(biases) == 1:
        raise ValueError(f"parameters: wanted both of bias_ih{suffix} and bias_hh{suffix}, or none")
    if biases:
        for name, bias in zip(("bias_ih", "bias_hh"), biases, strict=True):
            _check(f"{name}{suffix}", bias, (M,))
        first, second = (_moved(bias, ours, theirs) for bias in biases)
        both = kind == "GRU" and reset_after
        found.append(np.stack([first, second]) if both else first + second)
    return found
