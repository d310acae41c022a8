"""`unrolled train TASK`: one command for each task, with the options of its configuration."""

import contextlib
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unrolled.cli._errors import UserError, as_option_errors, as_user_errors
from unrolled.cli._options import (
    build_command,
    build_config,
    config_yaml,
    options_on_command_line,
)
from unrolled.config import CONFIGS, Config

if TYPE_CHECKING:
    from unrolled.train import Result

HELP = {
    "lm": """Train a language model on text.

    DATA are text files, or folders of them; by default the Python sources of the standard library.
    The model is an embedding (or one-hot encoding), recurrent layers and a linear layer, trained by
    truncated backpropagation through time; the hidden state carries over from window to window.
    """,
    "classify": """Train a classifier of texts or numeric sequences.

    DATA is a table (CSV, TSV or Parquet) with a column of labels, or folders of text files, one
    folder for each label; by default a built-in data set (--data).
    """,
    "tag": """Train a tagger, which predicts a label for each token.

    DATA are files with one token and its label on each line, separated by tabs or spaces, and an
    empty line after each sentence (CoNLL); by default Python's own token types on the sources of
    the standard library.
    """,
    "forecast": """Train a forecaster of one or several time series.

    DATA is a table (CSV, TSV or Parquet) with its rows in the order of time; by default a built-in
    series (--data). The model is evaluated on the end of each series, and compared with a
    persistence and a seasonal naive baseline.
    """,
    "seq2seq": """Train an encoder-decoder that translates text to text.

    DATA are files with a source and its target on each line, separated by a tab; by default dates
    and numbers in words, to be written in digits.
    """,
    "problem": """Train on a synthetic problem: adding, copy, parity or Dyck-1.

    These problems are used in the literature to compare recurrent networks. Sequences can have any
    length; every batch is newly generated.
    """,
}
ENDING = """
    Ctrl-C stops the run and writes a checkpoint. --resume continues from it, and gives exactly the
    same results as a run that was not interrupted.
    """
_RUN_VARIABLE = "UNROLLED_RUN"
"""The environment variable in which the first process passes its run folder to the others."""


def add_commands(app: typer.Typer) -> None:
    """Add one command for each task."""
    for name, config_class in CONFIGS.items():
        app.command(name)(build_command(name, config_class, _train, HELP[name] + ENDING))


def _train(
    name: str, config_class: type[Config], context: typer.Context, values: dict[str, Any]
) -> None:
    if values["resume"] is not None:
        _resume(name, context, values)
        return
    config = build_config(config_class, context, values)
    if values["print_config"]:
        print(config_yaml(config))
        return
    _fit(name, config, values["run"])


def _resume(name: str, context: typer.Context, values: dict[str, Any]) -> None:
    explicit = options_on_command_line(context)
    refused = [name.replace("_", "-") for name in explicit if name not in ("resume", "steps")]
    if refused:
        raise UserError(f"--resume can be combined with --steps only, got {', '.join(refused)}")
    from unrolled.cells import CellError
    from unrolled.io import FileError
    from unrolled.models import CellNameError
    from unrolled.tasks import DataError
    from unrolled.train import Diverged, resume
    from unrolled.train._folder import CONFIG, read_config

    run: Path = values["resume"]
    options = [field.name for field in fields(CONFIGS[name])]
    with (
        as_user_errors(CellNameError),
        as_option_errors(*options),
        as_user_errors(FileError, DataError, CellError, Diverged, OSError),
    ):
        steps = values["steps"] if "steps" in explicit else None
        if steps is not None:
            CONFIGS[name](steps=steps)
        task, _ = read_config(run / CONFIG)
        if task != name:
            raise UserError(
                f"--resume: {run} is a run of the task {task}; use unrolled train {task}"
            )
        result = resume(run, steps=steps)
    _report(result)


def _fit(name: str, config: Config, run: Path | None) -> None:
    from unrolled.cells import CellError
    from unrolled.models import CellNameError
    from unrolled.tasks import DataError
    from unrolled.train import Diverged, fit
    from unrolled.train._folder import is_first

    with as_user_errors(OSError):
        creates_folder = run is None or not run.exists()
        folder = _folder(name, config, run)
    if is_first():
        print(f"run         {folder}", flush=True)
    try:
        options = [field.name for field in fields(config)]
        with (
            as_user_errors(CellNameError),
            as_option_errors(*options),
            as_user_errors(DataError, CellError, Diverged, OSError),
        ):
            result = fit(config, folder)
    except BaseException:
        # Remove the folder of a run that failed before it wrote any files.
        with contextlib.suppress(OSError):
            if is_first() and creates_folder and not any(folder.iterdir()):
                folder.rmdir()
        raise
    _report(result)


def _folder(name: str, config: Config, run: Path | None) -> Path:
    """The run folder, created if needed."""
    if "LOCAL_RANK" in os.environ:
        # One of several processes: the first process or the launcher has checked the folder.
        if run is None and _RUN_VARIABLE in os.environ:
            return Path(os.environ[_RUN_VARIABLE])
        if run is None:
            raise UserError("--run is required with torchrun: all processes need the same folder")
        run.mkdir(parents=True, exist_ok=True)
        return run
    folder = _new_folder(name, run)
    if config.devices > 1:
        os.environ[_RUN_VARIABLE] = str(folder.absolute())
    return folder


def _new_folder(name: str, run: Path | None) -> Path:
    from unrolled.train._folder import CONFIG, is_unused

    if run is not None:
        if run.exists() and not (run.is_dir() and is_unused(run)):
            hint = f"; continue it with --resume {run}" if (run / CONFIG).is_file() else ""
            raise UserError(f"--run must be a new or an empty folder, got {run}{hint}")
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
    from unrolled.train._folder import is_first

    if not is_first():
        return
    rows: dict[str, object] = {}
    validations = {
        # The checkpoint that evaluate, predict and sample load.
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
            f"continue with: unrolled train {result.task.name} --resume {result.run}",
            file=sys.stderr,
        )
        raise typer.Exit(128 + result.signal if result.signal != signal.SIGINT else 130)
