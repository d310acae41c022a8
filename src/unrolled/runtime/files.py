"""Models read from files."""

import os

from unrolled import io
from unrolled.runtime.decode import decode_file
from unrolled.runtime.model import Model
from unrolled.runtime.schema import ChainModel
from unrolled.runtime.validate import check_format

__all__ = ["load"]


def load(path: str | os.PathLike[str], weights: str | None = None) -> Model:
    """Read a model that ``unrolled export`` wrote: of sequence to sequence a ``Translator``.

    Args:
        weights: how they are kept: "float32", "bfloat16" or "int8" (a scale for each row); by
            default as the file says. What the file has is what there is: one that was written in
            int8 gives no better numbers as "float32".

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, newer, or no exported model.
        ValueError: weights is none of these.
    """
    if weights is not None:
        check_format("load", weights)
    tree = io.load(path)
    if isinstance(tree, dict) and "kind" not in tree and "task" in tree and "state_dict" in tree:
        fault = "a checkpoint of a run, not an exported model: unrolled export makes one of it"
        raise io.FileError(path, fault)
    try:
        file = decode_file(tree, weights)
        size = os.path.getsize(path)
        if isinstance(file.model, ChainModel):
            return Model(file.model, file.weights, file.task, file.codec, size)
        from unrolled.runtime.translator import Translator

        return Translator(file.model, file.weights, file.task, file.codec, size)
    except io.CORRUPT_FILE_ERRORS as error:
        fault = f"holds no model that this version reads ({error})".replace("\n", " ")
        raise io.FileError(path, fault) from None
