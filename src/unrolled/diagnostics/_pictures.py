"""Pictures of the measurements, as PNGs in memory, in colours that people with colour blindness can
distinguish.

The numbers come from `_gradients`, `_gates`, `_matrices` and `_activity`.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from unrolled.diagnostics._activity import Components
from unrolled.diagnostics._gates import Saturation
from unrolled.diagnostics._matrices import RecurrentMatrix

# Okabe & Ito (2008), without yellow, which has little contrast on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_SMALLEST = 1e-30
# The part of cividis that is dark enough for letters on white.
_TIME = LinearSegmentedColormap.from_list(
    "time", matplotlib.colormaps["cividis"](torch.linspace(0.0, 0.8, 64).numpy())
)
_VISIBLE = {"\n": "↵", " ": "␣", "\t": "→"}


def sweep_name(layer: int, reverse: bool) -> str:
    """The name of a layer and direction."""
    return f"layer {layer}" + (", backward in time" if reverse else "")


def draw_gradients(curves: Mapping[str, Tensor]) -> bytes:
    """Norms of gradients by lag, `[K + 1]` each, on a logarithmic axis; values below 1e-30 are not
    drawn.

    The first curve is thicker: the others are for comparison.
    """
    figure, canvas = _figure(10.0, 4.2)
    axes = figure.add_subplot()
    smallest, largest = 1.0, 1.0
    for index, (name, norms) in enumerate(curves.items()):
        values = norms.double().where(norms > _SMALLEST, torch.nan)
        finite = values[values.isfinite()]
        if len(finite):
            smallest = min(smallest, finite.min().item())
            largest = max(largest, finite.max().item())
        axes.plot(
            range(len(values)),
            values.tolist(),
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_DASHES[index // len(_COLOURS) % len(_DASHES)],
            linewidth=1.5 if index else 2.8,
            label=name,
        )
    axes.axhline(1.0, color="#888888", linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(smallest / 3, largest * 3)
    axes.set_xlim(0, max(len(norms) for norms in curves.values()) - 1)
    axes.set_xlabel("lag k, steps before the last")
    axes.set_ylabel("norm of the gradient")
    _tidy(axes)
    axes.legend(frameon=False, loc="lower left")
    return _png(figure, canvas)


def draw_saturation(saturations: Sequence[Saturation]) -> bytes:
    """A panel for each gate: for each unit, the fraction of time that it is right-saturated over
    the fraction that it is left-saturated."""
    figure, panels = _panels(len(saturations))
    for panel, saturation in zip(panels, saturations, strict=True):
        panel.plot([0, 1], [1, 0], color="#888888", linewidth=0.8)
        panel.scatter(
            saturation.left, saturation.right, s=14, color=_COLOURS[0], alpha=0.55, linewidths=0
        )
        panel.set_xlim(-0.04, 1.04)
        panel.set_ylim(-0.04, 1.04)
        panel.set_aspect("equal")
        _title(panel, f"{saturation.gate}, {sweep_name(saturation.layer, saturation.reverse)}")
        panel.set_xlabel("left-saturated")
        panel.set_ylabel("right-saturated")
        _tidy(panel)
    return _png(figure, FigureCanvasAgg(figure))


def draw_eigenvalues(matrices: Sequence[RecurrentMatrix]) -> bytes:
    """A panel for each square matrix: its eigenvalues in the complex plane, and the unit circle."""
    square = [(m, m.eigenvalues) for m in matrices if m.eigenvalues is not None]
    figure, panels = _panels(len(square))
    angles = torch.linspace(0, 2 * torch.pi, 200)
    for panel, (matrix, values) in zip(panels, square, strict=True):
        panel.plot(angles.cos(), angles.sin(), color="#888888", linewidth=0.9)
        panel.scatter(values.real, values.imag, s=12, color=_COLOURS[1], alpha=0.6, linewidths=0)
        limit = 1.08 * max(1.0, values.abs().max().item())
        panel.set_xlim(-limit, limit)
        panel.set_ylim(-limit, limit)
        panel.set_aspect("equal")
        name = matrix.gate or matrix.product
        _title(panel, f"{name}, {sweep_name(matrix.layer, matrix.reverse)}")
        panel.set_xlabel("real part")
        panel.set_ylabel("imaginary part")
        _tidy(panel)
    return _png(figure, FigureCanvasAgg(figure))


def draw_activity(states: Tensor, units: Sequence[int]) -> bytes:
    """Some units of states `[T, H]` over time, one row for each."""
    figure, canvas = _figure(10.0, 0.8 + 0.32 * len(units))
    axes = figure.add_subplot()
    values = states[:, list(units)].double().T.numpy()
    limit = abs(values).max() or 1.0
    image = axes.imshow(
        values, aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axes.set_yticks(range(len(units)), [str(unit) for unit in units])
    axes.set_ylabel("unit")
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="activation", pad=0.01)
    return _png(figure, canvas)


def draw_trajectory(components: Components, text: Sequence[str] | None = None) -> bytes:
    """The trajectory of the state in its first two components, dark at the start and light at the
    end.

    With a text, each point is drawn as the token that was read last.
    """
    figure, canvas = _figure(10.0, 6.0)
    axes = figure.add_subplot()
    x, y = components.points[:, 0], components.points[:, 1]
    T = len(x)
    axes.plot(x, y, color="#cccccc", linewidth=0.7, zorder=1)
    size = 0 if text else 18
    points = axes.scatter(x, y, c=range(T), cmap=_TIME, s=size, zorder=2, linewidths=0)
    if text is not None:
        for t, token in enumerate(text):
            axes.text(
                x[t].item(),
                y[t].item(),
                _drawable(token),
                color=_TIME(t / max(1, T - 1)),
                fontsize=12,
                fontweight="bold",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                ha="center",
                va="center",
                parse_math=False,
                clip_on=True,
            )
    explained = components.explained.tolist()
    axes.set_xlabel(f"first component, {explained[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {explained[1]:.0%} of the variance")
    _tidy(axes)
    figure.colorbar(points, ax=axes, label="step", pad=0.01)
    return _png(figure, canvas)


def _drawable(token: str) -> str:
    """The token, or a replacement if matplotlib's default font has no glyph for it."""
    if token in _VISIBLE:
        return _VISIBLE[token]
    has_glyph = token in _VISIBLE.values() or (token.isprintable() and token.isascii())
    return token if has_glyph else "·"


def _figure(width: float, height: float) -> tuple[Figure, FigureCanvasAgg]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, 5 if count % 4 else 4)
    rows = -(-count // columns)
    side = 10.0 / max(columns, 4)
    figure = Figure(figsize=(side * columns, (side + 0.3) * rows), dpi=110, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=10, parse_math=False)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)


def _png(figure: Figure, canvas: FigureCanvasAgg) -> bytes:
    picture = BytesIO()
    canvas.print_png(picture)
    return picture.getvalue()
