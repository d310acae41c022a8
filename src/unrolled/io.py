"""Trees of arrays in one safetensors file, with numpy and without pickle.

A tree is a nesting of dict, list and tuple over arrays and plain values (str, int, float, bool,
None). The arrays become the file's tensors, the rest becomes JSON in its metadata, so that any
reader of safetensors sees the arrays under readable names. `unrolled.models._tensor_files` does the
same for torch tensors and shares the encoding.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from unrolled._atomic import write
from unrolled._limits import brief, shorten

__all__ = ["CORRUPT_FILE_ERRORS", "FileError", "decode", "encode", "load", "parse", "save", "write"]

Array = TypeVar("Array")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

METADATA_KEY = "unrolled"
VERSION = 1
_MAX_DEPTH = 64
"""The maximum depth of nested lists and objects; trees have about a dozen."""
_MAX_NUMBER_LENGTH = 400
"""The maximum number of characters of a number; 64-bit numbers have up to two dozen."""
_DTYPES = frozenset(
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
    ]
)


CORRUPT_FILE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The errors that values of a wrong type or size cause in code that trusts them."""


class FileError(ValueError):
    """A file cannot be read; the message names the file and the reason."""

    def __init__(self, path: str | os.PathLike[str], fault: str) -> None:
        self.path = Path(path)
        self.fault = shorten(fault)
        super().__init__(f"{os.fspath(path)}: {self.fault}")


def save(path: str | os.PathLike[str], tree: object) -> None:
    """Write a tree of numpy arrays and plain values to `path`, completely or not at all.

    Raises:
        TypeError: a value is neither an array of a storable dtype nor plain, dict, list or tuple.
    """
    arrays, metadata = encode(tree, np.ndarray)
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(
                f"save: {name} must be a boolean or numeric array, got dtype {array.dtype}"
            )
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write(path, safetensors.numpy.save(plain, metadata))


def load(path: str | os.PathLike[str]) -> Any:
    """Read the tree that `save` wrote.

    Raises:
        FileError: the file does not exist, or it is truncated, corrupt or of another format.
    """
    return parse(path, safetensors.numpy.load)


def parse(
    path: str | os.PathLike[str], read_arrays: Callable[[bytes], Mapping[str, object]]
) -> Any:
    """Read the tree at `path`; `read_arrays` turns the file's bytes into arrays by name.

    Raises:
        FileError: the file does not exist, or it is truncated, corrupt or of another format.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    try:
        arrays = read_arrays(data)
    except (safetensors.SafetensorError, *CORRUPT_FILE_ERRORS) as error:
        raise FileError(path, f"not a whole safetensors file ({error})") from None
    # safetensors has checked the header by now, but hands out its metadata only for open files.
    try:
        header = _load_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"not a whole safetensors file ({error})") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise FileError(path, "a safetensors file, but not one written by unrolled")
    try:
        return decode(text, arrays)
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"its structure is damaged ({error})") from None


def encode(tree: object, array: type[Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Split a tree into its arrays by name and the metadata that holds its structure.

    Args:
        tree: nested dict, list and tuple over plain values and instances of `array`.
        array: the type that counts as an array: `numpy.ndarray`, `torch.Tensor`.

    Raises:
        TypeError: a value or a key is of another type.
    """
    arrays: dict[str, Array] = {}
    structure = _encode(tree, array, arrays, "")
    text = json.dumps({"version": VERSION, "tree": structure}, allow_nan=False)
    return arrays, {METADATA_KEY: text}


def decode(text: str, arrays: Mapping[str, object]) -> Any:
    """Rebuild the tree from the metadata's text and the arrays by name.

    Raises:
        one of `CORRUPT_FILE_ERRORS`: the text is corrupt.
    """
    document = _load_json(text)
    if not isinstance(document, dict):
        raise ValueError("the metadata must be an object")
    version = document["version"]
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version must be {VERSION}, got {brief(version)}")
    return _decode(document["tree"], arrays)


def _load_json(text: str) -> Json:
    """The value of a JSON text, by the rules of `csrc/model/json.cpp`.

    Raises:
        ValueError: it is not JSON (which has neither NaN nor Infinity), an object has a key twice,
            a key is not in UTF-8, it is nested too deeply, or a number has too many digits.
        RecursionError: it is nested beyond the interpreter's limit.
    """
    value: Json = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_no_constant,
        parse_int=_limited_number(int),
        parse_float=_limited_number(float),
    )
    _check_depth(value, _MAX_DEPTH)
    return value


def _check_depth(value: Json, levels: int) -> None:
    if levels < 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, levels - 1)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"keys must differ, got {brief(repeated)} twice")
    for name in values:
        name.encode()
    return values


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _limited_number(convert: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        if len(text) > _MAX_NUMBER_LENGTH:
            raise ValueError("a number that is too long")
        return convert(text)

    return number


def _encode(value: object, array: type[Array], arrays: dict[str, Array], name: str) -> Json:
    # JSON's null, booleans, integers, strings and lists represent themselves. An object has one
    # key, the tag that gives the type of its content.
    if isinstance(value, array):
        key = _unused_name(name or "array", arrays)
        arrays[key] = value
        return {"array": key}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        items: Json = [_encode(v, array, arrays, f"{name}.{i}") for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return _encode_dict(value, array, arrays, name)
    subject = name.lstrip(".") or "tree"
    raise TypeError(
        f"encode: {subject} must be an array or a plain value, got {type(value).__name__}"
    )


def _encode_dict(
    value: dict[object, object], array: type[Array], arrays: dict[str, Array], name: str
) -> Json:
    for key in value:
        if not isinstance(key, str | int | float | bool | tuple | None):
            raise TypeError(
                f"encode: keys of {name or 'tree'} must be plain values, got {type(key).__name__}"
            )
    names = {key: f"{name}.{key}" if name else str(key) for key in value}
    encoded = [(k, _encode(v, array, arrays, names[k])) for k, v in value.items()]
    if all(isinstance(key, str) for key in value):
        return {"dict": {str(k): v for k, v in encoded}}
    return {"items": [[_encode(k, _NoArray, {}, name), v] for k, v in encoded]}


def _decode(value: Json, arrays: Mapping[str, object]) -> object:
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    match tag, content:
        case "array", str():
            return arrays[content]
        case "float", "nan" | "inf" | "-inf":
            return float(content)
        case "tuple", list():
            return tuple(_decode(v, arrays) for v in content)
        case "dict", dict():
            return {k: _decode(v, arrays) for k, v in content.items()}
        case "items", list():
            pairs = [_decode_pair(pair, arrays) for pair in content]
            if all(isinstance(key, str) for key, _ in pairs):
                raise ValueError("items must have a key that is not a string")
            return dict(pairs)
    raise ValueError(f"tag must be one of ours with its content, got {brief(tag)}")


def _decode_pair(pair: Json, arrays: Mapping[str, object]) -> tuple[object, object]:
    if not isinstance(pair, list):
        raise ValueError(f"items must be pairs, got {brief(pair)}")
    key, value = pair
    return _decode(key, arrays), _decode(value, arrays)


class _NoArray:
    """A type without instances: keys hold no arrays."""


def _unused_name(name: str, arrays: Mapping[str, object]) -> str:
    name = name.lstrip(".").encode("utf-8", "replace").decode()
    if name not in arrays and name != "__metadata__":
        return name
    number = 2
    while f"{name}#{number}" in arrays:
        number += 1
    return f"{name}#{number}"
