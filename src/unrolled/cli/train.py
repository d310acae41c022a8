"""`unrolled train TASK`: one command a task, whose options are its configuration's."""

import contextlib
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.cli.options import command_of, given, made, printed
from unrolled.config import CONFIGS, Config

if TYPE_CHECKING:
    from unrolled.train import Result

__all__ = ["add_commands"]

HELP = {
    "lm": """Train a language model on text.

    DATA are text files and folders of them; without any, the standard library's Python sources.
    Embedding or one-hot input, recurrent layers, a linear layer; truncated backpropagation, the
    state carried from window to window.
    """,
    "classify": """Train a classifier of texts or of numeric sequences.

    DATA is a table (CSV, TSV, Parquet) with a column of labels, or folders of text files, one for
    each label; without any, snippets of source code, whose language is the label.
    """,
    "tag": """Train a tagger: a label for each token.

    DATA are files with a token and its label on a line and empty lines between sentences (CoNLL);
    without any, Python's own labels of the standard library's sources.
    """,
    "forecast": """Train a forecaster of one or several series.

    DATA is a table (CSV, TSV, Parquet) whose rows are in the order of time; without any, the
    sunspots of 309 years. Measured on the end of the series, beside persistence and the season
    before.
    """,
    "seq2seq": """Train a translator from text to text.

    DATA are files with a source and its target on a line, separated by a tab; without any, dates
    and numbers in words and in digits.
    """,
    "problem": """Train on a problem on which recurrent networks are compared.

    The adding problem, copy memory, parity or Dyck-1, of any length; every batch is drawn anew.
    """,
}
ENDING = """
    Ctrl-C ends the run with a valid checkpoint, from which --resume goes on to the same bits.
    """


def add_commands(app: typer.Typer) -> None:
    """One command for each task."""
    for name, kind in CONFIGS.items():
        app.command(name)(command_of(name, kind, _train, HELP[name] + ENDING))


def _train(name: str, kind: type[Config], context: typer.Context, values: dict[str, Any]) -> None:
    if values["resume"] is not None:
        _resume(name, context, values)
        return
    config = made(kind, context, values)
    if values["print_config"]:
        print(printed(config))
        return
    _fit(name, config, values["run"])


def _resume(name: str, context: typer.Context, values: dict[str, Any]) -> None:
    said = given(context)
    refused = [option.replace("_", "-") for option in said if option not in ("resume", "steps")]
    if refused:
        raise UserError(f"--resume: wanted only --steps beside it, got also {', '.join(refused)}")
    from unrolled.cells import CellError
    from unrolled.io import FileError
    from unrolled.tasks import DataError
    from unrolled.train import Diverged, resume
    from unrolled.train.folder import CONFIG, read_config

    run: Path = values["resume"]
    options = [field.name for field in fields(CONFIGS[name])]
    with told_as_option(*options), told(FileError, DataError, CellError, Diverged, OSError):
        steps = values["steps"] if "steps" in said else None
        if steps is not None:
            CONFIGS[name](steps=steps)
        task, _ = read_config(run / CONFIG)
        if task != name:
            raise UserError(f"--resume: {run} is of the task {task}: unrolled train {task}")
        result = resume(run, steps=steps)
    _report(result)


def _fit(name: str, config: Config, run: Path | None) -> None:
    from unrolled.cells import CellError
    from unrolled.tasks import DataError
    from unrolled.train import Diverged, fit
    from unrolled.train.folder import is_first

    with told(OSError):
        made_here = run is None or not run.exists()
        folder = _folder(name, config, run)
    if is_first():
        print(f"run         {folder}", flush=True)
    try:
        options = [field.name for field in fields(config)]
        with told_as_option(*options), told(DataError, CellError, Diverged, OSError):
            result = fit(config, folder)
    except BaseException:
        # A run that never began leaves no folder of its own; one that did is not empty.
        with contextlib.suppress(OSError):
            if is_first() and made_here and not any(folder.iterdir()):
                folder.rmdir()
        raise
    _report(result)


def _folder(name: str, config: Config, run: Path | None) -> Path:
    """The run's folder, made if it is to be."""
    if "LOCAL_RANK" in os.environ:
        # One of several processes: the first one, or who started it, has looked at the folder.
        if run is None and _HANDED in os.environ:
            return Path(os.environ[_HANDED])
        if run is None:
            raise UserError("--run: wanted a folder for all processes that torchrun starts")
        run.mkdir(parents=True, exist_ok=True)
        return run
    found = _new_folder(name, run)
    if config.devices > 1:
        os.environ[_HANDED] = str(found.absolute())
    return found


_HANDED = "UNROLLED_RUN"


def _new_folder(name: str, run: Path | None) -> Path:
    from unrolled.train.folder import CONFIG, is_unused

    if run is not None:
        if run.exists() and not (run.is_dir() and is_unused(run)):
            cure = f"; --resume {run} goes on with it" if (run / CONFIG).is_file() else ""
            raise UserError(f"--run: wanted a new or an empty folder, got {run}{cure}")
        run.mkdir(parents=True, exist_ok=True)
        return run
    number = 1
    while True:
        folder = Path("runs", name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _report(result: "Result") -> None:
    from unrolled.train.folder import is_first

    if not is_first():
        return
    rows: dict[str, Any] = {}
    validations = {
        # The one that evaluate and the others load.
        "validation, best": (result.best_validation, result.best_step),
        "validation, last": (result.validation, result.validation_step),
    }
    for name, (scores, step) in validations.items():
        if scores:
            rows[name] = f"{result.task.format_scores(scores)}  (step {step})"
    if result.validation:
        for name, scores in result.task.baselines().items():
            rows[name] = result.task.format_scores(scores)
    rows["checkpoint"] = result.last if result.best is None else f"{result.best}, {result.last}"
    rows["metrics"] = result.metrics
    rows["curve"] = result.curve
    width = max(11, *map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}} {value}")
    if result.interrupted:
        print(
            f"unrolled: interrupted after step {result.step}, the checkpoint is {result.last}; "
            f"go on with: unrolled train {result.task.name} --resume {result.run}",
            file=sys.stderr,
        )
        raise typer.Exit(128 + result.signal if result.signal != signal.SIGINT else 130)
