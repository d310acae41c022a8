"""The grid as a picture: for each row, the speed-up over the fastest peer and over torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from problems import CELLS
from tables import MODES, Row, against_fastest, against_torch, shape

COLOURS = {"RNN": "#1b7837", "GRU": "#2166ac", "LSTM": "#b2182b"}
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
STYLE: dict[str, Any] = {
    "svg.hashsalt": "unrolled",
    "font.size": 9,
}  # equal results give equal files


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write the picture as SVG."""
    shapes = list(dict.fromkeys(map(shape, rows)))
    with plt.rc_context(STYLE):
        height = 1.8 + 0.5 * len(shapes)
        figure, panels = plt.subplots(1, len(MODES), figsize=(10, height), sharey=True, sharex=True)
        for panel, mode in zip(panels, MODES, strict=True):
            _panel(panel, [r for r in rows if r["kind"] == mode], shapes, MODES[mode])
        panels[0].set_ylabel("T,N,I,H")
        figure.suptitle(title, fontsize=10)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="lower center", ncols=len(CELLS), frameon=False)
        figure.tight_layout(rect=(0, 0.5 / height, 1, 1))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Axes, rows: Sequence[Row], shapes: list[str], title: str) -> None:
    for k in range(0, len(shapes), 2):
        panel.axhspan(k - 0.5, k + 0.5, color="#f4f4f4", zorder=0)
    panel.axvline(1, color="black", linewidth=1, zorder=1)
    for index, cell in enumerate(CELLS):
        chosen = [r for r in rows if r["cell"] == cell]
        heights = [shapes.index(shape(r)) + 0.27 * (index - 1) for r in chosen]
        fastest, torch = map(against_fastest, chosen), map(against_torch, chosen)
        look: dict[str, Any] = {"color": COLOURS[cell], "linewidths": 1.2, "s": 30, "zorder": 3}
        panel.scatter(list(fastest), heights, label=f"{cell}, over the fastest peer", **look)
        look["facecolors"] = "none"
        panel.scatter(list(torch), heights, label=f"{cell}, over torch", **look)
    panel.set_title(title)
    panel.set_xlabel("speed-up (peer's time / ours); left of 1 the peer is faster")
    panel.set_yticks(range(len(shapes)), shapes)
    panel.set_ylim(len(shapes) - 0.5, -0.5)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(TICKS))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.tick_params(length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)
