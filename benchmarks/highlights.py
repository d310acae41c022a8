"""The other benchmarks in one line each: geometric means of ratios, and the lowest row."""

from collections.abc import Callable, Iterator
from typing import Any

import tables
from peers import OURS
from tables import Row, cut, geometric_mean, ms

Sections = dict[str, Any]
Ratio = Callable[[Row], float]


def highlights(sections: Sections) -> str:
    """A table of means over rows of the sections that were measured; empty if there is none."""
    lines = [["", "geometric mean", "lowest row", "rows", "commit"]]
    for section, title, rows, ratio in _subjects(sections):
        if rows:
            ratios = [ratio(row) for row in rows]
            mean, lowest = cut(geometric_mean(ratios)), cut(min(ratios))
            commit = sections[section]["environment"]["commit"][:7]
            lines.append([title, mean, lowest, str(len(rows)), commit])
    return tables.table(lines) if len(lines) > 1 else ""


def _subjects(sections: Sections) -> Iterator[tuple[str, str, list[Row], Ratio]]:
    """Section, title, rows, and the ratio of a row."""
    half = [
        row
        for row in _rows(sections, "half")
        if row["T"] * row["N"] >= 64 and row["H"] >= 128 and tables.is_bfloat16_compared(row)
    ]
    for training, mode in ((False, "inference"), (True, "training")):
        rows = [row for row in half if row["training"] == training]
        yield "half", f"bfloat16 {mode}: our float32 / ours", rows, _gain
        yield "half", f"bfloat16 {mode}: fastest peer / ours", rows, tables.lead_in_bfloat16
    for precision in ("float32", "bfloat16"):
        rows = [r for r in _rows(sections, "training_step") if r["precision"] == precision]
        title = f"training step of a language model, {precision}: torch / ours"
        yield "training_step", title, rows, tables.against_torch
    title = "whole calls, 4 blocks in a recurrent matrix of H=512: dense / 4 blocks"
    yield "heads", title, _rows(sections, "heads"), lambda row: ms(row, "1") / ms(row, "4")
    rows = [row for row in _rows(sections, "busy") if row["name"].endswith(" 2")]
    yield "busy", "beside two busy processes a core: torch / ours", rows, _means_against_torch
    title = "calls after a rest of 20 ms: torch / ours"
    yield "rested", title, _rows(sections, "rested"), _means_against_torch


def _rows(sections: Sections, name: str) -> list[Row]:
    return list(sections.get(name, {"rows": []})["rows"])


def _gain(row: Row) -> float:
    return ms(row, OURS) / ms(row, "unrolled bfloat16")


def _means_against_torch(row: Row) -> float:
    return float(row["peers"]["torch"]["mean_ms"] / row["peers"][OURS]["mean_ms"])
