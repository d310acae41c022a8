"""Find and load the checkpoint of a run, for the commands that use a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from unrolled.cli._errors import UserError, as_user_errors

if TYPE_CHECKING:
    from torch import nn

    from unrolled.config import Config

RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Run folder, whose best checkpoint is loaded, or a checkpoint file.",
    ),
]
CellOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:CLASS",
        help="For a model with a cell of your own: load the cell's code from this file. Without "
        "this option, no code is run.",
        show_default=False,
    ),
]


class TrainedModel(NamedTuple):
    """The contents of a checkpoint: its task, the model in evaluation mode, and the codec."""

    task: str
    model: "nn.Module"
    codec: Any


def checkpoint_of(run: Path) -> Path:
    """The best checkpoint of a run folder, or else its last one; a file is returned as it is."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise UserError(f"RUN must be a run folder or a checkpoint file; {run} does not exist")
    for name in ("best.safetensors", "last.safetensors"):
        if (run / name).is_file():
            return run / name
    raise UserError(f"RUN must be a run folder, but {run} has no checkpoint")


def load_model(path: Path, cell: str | None = None) -> TrainedModel:
    """Load the model of a checkpoint; `cell` is the value of `CellOption`."""
    from unrolled.io import FileError
    from unrolled.models import load_tree
    from unrolled.runtime._schema import KIND
    from unrolled.tasks import find_task, load_trained, task_name

    with as_user_errors(FileError, ValueError):
        tree = load_tree(path)
        if isinstance(tree, dict) and tree.get("kind") == KIND:
            raise UserError(
                f"RUN must be a run folder or a checkpoint, but {path} is an exported model; load "
                "it with unrolled.runtime.load"
            )
        name = task_name(path, tree)
        model, codec = load_trained(path, find_task(name), tree, cell)
        return TrainedModel(name, model, codec)


def config_of(path: Path, task: str) -> "Config":
    """The configuration of a checkpoint of this task: from the config.json in its folder or, if
    there is none, from the checkpoint itself."""
    from unrolled.io import CORRUPT_FILE_ERRORS, FileError
    from unrolled.models import load_tree
    from unrolled.train._folder import CONFIG, config_of_values, read_config

    config_path = path.parent / CONFIG
    with as_user_errors(FileError, ValueError):
        if config_path.exists():
            config_task, config = read_config(config_path)
            if config_task != task:
                raise UserError(
                    f"{config_path} must be of the checkpoint's task, {task}, got {config_task}"
                )
            return config
        values = load_tree(path).get("config")
    if values is None:
        raise UserError(
            f"RUN must have its {CONFIG} beside {path}, because the checkpoint does not say how "
            "to read data"
        )
    try:
        return config_of_values(values)[1]
    except CORRUPT_FILE_ERRORS as error:
        raise UserError(f"{path}: the configuration of its run is invalid ({error})") from None
