"""A trained model read back from its checkpoint, with what turns data into tensors for it."""

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from unrolled.cells import CellError
from unrolled.io import FileError
from unrolled.models import load_tree

__all__ = ["load_trained", "name_of"]


def name_of(path: str | os.PathLike[str], tree: Any) -> str:
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
    wanted: str,
    codec_of: Callable[[dict[str, Any]], Any],
    make: Callable[[dict[str, Any]], nn.Module],
    tree: Any = None,
) -> tuple[Any, Any]:
    """The model, in evaluation mode, and the codec of a checkpoint; ``tree`` is what the file holds
    where that is read already.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, or of another task.
    """
    tree = load_tree(path) if tree is None else tree
    name = name_of(path, tree)
    if name != wanted:
        raise FileError(path, f"wanted a checkpoint of the task {wanted}, got one of {name}")
    try:
        codec = codec_of(tree["codec"])
        model = make(tree["model"])
        weights = {k.removeprefix("model."): v for k, v in tree["state_dict"].items()}
        model.load_state_dict(weights)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, CellError) as error:
        raise FileError(path, f"holds no model of {wanted} ({error})".replace("\n", " ")) from None
    return model.eval(), codec
