"""A trained model read back from its checkpoint, with what turns data into tensors for it."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import CellError
from unrolled.io import CORRUPT_FILE_ERRORS, FileError
from unrolled.models import CellLike, load_tree
from unrolled.tasks.task import Task

__all__ = ["check_weights", "load_trained", "model_weights", "task_name"]


def task_name(path: str | os.PathLike[str], tree: Any) -> str:
    """The task that a checkpoint is of.

    Raises:
        unrolled.io.FileError: it is of none.
    """
    name = tree.get("task") if isinstance(tree, dict) else None
    if not isinstance(name, str):
        raise FileError(path, "a file of unrolled, but not a checkpoint of a training run")
    return name


def load_trained(
    path: str | os.PathLike[str],
    task: type[Task],
    tree: Any = None,
    cell: CellLike | None = None,
) -> tuple[Any, Any]:
    """The model, in evaluation mode, and the codec of a checkpoint.

    Args:
        tree: what the file holds, where that is read already.
        cell: the cell or its class, or ``path/to/file.py:MyCell``, in place of that in the file:
            whose cell is code is not run because a file says so.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, or of another task, or its cell is
            code and ``cell`` is not given.
    """
    tree = load_tree(path) if tree is None else tree
    name = task_name(path, tree)
    if name != task.name:
        raise FileError(path, f"wanted a checkpoint of the task {task.name}, got one of {name}")
    try:
        codec = task.codec_from_state(tree["codec"])
        arguments = _with_cell(path, tree["model"], cell)
        for name, size in task.codec_arguments(codec).items():
            if arguments[name] != size:
                raise ValueError(f"{name}: the model has {arguments[name]}, the codec {size}")
        weights = model_weights(tree)
        check_weights(arguments, weights, task.build_model)
        model = task.build_model(arguments)
        model.load_state_dict(weights)
    except FileError:
        raise
    except (CellError, *CORRUPT_FILE_ERRORS) as error:
        raise FileError(
            path, f"holds no model of {task.name} ({error})".replace("\n", " ")
        ) from None
    return model.eval(), codec


def model_weights(tree: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's tensors by the names that they have in the model."""
    return {name.removeprefix("model."): value for name, value in tree["state_dict"].items()}


def check_weights(
    arguments: dict[str, Any], weights: dict[str, Any], make: Callable[[dict[str, Any]], nn.Module]
) -> None:
    """Hold weights to the model of these arguments, before memory is taken for it.

    Raises:
        ValueError: one is missing, too many, of another shape or dtype, or holds no finite numbers.
    """
    if arguments["num_layers"] > len(weights):
        raise ValueError(f"num_layers: {arguments['num_layers']}, with {len(weights)} weights")
    with torch.device("meta"):
        wanted = make(arguments).state_dict()
    if wanted.keys() != weights.keys():
        name = min(wanted.keys() ^ weights.keys())
        raise ValueError(f"{name}: {'missing' if name in wanted else 'of no use'}")
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: no tensor but {type(value).__name__}")
        if value.shape != wanted[name].shape:
            got = f"{list(value.shape)}, the model {list(wanted[name].shape)}"
            raise ValueError(f"{name}: the file has {got}")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"{name}: not all finite numbers")


def _with_cell(
    path: str | os.PathLike[str], arguments: dict[str, Any], cell: CellLike | None
) -> Any:
    own = arguments.get("cell", "")
    if not isinstance(own, str):
        raise FileError(path, f"its cell is no name but {type(own).__name__}")
    if cell is not None:
        return arguments | {"cell": cell}
    if ":" in own:
        raise FileError(
            path, f"its cell is code that this file may not run by itself; allow it: --cell {own}"
        )
    return arguments
