"""The learning curve of a training run."""

import math
import os
from collections.abc import Iterable, Mapping
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unrolled.io import write

_TRAINING = "#7a9cc6"
_VALIDATION = "#b5382a"


def loss_curve(
    rows: Iterable[Mapping[str, str]],
    path: str | os.PathLike[str],
    measure: str = "bits_per_character",
) -> None:
    """Plot a score over the training steps as a PNG file; bits per character also have an axis of
    perplexity.

    Args:
        rows: the rows of a metrics file, with the columns `step`, `training_…` and `validation_…`
            of the score; values may be empty.
        path: the PNG file, which is replaced atomically.
        measure: the score's name in the columns.
    """
    rows = list(rows)
    figure = Figure(figsize=(8.0, 4.5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, values = _series(rows, f"training_{measure}")
    axes.plot(steps, values, color=_TRAINING, linewidth=1.2, label="training")
    steps, values = _series(rows, f"validation_{measure}")
    axes.plot(steps, values, color=_VALIDATION, marker="o", markersize=4, label="validation")
    if values:
        axes.annotate(
            f"{values[-1]:.4g}",
            (steps[-1], values[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color=_VALIDATION,
        )
    axes.set_xlabel("step")
    axes.set_ylabel(measure.replace("_", " "))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    axes.legend(frameon=False)
    if measure == "bits_per_character":
        _add_perplexity(axes)
    picture = BytesIO()
    canvas.print_png(picture)
    write(path, picture.getvalue())


def _series(rows: Iterable[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _add_perplexity(axes: Axes) -> None:
    right = axes.secondary_yaxis("right", functions=(lambda bits: bits, lambda bits: bits))
    right.set_yticks(axes.get_yticks())
    right.set_yticklabels([f"{2.0**bits:.3g}" for bits in axes.get_yticks()])
    right.set_ylabel("perplexity")
