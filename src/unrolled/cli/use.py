"""`unrolled evaluate` and `unrolled predict`: what a trained model is used for."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.cli.runs import Cell, Run, checkpoint_of, config_of, trained

__all__ = ["evaluate", "predict"]


def evaluate(
    run: Run,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA",
            help="Data to measure on, all of them; without any, the run's own validation.",
            show_default=False,
        ),
    ] = None,
    cell: Cell = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained model, beside what simple methods reach on the same data."""
    from unrolled.config import DataConfig
    from unrolled.tasks import DataError, find_task, measure

    path = checkpoint_of(run)
    name, model, codec = trained(path, cell)
    config = config_of(path, name)
    if paths:
        if not isinstance(config, DataConfig):
            raise UserError(f"DATA: wanted none, the task {name} draws its own; got {paths[0]}")
        config = dataclasses.replace(config, paths=tuple(str(p.absolute()) for p in paths))
    with told_as_option(), told(DataError):
        task = find_task(name).read(config, codec, bool(paths))
        beside = task.baselines()
        if paths and task.baselines_use_training:
            beside = {f"{row} of these data": scores for row, scores in beside.items()}
        rows = {"model": measure(task, model), **beside}
    if as_json:
        print(json.dumps(rows))
        return
    width = max(map(len, rows))
    for row, scores in rows.items():
        print(f"{row:<{width}}  {task.format_scores(scores)}")


def predict(
    run: Run,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Files to read; - or none is standard input.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text to read in place of files. Repeatable.", show_default=False),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Classify after every character, as it arrives.")
    ] = False,
    beam: Annotated[
        int | None,
        typer.Option(help="Beam width of seq2seq; without it, the run's.", show_default=False),
    ] = None,
    cell: Cell = None,
) -> None:
    """Use a trained model: labels of texts or table rows, tags, a forecast, translations.

    Data are read as the run read its own, from standard input as from a file. classify: texts or a
    table; prints label, probability, and what it is of. tag: a sentence on each line, or columns as
    in the run's files; prints each token and its label. forecast: a table; prints the next rows as
    CSV. seq2seq: a source on each line; prints its target.
    """
    path = checkpoint_of(run)
    name, model, codec = trained(path, cell)
    from unrolled.cli import predictions
    from unrolled.tasks import DataError, find_task
    from unrolled.tasks.data.source import Source, StandardInput

    if name == "lm":
        raise UserError("RUN: a language model does not predict but write: unrolled sample")
    if name == "problem":
        raise UserError("RUN: the answers of a problem are measured: unrolled evaluate")
    if each and name != "classify":
        raise UserError(f"--each: wanted a classifier, got the task {name}")
    if beam is not None and name != "seq2seq":
        raise UserError(f"--beam: wanted a run of seq2seq, got the task {name}")
    if beam is not None and beam < 1:
        raise UserError(f"--beam: wanted at least 1, got {beam}")
    config = config_of(path, name)
    sources: list[Source] = [StandardInput() if str(p) == "-" else p for p in paths or ()]
    if not paths and not text:
        sources = [StandardInput()]
    if beam is None:
        beam = getattr(config, "beam", 1)
    with told(DataError, ValueError):
        inputs = find_task(name).read_inputs(config, codec, sources, text or ())
        for line in getattr(predictions, name)(model, codec, inputs, each=each, beam=beam):
            print(line)
    sys.stdout.flush()
