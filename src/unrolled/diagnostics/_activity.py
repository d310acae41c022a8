"""The activations of a layer's units over a sequence: states, coloured text, principal components.

The coloured text is HTML for `_page`; `_pictures` draws the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.diagnostics._steps import HiddenState, layers_of, record_calls, unroll
from unrolled.nn import Recurrent

_LEVELS = 10
_NEGATIVE, _POSITIVE = (0x3B, 0x8B, 0xC4), (0xE6, 0x8A, 0x00)
# HTML cannot contain control characters, but Unicode has a symbol for each.
_SYMBOLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
_SYMBOLS |= {ord("\n"): "↵\n", 0x7F: "␡"}


@torch.no_grad()
def activity(
    module: nn.Module,
    inputs: Tensor,
    *,
    layer: int = -1,
    reverse: bool = False,
    state: str | None = None,
    name: str | None = None,
    row: int = 0,
) -> Tensor:
    """One state of one layer at every step of one sequence: `[T, width]`, in the input's order.

    Args:
        module: an `unrolled.nn.Recurrent`, or a model that contains one; the model is called once
            with `inputs`, in evaluation mode.
        inputs: the input of the layer (`[T, N, I]` or `[T, I]`) or of the model (token numbers).
        layer: the layer of the stack, counted from 0, or back from -1 (the last).
        reverse: True for the reverse direction.
        state: the state's name in the cell, such as "c"; None for the output h.
        name: the name of the `Recurrent` in a model that contains several; None for the first.
        row: n, the sequence of the batch.

    Raises:
        ValueError: there is no such layer, direction, state, name or row; or the model does not
            call the layer.
    """
    layers = layers_of(module)
    layer_name = next(iter(layers)) if name is None else name
    if layer_name not in layers:
        names = ", ".join(map(repr, layers))
        raise ValueError(f"activity: name must be one of {names}, got {name!r}")
    stack = layers[layer_name]
    L, D = stack.num_layers, stack.spec.num_directions
    if not -L <= layer < L:
        raise ValueError(f"activity: layer must be at least {-L} and below {L}, got {layer}")
    if reverse and D == 1:
        raise ValueError("activity: reverse must be False for a layer of one direction, got True")
    x, hx = (inputs, None) if stack is module else _layer_input(module, layer_name, stack, inputs)
    steps = unroll(stack, x, hx)[layer % L * D + reverse]
    history = steps.history(state)
    if not 0 <= row < history.shape[1]:
        raise ValueError(
            f"activity: row must be at least 0 and below {history.shape[1]}, got {row}"
        )
    return history[:, row]


def _layer_input(
    model: nn.Module, name: str, layer: Recurrent, inputs: Tensor
) -> tuple[Tensor, HiddenState]:
    """The input and the initial states that a model calls one of its layers with."""
    training = model.training
    model.eval()
    try:
        with record_calls({name: layer}, rows=2**31) as calls:
            model(inputs)
    finally:
        model.train(training)
    call = calls[name]
    if call.x is None:
        raise ValueError(f"activity: module must call its layer {name!r}, but did not call it")
    return call.x, call.hx


def most_variable(states: Tensor, count: int) -> list[int]:
    """The indices of the units of states `[T, H]` with the largest variance over time, in falling
    order."""
    variances = states.double().var(0, correction=0)
    units: list[int] = variances.argsort(descending=True, stable=True)[:count].tolist()
    return units


def _colour(level: int) -> str:
    full_colour = _NEGATIVE if level < 0 else _POSITIVE
    fraction = abs(level) / _LEVELS
    return "#" + "".join(f"{round(255 + (c - 255) * fraction):02x}" for c in full_colour)


TEXT_STYLE = "\n".join(
    [
        ".text { font: 13px/1.6 ui-monospace, 'DejaVu Sans Mono', monospace; "
        "white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ccc; "
        "padding: 0.6em 0.8em; margin: 0.3em 0 0.8em; }",
        ".text span { padding: 2px 0; }",
        *(f".u{level} {{ background: {_colour(level)}; }}" for level in range(1, _LEVELS + 1)),
        *(f".d{level} {{ background: {_colour(-level)}; }}" for level in range(1, _LEVELS + 1)),
    ]
)
"""The style sheet of `coloured_text`: blue below zero and orange above, which people with colour
blindness can also distinguish."""


def coloured_text(text: Sequence[str], activations: Tensor) -> str:
    """A text as HTML in which each token is coloured by one unit's activation after it was read.

    As in the figures of Karpathy, Johnson & Fei-Fei (2015). Zero is white, the largest absolute
    value is full blue (negative) or full orange (positive). A newline is shown as ↵. The page needs
    the style sheet `TEXT_STYLE`.

    Args:
        text: the token of each step; a string has one character for each step.
        activations: of one unit, `[T]`.

    Raises:
        ValueError: the numbers of tokens and activations differ.
    """
    if activations.dim() != 1 or len(text) != len(activations):
        raise ValueError(
            f"coloured_text: text must have one token for each of the activations, shape "
            f"{list(activations.shape)}, got {len(text)}"
        )
    values = activations.double()
    largest = values.abs().max().item() if len(values) else 0.0
    levels = (values / (largest or 1.0) * _LEVELS).round().int().tolist()
    runs = []
    for level, pairs in groupby(zip(levels, text, strict=True), lambda pair: pair[0]):
        markup = escape("".join(token for _, token in pairs).translate(_SYMBOLS))
        style = f"u{level}" if level > 0 else f"d{-level}"
        runs.append(f'<span class="{style}">{markup}</span>' if level else markup)
    return f'<div class="text">{"".join(runs)}</div>'


@dataclass(frozen=True)
class Components:
    """Principal components of states: `points` [T, C] are the states projected on the C `axes`
    [C, H]; `explained` [C] is the fraction of the variance along each axis."""

    points: Tensor
    axes: Tensor
    explained: Tensor


def principal_components(states: Tensor, count: int = 2) -> Components:
    """The directions of largest variance of states `[T, H]`, from the singular value decomposition
    of the centred states; float64. The sign of an axis makes its largest weight positive.

    Raises:
        ValueError: `count` is not between 1 and min(T, H).
    """
    if states.dim() != 2 or not 1 <= count <= min(states.shape):
        raise ValueError(
            f"principal_components: count must be at least 1 and at most the smaller of T and H, "
            f"got {count} for states of shape {list(states.shape)}"
        )
    values = states.detach().double().cpu().numpy()
    centred = values - values.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    total = (singular**2).sum() or 1.0
    return Components(
        torch.from_numpy(centred @ axes[:count].T),
        torch.from_numpy(axes[:count].copy()),
        torch.from_numpy((singular**2 / total)[:count]),
    )
