"""`unrolled bench`: how fast layers are on this machine, and what they learn that others tried."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.errors import UserError, told
from unrolled.cli.options import given

__all__ = ["bench"]

SHAPES = ("1,1,64,64", "100,1,256,256", "100,32,256,256")
CELLS = ("RNN", "GRU", "LSTM")


def bench(
    context: typer.Context,
    cell: Annotated[
        list[str] | None,
        typer.Option(help="Cell, as in train. Repeatable. [RNN, GRU, LSTM]", show_default=False),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T,N,I,H",
            help=f"Steps, batch, inputs, units. Repeatable. [{'; '.join(SHAPES)}]",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Timed rounds of each row.")] = 15,
    threads: Annotated[
        int | None, typer.Option(help="Threads of all; torch's own number without.")
    ] = None,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Learn what others published results on; takes long.")
    ] = False,
    only: Annotated[str, typer.Option(help="With --tasks: trials whose name has this regex.")] = "",
    results: Annotated[
        Path, typer.Option(help="With --tasks: JSON of the results; rows of earlier runs stay.")
    ] = Path("runs/bench/comparisons.json"),
    page: Annotated[
        Path | None,
        typer.Option(help="With --tasks: the page; beside the JSON without.", show_default=False),
    ] = None,
) -> None:
    """Time layers against torch's own (or a cell's step in a loop), in turns, on this machine.

    With --tasks: the adding problem, copy memory, parity, Dyck-1, digits, sunspots, and bytes of
    source, each beside published figures; a JSON file and a page of tables.
    """
    for name, value in (("rounds", rounds), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name}: wanted at least 1, got {value}")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    of_tasks = ("only", "results", "page")
    for name in given(context):
        if name not in ("tasks", "threads") and (name in of_tasks) != tasks:
            raise UserError(f"--{name}: wanted {'no ' * tasks}--tasks with it")
    if tasks:
        _compare(_pattern(only), results, page or results.with_suffix(".md"))
        return
    _time(cell or list(CELLS), [_shape(one) for one in shape or SHAPES], rounds)


def _time(cells: list[str], shapes: list[tuple[int, int, int, int]], rounds: int) -> None:
    from unrolled.bench.machine import machine
    from unrolled.bench.speed import WrongError, compare, table
    from unrolled.bench.timing import Plan
    from unrolled.cells import CellError

    plan = Plan(rounds=rounds, budget_s=4.0)
    with told(CellError, WrongError, ValueError):
        rows = [
            compare(cell, shape, training, plan)
            for training in (False, True)
            for cell in cells
            for shape in shapes
        ]
    print(f"{machine()}\nmedian ± half the distance of the quartiles\n\n{table(rows)}")


def _shape(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shape: wanted four numbers T,N,I,H of at least 1, got {text!r}")
    T, N, I, H = map(int, parts)  # noqa: E741
    return T, N, I, H


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--only: wanted a regular expression, got {text!r} ({error})") from None


def _compare(only: re.Pattern[str], results: Path, page_path: Path) -> None:
    from unrolled.bench.comparisons import COMPARISONS
    from unrolled.bench.page import page
    from unrolled.bench.trial import StoppedError, baselines_of, name_of, run_trial
    from unrolled.io import write
    from unrolled.tasks import DataError
    from unrolled.train import Diverged

    found = _read(results)
    chosen = [
        (name, comparison, config)
        for name, comparison in COMPARISONS.items()
        for config in comparison.trials
        if only.search(name_of(name, config))
    ]
    if not chosen:
        names = [name_of(n, config) for n, c in COMPARISONS.items() for config in c.trials]
        raise UserError(f"--only: no trial has {only.pattern!r} in its name: {', '.join(names)}")
    with told(OSError):
        for path in (results, page_path):
            path.parent.mkdir(parents=True, exist_ok=True)
    for name, comparison, config in chosen:
        print(name_of(name, config), flush=True)
        folder = results.parent / "bench" / name_of(name, config).replace(" ", "-")
        try:
            with told(DataError, Diverged):
                row = run_trial(name, comparison, config, folder)
        except StoppedError:
            raise typer.Exit(130) from None
        _put(found["rows"], row)
        found["baselines"][name] = baselines_of(comparison)
        with told(OSError):
            write(results, (json.dumps(found, indent=1) + "\n").encode())
            write(page_path, page(found).encode())
        shown = ", ".join(f"{key} {value:.4g}".strip() for key, value in row["results"].items())
        print(f"  {comparison.unit} {shown}, {row['seconds']:.0f} s", flush=True)
    print(f"results     {results}\npage        {page_path}")


def _put(rows: list[Any], row: Any) -> None:
    """A row in the place of the one of its name, or behind all."""
    for k, other in enumerate(rows):
        if other["name"] == row["name"]:
            rows[k] = row
            return
    rows.append(row)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"rows": [], "baselines": {}}
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found["rows"], list) or not isinstance(found["baselines"], dict):
            raise TypeError("rows or baselines of another type")
        for row in found["rows"]:
            row["name"], row["comparison"], row["results"], row["environment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--results: {path}: no results of this command ({error})") from None
    return dict(found)
