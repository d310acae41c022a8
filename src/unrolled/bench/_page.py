"""The results of the trials as a Markdown page, with baselines and published results."""

from unrolled.bench._comparisons import COMPARISONS, Comparison
from unrolled.bench._machine import describe
from unrolled.bench._trial import Results, Row, Scores

_HEAD = """# Comparison with published results

`unrolled bench --tasks` writes this page from its results. Trials that fall short of the published
results are in the tables like all others.

    unrolled bench --tasks                      # all trials, about an hour
    unrolled bench --tasks --only 'adding GRU'  # the trials whose name matches

Each trial is a run of `unrolled train` with AdamW, gradients clipped to norm 1, and a learning rate
with cosine decay unless the table says that it is constant. The weights of the last step are
evaluated, not those of the best validation. Settings were chosen by hand in a few trials on the
same problems. Training sequences of the synthetic problems are newly generated for each batch.
Times are of complete runs, on two cores that may have had other work at the same time. "Chrono"
is the number of steps of the chrono initialization (`--chrono-steps`, Tallec & Ollivier 2018);
"recurrent lr" is the factor on the learning rate of the recurrent matrices
(`--recurrent-lr-scale`).
"""

_COLUMNS = ("settings", "units", "parameters", "seed", "steps × batch", "learning rate", "time")


def page(results: Results) -> str:
    """The Markdown page of the results of `unrolled bench --tasks`."""
    parts = [_HEAD.rstrip()]
    for name, comparison in COMPARISONS.items():
        rows = [row for row in results["rows"] if row["comparison"] == name]
        if rows:
            parts += [f"## {comparison.title}", comparison.about]
            parts.append(_table(comparison, rows, results["baselines"].get(name, {})))
    machines = {describe(row["environment"]): None for row in results["rows"]}
    dates = sorted(row["environment"]["date"][:10] for row in results["rows"])
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    parts += [
        "## Machines",
        *(f"- {machine}" for machine in machines),
        f"{span}. One run for each row.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(comparison: Comparison, rows: list[Row], baselines: dict[str, Scores]) -> str:
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
    for name, scores in baselines.items():
        numbers = [_number(scores[key]) if key in scores else "" for key in keys]
        lines.append(_line([name, *numbers, *blank]))
    for result in comparison.published:
        values = [result.value, *[""] * (len(keys) - 1)]
        lines.append(_line([f"published: {result.model}", *values, result.source, *blank[1:]]))
    return "\n".join(lines)


def _line(fields: list[str]) -> str:
    return f"| {' | '.join(fields)} |"


def _number(value: float) -> str:
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
