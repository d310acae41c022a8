"""`unrolled inspect`: show what a trained network does, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli._errors import UserError, as_option_errors, as_user_errors
from unrolled.cli._runs import CellOption, RunArgument, checkpoint_of, config_of, load_model


def inspect(
    run: RunArgument,
    text: Annotated[
        str | None,
        typer.Option(
            help="Input for the network; by default an example from the run's validation data.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page and its pictures.  [default: RUN/inspect]",
            show_default=False,
        ),
    ] = None,
    units: Annotated[
        int,
        typer.Option(
            help="Number of single hidden units to show: those whose activation varies most.  "
            "[at least 1]"
        ),
    ] = 6,
    cell: CellOption = None,
) -> None:
    """Analyze a trained network on an HTML page.

    Its pictures are written as PNG files to the same folder. The page shows gradient norms by lag
    (compared with untrained RNN, LSTM and GRU layers), gate saturation, eigenvalues and singular
    values of the recurrent matrices, activations of single units over the input, the trajectory of
    the hidden state, the training curve, and all parameters.
    """
    path = checkpoint_of(run)
    trained = load_model(path, cell)
    from unrolled.diagnostics import Picture, Section, inspect_model, write_page
    from unrolled.tasks import DataError, find_task
    from unrolled.train._folder import CURVE

    if units < 1:
        raise UserError(f"--units must be at least 1, got {units}")
    config = config_of(path, trained.task)
    with as_option_errors(), as_user_errors(DataError):
        task = find_task(trained.task).read(config, trained.codec)
    with as_user_errors(DataError), as_option_errors("text"):
        inputs, tokens = task.example(text)
    sections = inspect_model(trained.model, inputs, tokens, units=units)
    curve = path.parent / CURVE
    if curve.is_file():
        caption = f"{task.progress_metric.replace('_', ' ')} over the steps of training."
        sections.insert(0, Section("Training", [Picture("curve", curve.read_bytes(), caption)]))
    folder = output or path.parent / "inspect"
    with as_user_errors(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        title = f"{trained.task}: {config.cell}, {config.num_layers} × {config.hidden_size} units"
        files = write_page(folder / "index.html", title, sections)
    print(f"page      {folder / 'index.html'}")
    print(f"pictures  {len(files) - 1} in the same folder")
