"""The results of comparisons as a page: ours, then simple methods, then what others published."""

from typing import Any

from unrolled.bench.comparisons import COMPARISONS, Comparison
from unrolled.bench.machine import describe

__all__ = ["page"]

_HEAD = """# Comparisons that others published

Written by `unrolled bench --tasks` from its results. What a trial does not reach is in the tables
like the rest.

    unrolled bench --tasks                      # all of it, about an hour
    unrolled bench --tasks --only 'adding GRU'  # trials by their names

Each trial is a run of `unrolled train`: AdamW, the gradient clipped at norm 1, a learning rate that
falls as half a cosine unless it is said to be constant. The weights of the last step are measured;
none are chosen by their result. Settings were chosen by hand, in a few trials on the same problems.
Problems are drawn anew for each batch. Times are those of the runs as a whole, on two cores that
may have had other work beside. "Chrono" starts the gates for as many steps as it says
(`--remember`, Tallec & Ollivier 2018); "recurrent rate" is the learning rate of the recurrent
matrices, as a part of the others'.
"""

_COLUMNS = ("settings", "units", "parameters", "seed", "steps × batch", "rate", "time")

Results = dict[str, Any]


def page(results: Results) -> str:
    """Markdown of what ``unrolled bench --tasks`` wrote: ``rows`` and ``baselines``."""
    parts = [_HEAD.rstrip()]
    for name, comparison in COMPARISONS.items():
        rows = [row for row in results["rows"] if row["comparison"] == name]
        if rows:
            parts += [f"## {comparison.title}", comparison.about]
            parts.append(_table(comparison, rows, results["baselines"].get(name, {})))
    machines = {describe(row["environment"]): None for row in results["rows"]}
    dates = sorted(row["environment"]["date"][:10] for row in results["rows"])
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    parts += ["## Measured on", *(f"- {machine}" for machine in machines), f"{span}. One run each."]
    return "\n\n".join(parts) + "\n"


def _table(comparison: Comparison, rows: list[Any], baselines: dict[str, Any]) -> str:
    keys = list(rows[0]["results"])
    heads = [f"{comparison.unit}, T = {key}" if len(keys) > 1 else comparison.unit for key in keys]
    columns = ["", *heads, *_COLUMNS]
    lines = [_line(columns), _line(["---"] * len(columns))]
    for row in rows:
        lines.append(
            _line(
                [
                    row["cell"],
                    *(f"**{_number(row['results'][key])}**" for key in keys),
                    row["settings"],
                    str(row["hidden_size"]),
                    f"{row['parameters']:,}",
                    str(row["seed"]),
                    f"{row['steps']} × {row['batch_size']}",
                    f"{row['learning_rate']:g}",
                    _time(row["seconds"]),
                ]
            )
        )
    blank = [""] * (len(columns) - 1 - len(keys))
    for name, found in baselines.items():
        numbers = [_number(found[key]) if key in found else "" for key in keys]
        lines.append(_line([name, *numbers, *blank]))
    for told in comparison.published:
        values = [told.value, *[""] * (len(keys) - 1)]
        lines.append(_line([f"published: {told.what}", *values, told.source, *blank[1:]]))
    return "\n".join(lines)


def _line(fields: list[str]) -> str:
    return f"| {' | '.join(fields)} |"


def _number(value: float) -> str:
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
