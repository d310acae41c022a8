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
    cell: str | None = None,
) -> tuple[Any, Any]:
    """The model, in evaluation mode, and the codec of a checkpoint.

    Args:
        tree: what the file holds, where that is read already.
        cell: ``path/to/file.py:MyCell``, in place of that in the file: whose cell is code is not
            run because a file says so.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, or of another task, or its cell is
            code and ``cell`` is not given.
    """
    tree = load_tree(path) if tree is None else tree
    name = name_of(path, tree)
    if name != wanted:
        raise FileError(path, f"wanted a checkpoint of the task {wanted}, got one of {name}")
    try:
        codec = codec_of(tree["codec"])
        model = make(_with_cell(path, tree["model"], cell))
        weights = {k.removeprefix("model."): v for k, v in tree["state_dict"].items()}
        model.load_state_dict(weights)
    except FileError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, CellError) as error:
        raise FileError(path, f"holds no model of {wanted} ({error})".replace("\n", " ")) from None
    return model.eval(), codec


def _with_cell(path: str | os.PathLike[str], arguments: dict[str, Any], cell: str | None) -> Any:
    own = arguments.get("cell", "")
    if cell is not None:
        return arguments | {"cell": cell}
    if ":" in own:
        raise FileError(
            path, f"its cell is code that this file may not run by itself; allow it: --cell {own}"
        )
    return arguments
