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
    from unrolled.runtime.description import KIND
    from unrolled.tasks import find_task, load_trained, name_of

    with told(FileError, ValueError):
        tree = load_tree(path)
        if isinstance(tree, dict) and tree.get("kind") == KIND:
            raise UserError(
                f"RUN: wanted a run's folder or a checkpoint, {path} is an exported model, which "
                "unrolled.runtime.load reads"
            )
        name = name_of(path, tree)
        task = find_task(name)
        return name, *load_trained(path, task, tree, cell)


def config_of(path: Path, name: str) -> Any:
    """The configuration beside a run's checkpoint, which is of the task ``name``."""
    from unrolled.train.folder import CONFIG, read_config

    if not (path.parent / CONFIG).exists():
        raise UserError(
            f"RUN: wanted {CONFIG} beside {path}, which says how the run reads data; there is none"
        )
    with told(ValueError):
        task, config = read_config(path.parent / CONFIG)
    if task != name:
        raise UserError(f"{path.parent / CONFIG}: of the task {task}, the checkpoint of {name}")
    return config
