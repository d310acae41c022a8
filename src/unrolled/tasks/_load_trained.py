"""Loads a trained model, and the codec that turns data into its tensors, from a checkpoint."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import CellError
from unrolled.io import CORRUPT_FILE_ERRORS, FileError
from unrolled.models import CellLike, load_tree
from unrolled.tasks._task import CodecT, ModelT, Task


def task_name(path: str | os.PathLike[str], tree: object) -> str:
    """The task of a checkpoint.

    Raises:
        unrolled.io.FileError: the file is not a checkpoint.
    """
    name = tree.get("task") if isinstance(tree, dict) else None
    if not isinstance(name, str):
        raise FileError(path, "a file of unrolled, but not a checkpoint of a training run")
    return name


def load_trained(
    path: str | os.PathLike[str],
    task: type[Task[Any, ModelT, CodecT, Any]],
    tree: dict[str, Any] | None = None,
    cell: CellLike | None = None,
) -> tuple[ModelT, CodecT]:
    """The model of a checkpoint, in evaluation mode, and its codec.

    Args:
        tree: the content of the file, if it was read before.
        cell: the cell, its class, or ``path/to/file.py:MyCell``, in place of the file's own. A
            checkpoint may name Python code as its cell; it is run only if it is passed here.

    Raises:
        unrolled.io.FileError: there is no such file, or it is damaged, or of another task, or its
            cell is Python code and ``cell`` is not passed.
    """
    content = load_tree(path) if tree is None else tree
    name = task_name(path, content)
    if name != task.name:
        raise FileError(path, f"must be a checkpoint of the task {task.name}, got one of {name}")
    try:
        codec = task.codec_from_state(content["codec"])
        arguments = _choose_cell(path, content["model"], cell)
        for name, size in task.codec_arguments(codec).items():
            if arguments[name] != size:
                raise ValueError(f"{name}: the model has {arguments[name]}, the codec {size}")
        weights = model_weights(content)
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


def model_weights(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a checkpoint by their names in the model."""
    return {name.removeprefix("model."): value for name, value in tree["state_dict"].items()}


def check_weights(
    arguments: Mapping[str, Any],
    weights: Mapping[str, object],
    build_model: Callable[[Mapping[str, Any]], nn.Module],
) -> None:
    """Check the weights of a model before memory is allocated for it.

    Raises:
        ValueError: one is missing or unknown, has another shape or dtype, or is not finite.
    """
    if arguments["num_layers"] > len(weights):
        raise ValueError(f"num_layers: {arguments['num_layers']}, with {len(weights)} weights")
    with torch.device("meta"):
        expected = build_model(arguments).state_dict()
    if expected.keys() != weights.keys():
        name = min(expected.keys() ^ weights.keys())
        raise ValueError(
            f"{name}: {'missing' if name in expected else 'not a weight of the model'}"
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: must be a tensor, got {type(value).__name__}")
        if value.shape != expected[name].shape:
            shape = list(expected[name].shape)
            raise ValueError(f"{name}: must have shape {shape}, got {list(value.shape)}")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"{name}: must be finite floating-point numbers")


def _choose_cell(
    path: str | os.PathLike[str], arguments: dict[str, Any], cell: CellLike | None
) -> dict[str, Any]:
    """The arguments of a model with the cell that it is built from."""
    name = arguments.get("cell", "")
    if not isinstance(name, str):
        raise FileError(path, f"its cell must be a name, got {type(name).__name__}")
    if cell is not None:
        return arguments | {"cell": cell}
    if ":" in name:
        raise FileError(
            path, f"its cell is Python code, which is not run without your consent: --cell {name}"
        )
    return arguments
