"""A run's checkpoint, found and read, for the commands that use one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.errors import UserError, told

__all__ = ["Cell", "Run", "checkpoint_of", "config_of", "trained"]

Run = Annotated[
    Path, typer.Argument(help="Folder of a run (its best checkpoint), or a checkpoint file.")
]
Cell = Annotated[
    str | None,
    typer.Option(
        help="Run the code of the model's own cell, path/to/file.py:MyCell.", show_default=False
    ),
]


def checkpoint_of(run: Path) -> Path:
    """The best checkpoint of a run's folder, else its last; or the file itself."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise UserError(f"RUN: wanted a run's folder or a checkpoint file, there is no {run}")
    for name in ("best.safetensors", "last.safetensors"):
        if (run / name).is_file():
            return run / name
    raise UserError(f"RUN: wanted a run's folder, but {run} holds no checkpoint")


def trained(path: Path, cell: str | None = None) -> tuple[str, Any, Any]:
    """The task's name, the model in evaluation mode, and the codec of a checkpoint."""
    from unrolled.io import FileError
    from unrolled.models import load_tree
    from unrolled.runtime.schema import KIND
    from unrolled.tasks import find_task, load_trained, task_name

    with told(FileError, ValueError):
        tree = load_tree(path)
        if isinstance(tree, dict) and tree.get("kind") == KIND:
            raise UserError(
                f"RUN: wanted a run's folder or a checkpoint, {path} is an exported model, which "
                "unrolled.runtime.load reads"
            )
        name = task_name(path, tree)
        task = find_task(name)
        return name, *load_trained(path, task, tree, cell)


def config_of(path: Path, name: str) -> Any:
    """The configuration of a checkpoint of the task ``name``: that beside it or, where the file
    stands alone, the one that it holds."""
    from unrolled.io import CORRUPT_FILE_ERRORS, FileError
    from unrolled.models import load_tree
    from unrolled.train.folder import CONFIG, config_of_values, read_config

    with told(FileError, ValueError):
        if (path.parent / CONFIG).exists():
            task, config = read_config(path.parent / CONFIG)
            if task != name:
                place = path.parent / CONFIG
                raise UserError(f"{place}: of the task {task}, the checkpoint of {name}")
            return config
        values = load_tree(path).get("config")
    if values is None:
        raise UserError(
            f"RUN: wanted {CONFIG} beside {path}, which says how the run reads data; there is none"
        )
    try:
        return config_of_values(values)[1]
    except CORRUPT_FILE_ERRORS as error:
        raise UserError(f"{path}: holds no configuration of a run ({error})") from None
