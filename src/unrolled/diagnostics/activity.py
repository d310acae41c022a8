"""What the units of a layer do over a text or another sequence: states, coloured text, components.

The coloured text is HTML for `page`; curves are drawn in `pictures`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.diagnostics.steps import layers_of, listening, unroll
from unrolled.nn import Recurrent

__all__ = [
    "TEXT_STYLE",
    "Components",
    "activity",
    "coloured_text",
    "most_variable",
    "principal_components",
]

_LEVELS = 10
_NEGATIVE, _POSITIVE = (0x3B, 0x8B, 0xC4), (0xE6, 0x8A, 0x00)
# HTML has no control characters: Unicode has a picture of each.
_LETTERS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
_LETTERS |= {ord("\n"): "↵\n", 0x7F: "␡"}


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
        module: an `unrolled.nn.Recurrent`, or a model that holds one; the model is called once
            with `inputs`, in evaluation mode.
        inputs: what the layer takes (`[T, N, I]` or `[T, I]`), or the model (token numbers).
        layer: of the stack, counted from 0, or back from -1.
        reverse: the direction.
        state: its name in the cell, such as "c"; None for the output h.
        name: which `Recurrent` of a model that holds several; None for the first.
        row: n, the sequence of the batch.

    Raises:
        ValueError: there is no such layer, direction, state, name or row; or the model does not
            call the layer.
    """
    layers = layers_of(module)
    chosen = next(iter(layers)) if name is None else name
    if chosen not in layers:
        raise ValueError(f"name: wanted one of {', '.join(map(repr, layers))}, got {name!r}")
    found = layers[chosen]
    D = found.spec.num_directions
    if not -found.num_layers <= layer < found.num_layers:
        raise ValueError(f"layer: wanted below {found.num_layers}, got {layer}")
    if reverse and D == 1:
        raise ValueError("reverse: wanted False, the layer has one direction")
    x, hx = (inputs, None) if found is module else _given(module, chosen, found, inputs)
    steps = unroll(found, x, hx)[layer % found.num_layers * D + reverse]
    history = steps.history(state)
    if not 0 <= row < history.shape[1]:
        raise ValueError(f"row: wanted 0 to {history.shape[1] - 1}, got {row}")
    return history[:, row]


def _given(model: nn.Module, name: str, layer: Recurrent, inputs: Tensor) -> tuple[Tensor, Any]:
    training = model.training
    model.eval()
    try:
        with listening({name: layer}, rows=2**31) as calls:
            model(inputs)
    finally:
        model.train(training)
    call = calls[name]
    if call.x is None:
        raise ValueError(f"model: wanted one that calls {name!r}, it was not called")
    return call.x, call.hx


def most_variable(states: Tensor, count: int) -> list[int]:
    """The units of states `[T, H]` whose values vary most over time, the most variable first."""
    return (
        states.double().var(0, correction=0).argsort(descending=True, stable=True)[:count].tolist()
    )


def _colour(level: int) -> str:
    end = _NEGATIVE if level < 0 else _POSITIVE
    part = abs(level) / _LEVELS
    return "#" + "".join(f"{round(255 + (e - 255) * part):02x}" for e in end)


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
"""The style sheet of `coloured_text`: blue below zero, orange above, told apart by all eyes."""


def coloured_text(text: Sequence[str], activations: Tensor) -> str:
    """A text as HTML in which each piece is coloured by one unit's value after it was read.

    After the pictures of Karpathy, Johnson & Fei-Fei (2015). Zero is white, the largest absolute
    value is full blue (negative) or full orange (positive). A line's end is shown as ↵. Wants
    `TEXT_STYLE`.

    Args:
        text: a piece for each step, such as a string with a character for each.
        activations: of one unit, `[T]`.

    Raises:
        ValueError: the text has not as many pieces as there are activations.
    """
    if activations.dim() != 1 or len(text) != len(activations):
        raise ValueError(
            f"text: wanted a piece for each of the activations, shape {list(activations.shape)}, "
            f"got {len(text)}"
        )
    values = activations.double()
    largest = values.abs().max().item() if len(values) else 0.0
    levels = (values / (largest or 1.0) * _LEVELS).round().int().tolist()
    runs = []
    for level, pairs in groupby(zip(levels, text, strict=True), lambda pair: pair[0]):
        shown = escape("".join(piece for _, piece in pairs).translate(_LETTERS))
        name = f"u{level}" if level > 0 else f"d{-level}"
        runs.append(f'<span class="{name}">{shown}</span>' if level else shown)
    return f'<div class="text">{"".join(runs)}</div>'


@dataclass(frozen=True)
class Components:
    """Principal components of states: `points` [T, C], the states seen along the C `axes` [C, H];
    `explained` [C], the share of the variance along each."""

    points: Tensor
    axes: Tensor
    explained: Tensor


def principal_components(states: Tensor, count: int = 2) -> Components:
    """The directions along which states `[T, H]` vary most, by singular values of the centred
    states; float64. A component's sign is that with which its largest weight is positive.

    Raises:
        ValueError: `count` is not between 1 and min(T, H).
    """
    if states.dim() != 2 or not 1 <= count <= min(states.shape):
        raise ValueError(
            f"count: wanted 1 to the smaller of T and H, got {count} for states of shape "
            f"{list(states.shape)}"
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
