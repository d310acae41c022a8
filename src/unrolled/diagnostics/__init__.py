"""Measurements and pictures that explain a network and its training.

The measurements need torch only; the functions that draw import matplotlib when they are first
used.
"""

from typing import TYPE_CHECKING

from unrolled.diagnostics._activity import (
    Components,
    activity,
    coloured_text,
    most_variable,
    principal_components,
)
from unrolled.diagnostics._gates import GateValues, Saturation, gate_saturation, gate_values
from unrolled.diagnostics._gradients import GradientByLag, gradient_by_lag, input_gradient_by_lag
from unrolled.diagnostics._matrices import (
    ParameterRow,
    RecurrentMatrix,
    parameter_table,
    recurrent_matrices,
)
from unrolled.diagnostics._page import ColouredTexts, Picture, Section, Table, write_page

if TYPE_CHECKING:
    from unrolled.diagnostics._curves import loss_curve
    from unrolled.diagnostics._inspection import inspect_layer, inspect_model

__all__ = [
    "ColouredTexts",
    "Components",
    "GateValues",
    "GradientByLag",
    "ParameterRow",
    "Picture",
    "RecurrentMatrix",
    "Saturation",
    "Section",
    "Table",
    "activity",
    "coloured_text",
    "gate_saturation",
    "gate_values",
    "gradient_by_lag",
    "input_gradient_by_lag",
    "inspect_layer",
    "inspect_model",
    "loss_curve",
    "most_variable",
    "parameter_table",
    "principal_components",
    "recurrent_matrices",
    "write_page",
]


def __getattr__(name: str) -> object:
    if name == "loss_curve":
        from unrolled.diagnostics._curves import loss_curve

        return loss_curve
    if name in {"inspect_layer", "inspect_model"}:
        from unrolled.diagnostics import _inspection as inspection

        function: object = getattr(inspection, name)
        return function
    raise AttributeError(f"module 'unrolled.diagnostics' has no attribute {name!r}")
