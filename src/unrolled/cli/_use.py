"""`unrolled evaluate` and `unrolled predict`: use a trained model."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli._errors import UserError, as_option_errors, as_user_errors
from unrolled.cli._runs import CellOption, RunArgument, checkpoint_of, config_of, load_model


def evaluate(
    run: RunArgument,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA",
            help="Files to evaluate on, in the format of the training data; by default the run's "
            "own validation data.",
            show_default=False,
        ),
    ] = None,
    cell: CellOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as one JSON object.")
    ] = False,
) -> None:
    """Evaluate a trained model, and simple baselines on the same data."""
    from unrolled.config import DataConfig
    from unrolled.tasks import DataError, find_task, measure

    path = checkpoint_of(run)
    name, model, codec = load_model(path, cell)
    config = config_of(path, name)
    if paths:
        if not isinstance(config, DataConfig):
            raise UserError(
                f"DATA must be omitted, because the task {name} generates its data; got {paths[0]}"
            )
        config = dataclasses.replace(config, paths=tuple(str(p.absolute()) for p in paths))
    with as_option_errors(), as_user_errors(DataError):
        task = find_task(name).read(config, codec, bool(paths))
        baselines = task.baselines()
        if paths and task.baselines_use_training:
            baselines = {f"{row} of these data": scores for row, scores in baselines.items()}
        rows = {"model": measure(task, model), **baselines}
    if as_json:
        print(json.dumps(rows))
        return
    width = max(map(len, rows))
    for row, scores in rows.items():
        print(f"{row:<{width}}  {task.format_scores(scores)}")


def predict(
    run: RunArgument,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Files to read; '-' is standard input, which is also the default.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="Text to predict from, instead of files. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    every_step: Annotated[
        bool,
        typer.Option(
            "--each",
            help="classify only: print a prediction after every step of the input, from the steps "
            "so far. Requires a run with --no-bidirectional.",
        ),
    ] = False,
    beam: Annotated[
        int | None,
        typer.Option(
            help="seq2seq only: beam width of decoding; 1 is greedy decoding. By default the "
            "run's --beam.  [at least 1]",
            show_default=False,
        ),
    ] = None,
    cell: CellOption = None,
) -> None:
    """Predict labels, tags, forecasts or target texts.

    Input has the format of the training data.

    classify: reads texts or a table; prints label, probability and input, separated by tabs.

    tag: reads one sentence per line, or columns as in the training data; prints each token with
    its label.

    forecast: reads a table; prints the following rows as CSV.

    seq2seq: reads one source per line; prints its target.
    """
    path = checkpoint_of(run)
    name, model, codec = load_model(path, cell)
    from unrolled.cli._predictions import PREDICTIONS
    from unrolled.tasks import DataError, find_task
    from unrolled.tasks.data._source import Source, StandardInput

    if name == "lm":
        raise UserError("RUN must not be a language model; generate text with: unrolled sample")
    if name == "problem":
        raise UserError("RUN must not be of the task problem; measure it with: unrolled evaluate")
    if every_step and name != "classify":
        raise UserError(f"--each requires a run of the task classify, got {name}")
    if beam is not None and name != "seq2seq":
        raise UserError(f"--beam requires a run of the task seq2seq, got {name}")
    if beam is not None and beam < 1:
        raise UserError(f"--beam must be at least 1, got {beam}")
    config = config_of(path, name)
    sources: list[Source] = [StandardInput() if str(p) == "-" else p for p in paths or ()]
    if not paths and not text:
        sources = [StandardInput()]
    if beam is None:
        beam = getattr(config, "beam", 1)
    with as_user_errors(DataError, ValueError):
        inputs = find_task(name).read_inputs(config, codec, sources, text or ())
        for line in PREDICTIONS[name](model, codec, inputs, every_step=every_step, beam=beam):
            print(line)
    sys.stdout.flush()
