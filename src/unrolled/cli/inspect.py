"""`unrolled inspect`: what a trained network does, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.cli.runs import Cell, Run, checkpoint_of, config_of, trained

__all__ = ["inspect"]


def inspect(
    run: Run,
    text: Annotated[
        str | None,
        typer.Option(help="What the network reads; without it, some of the run's validation."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the page and its pictures.  [default: inspect, in the run's folder]",
            show_default=False,
        ),
    ] = None,
    units: Annotated[int, typer.Option(help="Single units to show, those that vary most.")] = 6,
    cell: Cell = None,
) -> None:
    """Measure a trained network and write what was found as one HTML page, and PNGs beside it.

    Gradient norms by lag (beside RNN, LSTM and GRU as they start), saturation of the gates,
    eigenvalues and singular values of the recurrent matrices, single units over the text, the way
    of the state, the curve of the training, all parameters.
    """
    path = checkpoint_of(run)
    name, model, codec = trained(path, cell)
    from unrolled.diagnostics import Picture, Section, inspect_model, write_page
    from unrolled.tasks import DataError, find_task
    from unrolled.train.folder import CURVE

    if units < 1:
        raise UserError(f"--units: wanted at least 1, got {units}")
    config = config_of(path, name)
    with told_as_option(), told(DataError):
        task = find_task(name).read(config, codec)
    with told(DataError), told_as_option("text"):
        inputs, pieces = task.example(text)
    sections = inspect_model(model, inputs, pieces, units=units)
    curve = path.parent / CURVE
    if curve.is_file():
        caption = f"{task.progress_metric.replace('_', ' ')} over the steps of training."
        sections.insert(0, Section("Training", [Picture("curve", curve.read_bytes(), caption)]))
    folder = output or path.parent / "inspect"
    with told(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        title = f"{name}: {config.cell}, {config.num_layers} × {config.hidden_size} units"
        written = write_page(folder / "index.html", title, sections)
    print(f"page      {folder / 'index.html'}")
    print(f"pictures  {len(written) - 1} beside it")
