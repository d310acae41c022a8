"""All measurements of a layer, or of every layer of a model, as sections of a page.

Chooses what is shown and says how to read it; measuring, drawing and writing are done elsewhere.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.diagnostics.activity import (
    coloured_text,
    most_variable,
    principal_components,
)
from unrolled.diagnostics.gates import Saturation, gate_saturation
from unrolled.diagnostics.gradients import gradient_by_lag
from unrolled.diagnostics.matrices import RecurrentMatrix, parameter_table, recurrent_matrices
from unrolled.diagnostics.page import ColouredTexts, Part, Picture, Section, Table
from unrolled.diagnostics.pictures import (
    draw_activity,
    draw_eigenvalues,
    draw_gradients,
    draw_saturation,
    draw_trajectory,
    place_name,
)
from unrolled.diagnostics.steps import check_layer, layers_of, listening, unroll
from unrolled.nn import GRU, LSTM, RNN, Recurrent

__all__ = ["inspect_layer", "inspect_model"]

_ROWS = 4
_LAGS = 100
_DIRECTIONS = 32
_DRAWN_STEPS = 120
_PANELS = 16


def inspect_layer(
    layer: Recurrent,
    x: Tensor,
    hx: Any = None,
    *,
    text: Sequence[str] | None = None,
    units: int = 6,
    name: str = "",
    seed: int = 0,
) -> list[Section]:
    """All that is measured of a layer on one input, as sections for `write_page`.

    Parameters; gradients by lag, beside those of RNN, LSTM and GRU of the same size as they start;
    saturation of gates; recurrent matrices; what single units and the whole state of the last layer
    do over the first sequence.

    Args:
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`, T ≥ 2; of equal lengths.
        hx: the states before the first step; zeros if None.
        text: a piece (a character) for each step of the first sequence.
        units: how many single units to show: those that vary most.
        name: put before the titles and the pictures' names, where a page has several layers.
        seed: of the layers to compare with; torch's own generator is left as it is.

    Raises:
        ValueError: a shape does not fit, the text has not T pieces, or `units` is below 1.
    """
    check_layer(layer)
    T = x.shape[1] if layer.batch_first and x.dim() == 3 else x.shape[0]
    if T < 2:
        raise ValueError(f"x: wanted 2 steps or more, got {T}")
    if text is not None and len(text) != T:
        raise ValueError(f"text: wanted {T} pieces, one for each step, got {len(text)}")
    if units < 1:
        raise ValueError(f"units: wanted at least 1, got {units}")
    parts: dict[str, list[Part]] = {
        "Parameters": [_parameters(layer)],
        "Gradient by lag": _gradients(layer, x, hx, seed),
        "Saturation of gates": _saturation(gate_saturation(layer, x, hx)),
        "Recurrent matrices": _matrices(recurrent_matrices(layer)),
        "Activity": _activity(layer, x, hx, text, units),
    }
    return [
        Section(f"{name}: {title}" if name else title, _renamed(found, name))
        for title, found in parts.items()
        if found
    ]


def inspect_model(
    model: nn.Module,
    inputs: Tensor | tuple[Any, ...],
    text: Sequence[str] | None = None,
    *,
    units: int = 6,
    seed: int = 0,
) -> list[Section]:
    """`inspect_layer` of every `unrolled.nn.Recurrent` in a model, on what it is given when the
    model is called once with `inputs`, in evaluation mode; then all parameters of the model.

    Args:
        inputs: what the model takes, for a language model token numbers `[T, N]`; a tuple where
            it takes several; of ragged batches the longest sequences are looked at, at most four.
        text: a piece for each step of the first sequence; for a byte vocabulary
            `[vocabulary.decode([t]) for t in inputs[:, 0].tolist()]`.
            A model with several layers shows it where it has a piece for each step.
        units, seed: as for `inspect_layer`.

    Raises:
        ValueError: the model holds no layer, or calls none, or `inspect_layer` raises it.
    """
    layers = layers_of(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), listening(layers, _ROWS) as calls:
            model(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    finally:
        model.train(training)
    ran = {name: call for name, call in calls.items() if call.x is not None}
    if not ran:
        raise ValueError("model: wanted one that calls its recurrent layers, none was called")
    sections = []
    for name, call in ran.items():
        assert call.x is not None
        several = len(ran) > 1
        own = text
        if text is not None and several and len(text) != _steps(layers[name], call.x):
            own = None
        sections += inspect_layer(
            layers[name],
            call.x,
            call.hx,
            text=own,
            units=units,
            name=name if several else "",
            seed=seed,
        )
    if any(layer is not model for layer in layers.values()):
        sections.append(Section("All parameters of the model", [_parameters(model)]))
    return sections


def _steps(layer: Recurrent, x: Tensor) -> int:
    return x.shape[1] if layer.batch_first and x.dim() == 3 else x.shape[0]


def _renamed(parts: Sequence[Part], name: str) -> list[Part]:
    prefix = re.sub(r"\W+", "-", name) + "-" if name else ""
    return [
        Picture(prefix + part.name, part.png, part.caption) if isinstance(part, Picture) else part
        for part in parts
    ]


def _parameters(module: nn.Module) -> Table:
    rows = parameter_table(module)
    total = sum(row.count for row in rows)
    return Table(
        ["name", "shape", "numbers", "norm"],
        [[r.name, " × ".join(map(str, r.shape)), f"{r.count:,}", f"{r.norm:.3g}"] for r in rows],
        f"{total:,} numbers in {len(rows)} parameters of {type(module).__name__}. The norm is the "
        "root of the sum of squares.",
    )


def _gradients(layer: Recurrent, x: Tensor, hx: Any, seed: int) -> list[Part]:
    lags = min(_LAGS, _steps(layer, x))
    given = {"lags": lags, "directions": _DIRECTIONS, "seed": seed}
    curves = {}
    for one in gradient_by_lag(layer, x, hx, **given):
        curves[f"this, {place_name(one.layer, one.reverse)}"] = one.norms
    first = unroll(layer, x, hx)[0].inputs
    for name, fresh in _fresh(layer, seed).items():
        curves[f"{name} as it starts"] = gradient_by_lag(fresh, first, **given)[0].norms
    caption = (
        "How much a small change of the state k steps ago still changes the last state: the norm "
        "of ∂s(T)/∂s(T−k), 1 at lag 0. A straight fall is a vanishing gradient, a straight rise "
        "an exploding one; a flat curve carries what happened k steps ago. Thin: fresh layers of "
        "the same size on the same input."
    )
    return [Picture("gradients", draw_gradients(curves), caption)]


def _fresh(layer: Recurrent, seed: int) -> dict[str, Recurrent]:
    like = layer.weight_ih_l0
    sizes = (layer.input_size, layer.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = {kind.__name__: kind(*sizes) for kind in (RNN, LSTM, GRU)}
    return {name: fresh.to(like.device) for name, fresh in made.items()}


def _saturation(found: list[Saturation]) -> list[Part]:
    if not found:
        return []
    rows = [
        [
            place_name(one.layer, one.reverse),
            one.gate,
            one.function,
            f"{one.left_share:.1%}",
            f"{one.right_share:.1%}",
        ]
        for one in found
    ]
    table = Table(
        ["layer", "gate", "function", "left-saturated", "right-saturated"],
        rows,
        "Share of all steps, sequences and units at which a gate is below 0.1 (left) or above 0.9 "
        "(right) of its range; for tanh that is below -0.8 or above 0.8.",
    )
    caption = (
        "A point is a unit, placed by the share of time that it is saturated. Lower left: it takes "
        "values between. Lower right: nearly always at its least, a closed gate. Upper left: "
        "nearly always at its largest, an open gate. On the diagonal: it switches between the two."
    )
    if len(found) > _PANELS:
        caption += f" The first {_PANELS} of {len(found)} gates."
    return [table, Picture("saturation", draw_saturation(found[:_PANELS]), caption)]


def _matrices(found: list[RecurrentMatrix]) -> list[Part]:
    if not found:
        return []
    rows = [
        [
            place_name(one.layer, one.reverse),
            one.product,
            one.gate or "–",
            "–" if one.radius is None else f"{one.radius:.4g}",
            f"{one.singular[0].item():.4g}",
            f"{one.singular[len(one.singular) // 2].item():.4g}",
            f"{one.singular[-1].item():.4g}",
        ]
        for one in found
    ]
    headings = ["layer", "product", "gate", "spectral radius"]
    headings += ["largest singular", "median", "least"]
    table = Table(
        headings,
        rows,
        "The matrices within the recurrence, gate by gate. The spectral radius is the largest "
        "absolute eigenvalue; the largest singular value is the most by which the product "
        "stretches a vector.",
    )
    square = [one for one in found if one.eigenvalues is not None]
    if not square:
        return [table]
    caption = (
        "Eigenvalues of each matrix; the circle has radius 1. In a simple network what lies inside "
        "of it fades over time and what lies outside can grow."
    )
    if len(square) > _PANELS:
        caption += f" The first {_PANELS} of {len(square)} matrices."
    return [table, Picture("eigenvalues", draw_eigenvalues(square[:_PANELS]), caption)]


def _activity(
    layer: Recurrent, x: Tensor, hx: Any, text: Sequence[str] | None, count: int
) -> list[Part]:
    steps = unroll(layer, x, hx)[-layer.spec.num_directions]
    states = steps.history()[:, 0].cpu()
    units = most_variable(states, count)
    last = place_name(steps.place.layer, False)
    parts: list[Part] = [
        f"The output h of {last} over the first sequence; the {len(units)} units that vary most."
    ]
    if text is not None:
        shown = {f"Unit {unit}": coloured_text(text, states[:, unit]) for unit in units}
        caption = (
            "Each character is coloured by the unit's value after it was read: blue is negative, "
            "orange positive, white zero; ↵ is the end of a line."
        )
        parts.append(ColouredTexts(shown, caption))
    else:
        caption = "A row is a unit, a column a step: orange is positive, purple negative."
        parts.append(Picture("units", draw_activity(states, units), caption))
    if min(states.shape) < 2:
        return parts
    components = principal_components(states, 2)
    drawn = slice(0, _DRAWN_STEPS)
    components = type(components)(components.points[drawn], components.axes, components.explained)
    caption = (
        "The way of the whole state, seen along the two directions in which it varies most: dark "
        "at the start, light at the end"
        + (", each point the character read last (␣ space, ↵ end of line)" if text else "")
        + ". Points that lie together are steps that the layer takes for alike."
    )
    if len(states) > _DRAWN_STEPS:
        caption += f" The first {_DRAWN_STEPS} of {len(states)} steps."
    pieces = None if text is None else text[drawn]
    parts.append(Picture("trajectory", draw_trajectory(components, pieces), caption))
    return parts
