"""All measurements of a layer, or of every layer of a model, as sections of a page.

Decides what is shown and explains it; other files measure, draw and write the page.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.diagnostics._activity import (
    coloured_text,
    most_variable,
    principal_components,
)
from unrolled.diagnostics._gates import Saturation, gate_saturation
from unrolled.diagnostics._gradients import gradient_by_lag
from unrolled.diagnostics._matrices import RecurrentMatrix, parameter_table, recurrent_matrices
from unrolled.diagnostics._page import ColouredTexts, Part, Picture, Section, Table
from unrolled.diagnostics._pictures import (
    draw_activity,
    draw_eigenvalues,
    draw_gradients,
    draw_saturation,
    draw_trajectory,
    sweep_name,
)
from unrolled.diagnostics._steps import (
    HiddenState,
    check_layer,
    layers_of,
    record_calls,
    time_steps,
    unroll,
)
from unrolled.nn import GRU, LSTM, RNN, Recurrent

_ROWS = 4
_LAGS = 100
_DIRECTIONS = 32
_TRAJECTORY_STEPS = 120
_PANELS = 16


def inspect_layer(
    layer: Recurrent,
    x: Tensor,
    hx: HiddenState = None,
    *,
    text: Sequence[str] | None = None,
    units: int = 6,
    name: str = "",
    seed: int = 0,
) -> list[Section]:
    """All measurements of a layer on one input, as sections for `write_page`.

    They are: parameters; gradients by lag, compared with untrained RNN, LSTM and GRU layers of the
    same size; gate saturation; recurrent matrices; and, for the last layer and the first sequence,
    activations of single units and the trajectory of the state.

    Args:
        layer: the layers and directions to measure.
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`, T ≥ 2; of equal lengths.
        hx: the initial states; zeros if None.
        text: the token (a character) of each step of the first sequence.
        units: the number of single units to show: those of the largest variance.
        name: a prefix for the titles and the pictures' names, for a page with several layers.
        seed: of the untrained layers; torch's global generator is not changed.

    Raises:
        ValueError: a shape is wrong, the text does not have T tokens, or `units` is below 1.
    """
    check_layer(layer)
    T = time_steps(layer, x)
    if T < 2:
        raise ValueError(f"inspect_layer: x must have at least 2 steps, got {T}")
    if text is not None and len(text) != T:
        raise ValueError(
            f"inspect_layer: text must have one token for each of the {T} steps, got {len(text)}"
        )
    if units < 1:
        raise ValueError(f"inspect_layer: units must be at least 1, got {units}")
    sections: dict[str, list[Part]] = {
        "Parameters": [_parameters(layer)],
        "Gradient by lag": _gradients(layer, x, hx, seed),
        "Gate saturation": _saturation(gate_saturation(layer, x, hx)),
        "Recurrent matrices": _matrices(recurrent_matrices(layer)),
        "Activations": _activity(layer, x, hx, text, units),
    }
    return [
        Section(f"{name}: {title}" if name else title, _with_prefix(parts, name))
        for title, parts in sections.items()
        if parts
    ]


def inspect_model(
    model: nn.Module,
    inputs: Tensor | tuple[Any, ...],
    text: Sequence[str] | None = None,
    *,
    units: int = 6,
    seed: int = 0,
) -> list[Section]:
    """`inspect_layer` of every `unrolled.nn.Recurrent` in a model, on its input when the model is
    called once with `inputs`, in evaluation mode; then all parameters of the model.

    Args:
        model: the model; it is left in the mode that it was in.
        inputs: the model's input, for a language model token numbers `[T, N]`; a tuple for several
            inputs. Of sequences of different lengths the longest are used, at most four.
        text: the token of each step of the first sequence; for a byte vocabulary
            `[vocabulary.decode([t]) for t in inputs[:, 0].tolist()]`.
            With several layers, it is shown for those that have as many steps.
        units: as for `inspect_layer`.
        seed: as for `inspect_layer`.

    Raises:
        ValueError: the model has no recurrent layer, or calls none; or an error of
            `inspect_layer`.
    """
    layers = layers_of(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), record_calls(layers, _ROWS) as calls:
            model(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    finally:
        model.train(training)
    inputs_of_layers = {name: call.x for name, call in calls.items() if call.x is not None}
    if not inputs_of_layers:
        raise ValueError("inspect_model: model must call its recurrent layers, but called none")
    sections = []
    for name, x in inputs_of_layers.items():
        is_only_layer = len(inputs_of_layers) == 1
        layer_text = text
        if text is not None and not is_only_layer and len(text) != time_steps(layers[name], x):
            layer_text = None
        sections += inspect_layer(
            layers[name],
            x,
            calls[name].hx,
            text=layer_text,
            units=units,
            name="" if is_only_layer else name,
            seed=seed,
        )
    if any(layer is not model for layer in layers.values()):
        sections.append(Section("All parameters of the model", [_parameters(model)]))
    return sections


def _with_prefix(parts: Sequence[Part], name: str) -> list[Part]:
    prefix = re.sub(r"\W+", "-", name) + "-" if name else ""
    return [
        Picture(prefix + part.name, part.png, part.caption) if isinstance(part, Picture) else part
        for part in parts
    ]


def _parameters(module: nn.Module) -> Table:
    rows = parameter_table(module)
    total = sum(row.count for row in rows)
    return Table(
        ["name", "shape", "elements", "norm"],
        [[r.name, " × ".join(map(str, r.shape)), f"{r.count:,}", f"{r.norm:.3g}"] for r in rows],
        f"{total:,} elements in {len(rows)} parameters of {type(module).__name__}. The norm is the "
        "Euclidean norm.",
    )


def _gradients(layer: Recurrent, x: Tensor, hx: HiddenState, seed: int) -> list[Part]:
    lags = min(_LAGS, time_steps(layer, x))
    curves = {}
    for gradient in gradient_by_lag(layer, x, hx, lags=lags, directions=_DIRECTIONS, seed=seed):
        curves[f"this, {sweep_name(gradient.layer, gradient.reverse)}"] = gradient.norms
    inputs = unroll(layer, x, hx)[0].inputs
    for name, untrained in _untrained_layers(layer, seed).items():
        (gradient,) = gradient_by_lag(
            untrained, inputs, lags=lags, directions=_DIRECTIONS, seed=seed
        )
        curves[f"untrained {name}"] = gradient.norms
    caption = (
        "How much a small change of the state k steps ago changes the last state: the norm of "
        "∂s(T)/∂s(T−k), which is 1 at lag 0. A straight fall is a vanishing gradient, a straight "
        "rise an exploding one; with a flat curve, the last state depends on what happened k steps "
        "ago. Thin curves: untrained layers of the same size on the same input."
    )
    return [Picture("gradients", draw_gradients(curves), caption)]


def _untrained_layers(layer: Recurrent, seed: int) -> dict[str, Recurrent]:
    """Layers of the classic cells with the sizes and the device of a layer, by their name."""
    sizes = (layer.input_size, layer.hidden_size)
    device = layer.weight_ih_l0.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {cls.__name__: cls(*sizes) for cls in (RNN, LSTM, GRU)}
    return {name: untrained.to(device) for name, untrained in layers.items()}


def _saturation(saturations: list[Saturation]) -> list[Part]:
    if not saturations:
        return []
    rows = [
        [
            sweep_name(saturation.layer, saturation.reverse),
            saturation.gate,
            saturation.function,
            f"{saturation.left_fraction:.1%}",
            f"{saturation.right_fraction:.1%}",
        ]
        for saturation in saturations
    ]
    table = Table(
        ["layer", "gate", "function", "left-saturated", "right-saturated"],
        rows,
        "Fraction of all steps, sequences and units at which a gate is in the lowest tenth (left) "
        "or the highest tenth (right) of its range; for tanh that is below -0.8 or above 0.8.",
    )
    caption = (
        "Each point is a unit, at the fractions of time that it is saturated. Lower left: rarely "
        "saturated. Lower right: nearly always at its lower bound, a closed gate. Upper left: "
        "nearly always at its upper bound, an open gate. On the diagonal: it switches between both."
    )
    if len(saturations) > _PANELS:
        caption += f" The first {_PANELS} of {len(saturations)} gates."
    return [table, Picture("saturation", draw_saturation(saturations[:_PANELS]), caption)]


def _matrices(matrices: list[RecurrentMatrix]) -> list[Part]:
    if not matrices:
        return []
    rows = [
        [
            sweep_name(matrix.layer, matrix.reverse),
            matrix.product,
            matrix.gate or "–",
            "–" if matrix.radius is None else f"{matrix.radius:.4g}",
            f"{matrix.singular[0].item():.4g}",
            f"{matrix.singular[len(matrix.singular) // 2].item():.4g}",
            f"{matrix.singular[-1].item():.4g}",
        ]
        for matrix in matrices
    ]
    headings = ["layer", "product", "gate", "spectral radius"]
    headings += ["largest singular value", "median", "smallest"]
    table = Table(
        headings,
        rows,
        "The recurrent matrices of each gate. The spectral radius is the largest absolute "
        "eigenvalue; the largest singular value is the largest factor by which the product "
        "stretches a vector.",
    )
    square = [matrix for matrix in matrices if matrix.eigenvalues is not None]
    if not square:
        return [table]
    caption = (
        "Eigenvalues of each matrix; the circle has radius 1. In a simple network, components with "
        "eigenvalues inside the circle decay over time, and those outside can grow."
    )
    if len(square) > _PANELS:
        caption += f" The first {_PANELS} of {len(square)} matrices."
    return [table, Picture("eigenvalues", draw_eigenvalues(square[:_PANELS]), caption)]


def _activity(
    layer: Recurrent, x: Tensor, hx: HiddenState, text: Sequence[str] | None, count: int
) -> list[Part]:
    steps = unroll(layer, x, hx)[-layer.spec.num_directions]
    states = steps.history()[:, 0].cpu()
    units = most_variable(states, count)
    layer_name = sweep_name(steps.sweep.layer, False)
    parts: list[Part] = [
        f"The output h of {layer_name} over the first sequence: the {len(units)} units of the "
        "largest variance."
    ]
    if text is not None:
        markup = {f"Unit {unit}": coloured_text(text, states[:, unit]) for unit in units}
        caption = (
            "Each character is coloured by the unit's activation after it was read: blue is "
            "negative, orange positive, white zero; ↵ is a newline."
        )
        parts.append(ColouredTexts(markup, caption))
    else:
        caption = "Each row is a unit, each column a step: orange is positive, purple negative."
        parts.append(Picture("units", draw_activity(states, units), caption))
    if min(states.shape) < 2:
        return parts
    components = principal_components(states, 2)
    steps_shown = slice(0, _TRAJECTORY_STEPS)
    components = replace(components, points=components.points[steps_shown])
    caption = (
        "The trajectory of the state in its two directions of largest variance, dark at the start "
        "and light at the end"
        + ("; each point is the character read last (␣ space, ↵ newline)" if text else "")
        + ". At points close to each other, the layer is in a similar state."
    )
    if len(states) > _TRAJECTORY_STEPS:
        caption += f" The first {_TRAJECTORY_STEPS} of {len(states)} steps."
    tokens = None if text is None else text[steps_shown]
    parts.append(Picture("trajectory", draw_trajectory(components, tokens), caption))
    return parts
