"""`unrolled train lm`: a character language model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.train.config import LanguageModelConfig

if TYPE_CHECKING:
    from unrolled.train import Result

__all__ = ["lm"]

_D = LanguageModelConfig()


def lm(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Text files and folders of them; without any, the Python sources of the "
            "standard library.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run, which must not exist yet.  [default: runs/lm…]"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder; only --steps may go with it."),
    ] = None,
    suffix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="From folders, only files ending so (.txt); repeatable."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many bytes of text.")] = None,
    vocabulary: Annotated[
        str, typer.Option(help="What a character is: bytes, or characters (UTF-8, those seen).")
    ] = _D.vocabulary,
    validation_fraction: Annotated[
        float, typer.Option(help="Part of the text, its end, kept for validation.")
    ] = _D.validation_fraction,
    validation_limit: Annotated[
        int, typer.Option(help="Keep at most so many characters for validation.")
    ] = _D.validation_limit,
    cell: Annotated[str, typer.Option(help="Recurrent cell: GRU, LSTM or RNN.")] = _D.cell,
    input: Annotated[
        str, typer.Option(help="How characters enter: embedding or one-hot.")
    ] = _D.input,
    hidden_size: Annotated[int, typer.Option(help="Units of a layer.")] = _D.hidden_size,
    embedding_size: Annotated[
        int, typer.Option(help="Width of the embedding; not used with one-hot input.")
    ] = _D.embedding_size,
    num_layers: Annotated[int, typer.Option(help="Recurrent layers.")] = _D.num_layers,
    dropout: Annotated[
        float, typer.Option(help="Dropout after the encoder, between and after the layers.")
    ] = _D.dropout,
    batch_size: Annotated[
        int, typer.Option(help="Streams of text read side by side.")
    ] = _D.batch_size,
    window: Annotated[
        int, typer.Option(help="Steps of truncated backpropagation; the state carries over.")
    ] = _D.window,
    steps: Annotated[int, typer.Option(help="Optimizer steps in all.")] = _D.steps,
    learning_rate: Annotated[
        float, typer.Option(help="Largest learning rate of AdamW.")
    ] = _D.learning_rate,
    schedule: Annotated[
        str, typer.Option(help="Learning rate after the warm-up: cosine (falling) or constant.")
    ] = _D.schedule,
    weight_decay: Annotated[
        float, typer.Option(help="Decay of the weight matrices.")
    ] = _D.weight_decay,
    clip: Annotated[
        float, typer.Option(help="Largest norm of the gradient; 0 switches clipping off.")
    ] = _D.clip,
    validate_every: Annotated[
        int, typer.Option(help="Steps between validations, which also write checkpoints.")
    ] = _D.validate_every,
    log_every: Annotated[int, typer.Option(help="Steps between rows of metrics.")] = _D.log_every,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = _D.seed,
    accelerator: Annotated[
        str, typer.Option(help="Where to compute: auto, cpu or gpu.")
    ] = _D.accelerator,
) -> None:
    """Train a character language model on text.

    Embedding or one-hot input, recurrent layers, a linear layer; truncated backpropagation with
    the state carried from window to window. Ctrl-C ends the run with a valid checkpoint, with which
    `unrolled sample RUN` and `unrolled train lm --resume RUN` work.
    """
    if resume is not None:
        _resume(context, resume, steps)
        return
    given = {name: value for name, value in context.params.items() if hasattr(_D, name)}
    given["paths"] = tuple(str(path.absolute()) for path in paths or ())
    given["suffixes"] = tuple(suffix or ())
    with told_as_option():
        config = LanguageModelConfig(**given)
    _fit(config, run)


def _resume(context: typer.Context, run: Path, steps: int) -> None:
    given = [name for name in context.params if _given(context, name)]
    refused = [name.replace("_", "-") for name in given if name not in ("resume", "steps")]
    if refused:
        raise UserError(f"--resume: wanted only --steps beside it, got also {', '.join(refused)}")
    with told_as_option():
        LanguageModelConfig(steps=steps)
    from unrolled.io import FileError
    from unrolled.tasks import TextError
    from unrolled.train import resume

    with told_as_option(), told(FileError, TextError, OSError):
        result = resume(run, steps=steps if "steps" in given else None)
    _report(result)


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _fit(config: LanguageModelConfig, run: Path | None) -> None:
    from unrolled.tasks import TextError
    from unrolled.train import fit

    with told(OSError):
        made = run is None or not run.exists()
        folder = _new_folder(run)
    print(f"run         {folder}", flush=True)
    try:
        with told_as_option(), told(TextError, OSError):
            result = fit(config, folder)
    except BaseException:
        # A run that never began leaves no folder of its own; one that did is not empty.
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
    _report(result)


def _new_folder(run: Path | None) -> Path:
    if run is not None:
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise UserError(
                f"--run: wanted a new or an empty folder, got {run}; --resume {run} goes on with it"
            )
        run.mkdir(parents=True, exist_ok=True)
        return run
    number = 1
    while True:
        folder = Path("runs", "lm" if number == 1 else f"lm-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _report(result: "Result") -> None:
    rows: dict[str, Any] = {}
    if result.validation is not None:
        rows["validation"] = result.validation
    rows["checkpoint"] = result.last if result.best is None else f"{result.best}, {result.last}"
    rows["metrics"] = result.metrics
    rows["curve"] = result.curve
    for name, value in rows.items():
        print(f"{name:<11} {value}")
    if result.interrupted:
        print(
            f"unrolled: interrupted after step {result.step}, the checkpoint is {result.last}; "
            f"go on with: unrolled train lm --resume {result.run}",
            file=sys.stderr,
        )
        raise typer.Exit(130)
