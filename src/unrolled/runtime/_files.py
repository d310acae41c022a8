"""Models read from files."""

import os

from unrolled import io
from unrolled.runtime._decode import decode_file
from unrolled.runtime._model import Model
from unrolled.runtime._schema import ChainModel
from unrolled.runtime._validate import check_format


def load(path: str | os.PathLike[str], weights: str | None = None) -> Model:
    """Read a model that ``unrolled export`` wrote; one of sequence to sequence is a ``Translator``.

    Args:
        weights: the format in which the core keeps them: "float32", "bfloat16" or "int8" (with a
            scale for each row); by default the file's. A file of int8 does not become more precise
            when it is loaded as "float32".

    Raises:
        unrolled.io.FileError: there is no such file, or it is damaged, newer, or not an exported
            model.
        ValueError: there is no such format.
    """
    if weights is not None:
        check_format("load", weights)
    tree = io.load(path)
    if isinstance(tree, dict) and "kind" not in tree and "task" in tree and "state_dict" in tree:
        fault = "is a checkpoint of a run, not an exported model; export it with unrolled export"
        raise io.FileError(path, fault)
    try:
        file = decode_file(tree, weights)
        size = os.path.getsize(path)
        if isinstance(file.model, ChainModel):
            return Model(file.model, file.weights, file.task, file.codec, size)
        from unrolled.runtime._translator import Translator

        return Translator(file.model, file.weights, file.task, file.codec, size)
    except io.CORRUPT_FILE_ERRORS as error:
        fault = f"holds no model that this version reads ({error})".replace("\n", " ")
        raise io.FileError(path, fault) from None
