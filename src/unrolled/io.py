"""Trees of arrays in one safetensors file, with numpy and without pickle.

A tree is a nesting of dict, list and tuple over arrays and plain values (str, int, float, bool,
None). The arrays become the file's tensors, the rest becomes JSON in its metadata, so that any
reader of safetensors sees the arrays under readable names. `unrolled.models.tensor_files` does the
same for torch tensors and shares the encoding.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from unrolled.atomic import write
from unrolled.limits import brief, shorten

__all__ = ["CORRUPT_FILE_ERRORS", "FileError", "decode", "encode", "load", "parse", "save", "write"]

METADATA_KEY = "unrolled"
VERSION = 1
_DEEPEST = 64
"""Lists and objects within one another; trees have a dozen."""
_LONGEST_NUMBER = 400
"""Characters; 64-bit numbers have two dozen."""
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
"""What values of a wrong type or size bring about in code that trusts them."""


class FileError(ValueError):
    """A file cannot be read as what was asked for; the message names the file and the fault."""

    def __init__(self, path: str | os.PathLike[str], fault: str) -> None:
        self.path = Path(path)
        self.fault = shorten(fault)
        super().__init__(f"{os.fspath(path)}: {self.fault}")


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of numpy arrays and plain values to `path`, whole or not at all.

    Raises:
        TypeError: a value is neither an array of a storable dtype nor plain, dict, list or tuple.
    """
    arrays, metadata = encode(tree, np.ndarray)
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{name}: wanted a boolean or numeric array, got dtype {array.dtype}")
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write(path, safetensors.numpy.save(plain, metadata))


def load(path: str | os.PathLike[str]) -> Any:
    """Read the tree that `save` wrote.

    Raises:
        FileError: no such file, or it is truncated, corrupt, or not one of ours.
    """
    return parse(path, safetensors.numpy.load)


def parse(path: str | os.PathLike[str], arrays_of: Callable[[bytes], Mapping[str, Any]]) -> Any:
    """Read the tree at `path`; `arrays_of` turns the file's bytes into arrays by name.

    Raises:
        FileError: no such file, or it is truncated, corrupt, or not one of ours.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    try:
        arrays = arrays_of(data)
    except (safetensors.SafetensorError, *CORRUPT_FILE_ERRORS) as error:
        raise FileError(path, f"not a whole safetensors file ({error})") from None
    # safetensors has checked the header by now, but hands out its metadata only for open files.
    try:
        header = _json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"not a whole safetensors file ({error})") from None
    metadata = header.get("__metadata__") or {}
    if METADATA_KEY not in metadata:
        raise FileError(path, "a safetensors file, but not one written by unrolled")
    try:
        return decode(metadata[METADATA_KEY], arrays)
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"its structure is damaged ({error})") from None


def encode(tree: Any, array: type) -> tuple[dict[str, Any], dict[str, str]]:
    """Split a tree into its arrays by name and the metadata that holds all the rest.

    Args:
        tree: nested dict, list and tuple over plain values and instances of `array`.
        array: the type that counts as an array: `numpy.ndarray`, `torch.Tensor`.

    Raises:
        TypeError: a value or a key is of another type.
    """
    arrays: dict[str, Any] = {}
    structure = _encode(tree, array, arrays, "")
    text = json.dumps({"version": VERSION, "tree": structure}, allow_nan=False)
    return arrays, {METADATA_KEY: text}


def decode(text: str, arrays: Mapping[str, Any]) -> Any:
    """Rebuild the tree from the metadata's text and the arrays by name.

    Raises:
        one of `CORRUPT_FILE_ERRORS`: the text is damaged.
    """
    document = _json(text)
    version = document["version"]
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version {brief(version)}, this library reads {VERSION}")
    return _decode(document["tree"], arrays)


def _json(text: str) -> Any:
    """What a text of JSON says, by the rules of `csrc/model/json.cpp`.

    Raises:
        ValueError: it is not JSON (which has neither NaN nor Infinity), an object has a key twice,
            a key is not in UTF-8, it is nested too deep, or a number is longer than any meant.
        RecursionError: it is nested far too deep.
    """
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_no_constant,
        parse_int=_short_number(int),
        parse_float=_short_number(float),
    )
    _check_depth(value, _DEEPEST)
    return value


def _check_depth(value: Any, levels: int) -> None:
    if levels < 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, levels - 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{brief(twice)} is there twice")
    for name in values:
        name.encode()
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _short_number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        if len(text) > _LONGEST_NUMBER:
            raise ValueError("a number that is too long")
        return kind(text)

    return number


def _encode(value: Any, array: type, arrays: dict[str, Any], name: str) -> Any:
    # JSON's own null, booleans, integers, strings and lists stand for themselves. An object has
    # one key, the tag that says what it stands for.
    if isinstance(value, array):
        key = _unused(name or "array", arrays)
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
        items = [_encode(v, array, arrays, f"{name}.{i}") for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return _encode_dict(value, array, arrays, name)
    where = name.lstrip(".") or "the tree"
    raise TypeError(f"{where}: wanted an array or a plain value, got {type(value).__name__}")


def _encode_dict(value: dict[Any, Any], array: type, arrays: dict[str, Any], name: str) -> Any:
    for key in value:
        if not isinstance(key, str | int | float | bool | tuple | None):
            raise TypeError(f"{name}: wanted a plain key, got {type(key).__name__}")
    named = {key: f"{name}.{key}" if name else str(key) for key in value}
    encoded = [(k, _encode(v, array, arrays, named[k])) for k, v in value.items()]
    if all(isinstance(key, str) for key in value):
        return {"dict": dict(encoded)}
    return {"items": [[_encode(k, _NoArray, {}, name), v] for k, v in encoded]}


def _decode(value: Any, arrays: Mapping[str, Any]) -> Any:
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
        case "items", list() if all(isinstance(pair, list) for pair in content):
            pairs = [(_decode(k, arrays), _decode(v, arrays)) for k, v in content]
            if all(isinstance(key, str) for key, _ in pairs):
                raise ValueError("items: wanted a key that is no string")
            return dict(pairs)
    raise ValueError(f"unknown tag {brief(tag)}, or one without what it needs")


class _NoArray:
    """Nothing is an instance of it: keys hold no arrays."""


def _unused(name: str, arrays: dict[str, Any]) -> str:
    name = name.lstrip(".").encode("utf-8", "replace").decode()
    if name not in arrays and name != "__metadata__":
        return name
    number = 2
    while f"{name}#{number}" in arrays:
        number += 1
    return f"{name}#{number}"
