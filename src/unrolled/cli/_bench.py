"""`unrolled bench`: the speed of layers on this machine, and trials on problems with published
results.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli._errors import UserError, as_user_errors
from unrolled.cli._options import options_on_command_line

if TYPE_CHECKING:
    from unrolled.bench._trial import Results, Row

SHAPES = ("1,1,64,64", "100,1,256,256", "100,32,256,256")
CELLS = ("RNN", "GRU", "LSTM")
TASK_OPTIONS = ("only", "results", "page")


def bench(
    context: typer.Context,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="Cell to time, as in train. Can be repeated.  [default: RNN, GRU, LSTM]",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T,N,I,H",
            help="Time steps, batch size, input size and hidden size. Can be repeated.  "
            f"[default: {'; '.join(SHAPES)}]",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Number of timed rounds for each row.  [at least 1]")
    ] = 15,
    threads: Annotated[
        int | None,
        typer.Option(help="Number of threads; by default as many as torch uses.  [at least 1]"),
    ] = None,
    tasks: Annotated[
        bool,
        typer.Option(
            "--tasks",
            help="Instead of timing, train on problems with published results (about an hour).",
        ),
    ] = False,
    only: Annotated[
        str,
        typer.Option(
            metavar="REGEX",
            help="With --tasks: run only the trials whose name matches; all by default.",
            show_default=False,
        ),
    ] = "",
    results: Annotated[
        Path,
        typer.Option(
            help="With --tasks: JSON file for the results; rows of earlier trials are kept."
        ),
    ] = Path("runs/bench/comparisons.json"),
    page: Annotated[
        Path | None,
        typer.Option(
            help="With --tasks: Markdown file for the tables; by default next to the JSON file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Time layers, or compare trained models with published results.

    Layers are timed against torch.nn, or for cells that it does not have against a Python loop over
    the steps. Times are in milliseconds per call, for inference and for training.

    With --tasks: train on the adding problem, copy memory, parity, Dyck-1, digits, sunspots, and
    the bytes of source code, and write a page that compares the results with published ones.
    """
    for name, value in (("rounds", rounds), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    for name in options_on_command_line(context):
        if name not in ("tasks", "threads") and (name in TASK_OPTIONS) != tasks:
            raise UserError(
                f"--{name} {'cannot be combined with' if tasks else 'requires'} --tasks"
            )
    if tasks:
        _run_trials(_pattern(only), results, page or results.with_suffix(".md"))
        return
    _time(cell or list(CELLS), [_parse_shape(text) for text in shape or SHAPES], rounds)


def _time(cells: list[str], shapes: list[tuple[int, int, int, int]], rounds: int) -> None:
    from unrolled.bench._machine import machine
    from unrolled.bench._speed import WrongError, compare, table
    from unrolled.bench._timing import Plan
    from unrolled.cells import CellError

    plan = Plan(rounds=rounds, budget_s=4.0)
    with as_user_errors(CellError, WrongError, ValueError):
        rows = [
            compare(cell, shape, training, plan)
            for training in (False, True)
            for cell in cells
            for shape in shapes
        ]
    print(f"{machine()}\nmedian ± half the interquartile range\n\n{table(rows)}")


def _parse_shape(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shape must be four numbers T,N,I,H of at least 1, got {text!r}")
    T, N, I, H = map(int, parts)  # noqa: E741
    return T, N, I, H


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--only must be a regular expression, got {text!r} ({error})") from None


def _run_trials(only: re.Pattern[str], results_path: Path, page_path: Path) -> None:
    from unrolled.bench._comparisons import COMPARISONS
    from unrolled.bench._page import page
    from unrolled.bench._trial import StoppedError, baselines_of, name_of, run_trial
    from unrolled.io import write
    from unrolled.tasks import DataError
    from unrolled.train import Diverged

    results = _read_results(results_path)
    trials = [
        (name, comparison, config)
        for name, comparison in COMPARISONS.items()
        for config in comparison.trials
        if only.search(name_of(name, config))
    ]
    if not trials:
        names = [name_of(n, config) for n, c in COMPARISONS.items() for config in c.trials]
        raise UserError(
            f"--only must match the name of a trial, got {only.pattern!r}; trials are "
            f"{', '.join(names)}"
        )
    with as_user_errors(OSError):
        for path in (results_path, page_path):
            path.parent.mkdir(parents=True, exist_ok=True)
    for name, comparison, config in trials:
        print(name_of(name, config), flush=True)
        folder = results_path.parent / "bench" / name_of(name, config).replace(" ", "-")
        try:
            with as_user_errors(DataError, Diverged):
                row = run_trial(name, comparison, config, folder)
        except StoppedError:
            raise typer.Exit(130) from None
        _replace_or_append(results["rows"], row)
        results["baselines"][name] = baselines_of(comparison)
        with as_user_errors(OSError):
            write(results_path, (json.dumps(results, indent=1) + "\n").encode())
            write(page_path, page(results).encode())
        scores = ", ".join(f"{key} {value:.4g}".strip() for key, value in row["results"].items())
        print(f"  {comparison.unit} {scores}, {row['seconds']:.0f} s", flush=True)
    print(f"results     {results_path}\npage        {page_path}")


def _replace_or_append(rows: "list[Row]", row: "Row") -> None:
    """Replace the row of the same name, or append the row."""
    for index, earlier in enumerate(rows):
        if earlier["name"] == row["name"]:
            rows[index] = row
            return
    rows.append(row)


def _read_results(path: Path) -> "Results":
    if not path.exists():
        return {"rows": [], "baselines": {}}
    try:
        results = json.loads(path.read_bytes())
        if not isinstance(results["rows"], list) or not isinstance(results["baselines"], dict):
            raise TypeError("rows must be a list and baselines an object")
        for row in results["rows"]:
            row["name"], row["comparison"], row["results"], row["environment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--results must be a file that this command wrote, got {path} ({error})"
        ) from None
    return {"rows": results["rows"], "baselines": results["baselines"]}
