"""Pictures of the measurements, as PNGs in memory; colours that all eyes can tell apart.

Here is drawing only: the numbers come from `gradients`, `gates`, `matrices` and `activity`.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from unrolled.diagnostics.activity import Components
from unrolled.diagnostics.gates import Saturation
from unrolled.diagnostics.matrices import RecurrentMatrix

__all__ = [
    "draw_activity",
    "draw_eigenvalues",
    "draw_gradients",
    "draw_saturation",
    "draw_trajectory",
    "place_name",
]

# Okabe & Ito (2008), without the yellow, which is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_LEAST = 1e-30
# Up to where cividis is still dark enough for letters on white.
_TIME = LinearSegmentedColormap.from_list(
    "time", matplotlib.colormaps["cividis"](torch.linspace(0.0, 0.8, 64).numpy())
)
_SHOWN = {"\n": "↵", " ": "␣", "\t": "→"}


def place_name(layer: int, reverse: bool) -> str:
    """A layer and direction in words."""
    return f"layer {layer}" + (", backward in time" if reverse else "")


def draw_gradients(curves: Mapping[str, Tensor]) -> bytes:
    """Norms of gradients by lag, `[K + 1]` each, on a logarithmic axis; below 1e-30 is not drawn.

    The first curve is drawn strongest: it is the one that the others are compared with.
    """
    figure, canvas = _figure(10.0, 4.2)
    axes = figure.add_subplot()
    least, most = 1.0, 1.0
    for index, (name, norms) in enumerate(curves.items()):
        drawn = norms.double().where(norms > _LEAST, torch.nan)
        kept = drawn[drawn.isfinite()]
        if len(kept):
            least, most = min(least, kept.min().item()), max(most, kept.max().item())
        axes.plot(
            range(len(drawn)),
            drawn.tolist(),
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_DASHES[index // len(_COLOURS) % len(_DASHES)],
            linewidth=1.5 if index else 2.8,
            label=name,
        )
    axes.axhline(1.0, color="#888888", linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(least / 3, most * 3)
    axes.set_xlim(0, max(len(norms) for norms in curves.values()) - 1)
    axes.set_xlabel("lag k, steps back from the last")
    axes.set_ylabel("norm of the gradient")
    _tidy(axes)
    axes.legend(frameon=False, loc="lower left")
    return _png(figure, canvas)


def draw_saturation(saturations: Sequence[Saturation]) -> bytes:
    """A panel for each gate: each unit's share of time right-saturated over left-saturated."""
    figure, panels = _panels(len(saturations))
    for panel, one in zip(panels, saturations, strict=True):
        panel.plot([0, 1], [1, 0], color="#888888", linewidth=0.8)
        panel.scatter(one.left, one.right, s=14, color=_COLOURS[0], alpha=0.55, linewidths=0)
        panel.set_xlim(-0.04, 1.04)
        panel.set_ylim(-0.04, 1.04)
        panel.set_aspect("equal")
        _title(panel, f"{one.gate}, {place_name(one.layer, one.reverse)}")
        panel.set_xlabel("left-saturated")
        panel.set_ylabel("right-saturated")
        _tidy(panel)
    return _png(figure, FigureCanvasAgg(figure))


def draw_eigenvalues(matrices: Sequence[RecurrentMatrix]) -> bytes:
    """A panel for each square block: its eigenvalues in the plane, and the unit circle."""
    square = [(m, m.eigenvalues) for m in matrices if m.eigenvalues is not None]
    figure, panels = _panels(len(square))
    turn = torch.linspace(0, 2 * torch.pi, 200)
    for panel, (matrix, values) in zip(panels, square, strict=True):
        panel.plot(turn.cos(), turn.sin(), color="#888888", linewidth=0.9)
        panel.scatter(values.real, values.imag, s=12, color=_COLOURS[1], alpha=0.6, linewidths=0)
        reach = 1.08 * max(1.0, values.abs().max().item())
        panel.set_xlim(-reach, reach)
        panel.set_ylim(-reach, reach)
        panel.set_aspect("equal")
        name = matrix.gate or matrix.product
        _title(panel, f"{name}, {place_name(matrix.layer, matrix.reverse)}")
        panel.set_xlabel("real part")
        panel.set_ylabel("imaginary part")
        _tidy(panel)
    return _png(figure, FigureCanvasAgg(figure))


def draw_activity(states: Tensor, units: Sequence[int]) -> bytes:
    """Chosen units of states `[T, H]` over time, a row for each."""
    figure, canvas = _figure(10.0, 0.8 + 0.32 * len(units))
    axes = figure.add_subplot()
    values = states[:, list(units)].double().T.numpy()
    reach = abs(values).max() or 1.0
    image = axes.imshow(
        values, aspect="auto", cmap="PuOr_r", vmin=-reach, vmax=reach, interpolation="nearest"
    )
    axes.set_yticks(range(len(units)), [str(unit) for unit in units])
    axes.set_ylabel("unit")
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="activation", pad=0.01)
    return _png(figure, canvas)


def draw_trajectory(components: Components, text: Sequence[str] | None = None) -> bytes:
    """The way of the state in its first two components, dark at the start and light at the end.

    With a text, each point is the piece that was read last.
    """
    figure, canvas = _figure(10.0, 6.0)
    axes = figure.add_subplot()
    first, second = components.points[:, 0], components.points[:, 1]
    T = len(first)
    axes.plot(first, second, color="#cccccc", linewidth=0.7, zorder=1)
    size = 0 if text else 18
    points = axes.scatter(first, second, c=range(T), cmap=_TIME, s=size, zorder=2, linewidths=0)
    if text is not None:
        for t, piece in enumerate(text):
            axes.text(
                first[t].item(),
                second[t].item(),
                _drawable(piece),
                color=_TIME(t / max(1, T - 1)),
                fontsize=12,
                fontweight="bold",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                ha="center",
                va="center",
                parse_math=False,
                clip_on=True,
            )
    share = components.explained.tolist()
    axes.set_xlabel(f"first component, {share[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {share[1]:.0%} of the variance")
    _tidy(axes)
    figure.colorbar(points, ax=axes, label="step", pad=0.01)
    return _png(figure, canvas)


def _drawable(piece: str) -> str:
    """What matplotlib's own font can draw."""
    shown = _SHOWN.get(piece, piece)
    return shown if shown in _SHOWN.values() or (piece.isprintable() and piece.isascii()) else "·"


def _figure(width: float, height: float) -> tuple[Figure, FigureCanvasAgg]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    columns = min(count, 5 if count % 4 else 4)
    rows = -(-count // columns)
    side = 10.0 / max(columns, 4)
    figure = Figure(figsize=(side * columns, (side + 0.3) * rows), dpi=110, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=10, parse_math=False)


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)


def _png(figure: Figure, canvas: FigureCanvasAgg) -> bytes:
    picture = BytesIO()
    canvas.print_png(picture)
    return picture.getvalue()
