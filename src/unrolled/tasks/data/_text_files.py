"""Text for language models: a file, a folder of files, or the standard library's own sources.

Text is bytes here; what a token is, the vocabulary defines.
"""

import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from unrolled.tasks.data._source import DataError

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_PROBE_SIZE = 8192
"""Bytes in which a zero byte marks a binary file."""


class TextError(DataError):
    """The text cannot be read or is not usable; the message says why."""


def read_text(
    paths: Sequence[str | os.PathLike[str]] = (),
    *,
    suffixes: Sequence[str] = (),
    limit: int | None = None,
) -> bytes:
    """Read files and folders into one text, the same on every run.

    The files of a folder come in the order of their relative paths; hidden files, hidden folders,
    binary files (with a zero byte near the beginning) and installed packages are skipped. Any
    encoding is accepted: the bytes are not decoded. A newline is added between two files if the
    first does not end with one.

    Args:
        paths: files and folders; without any, the Python sources of the standard library.
        suffixes: from folders, only files whose names end in one of these, such as ".txt".
        limit: the maximum number of bytes.

    Raises:
        TextError: a path is missing or unreadable, or there is no text.
    """
    files = _listed_files(paths, tuple(suffixes)) if paths else standard_library()
    text = _join(files, limit)
    if not text:
        names = ", ".join(str(path) for path in paths) or "the standard library"
        condition = f" in files ending in {' or '.join(suffixes)}" if suffixes else ""
        raise TextError(f"{names}: must have some text{condition}, got none")
    return text


def standard_library() -> Iterator[Path]:
    """The Python sources of the running interpreter's standard library, in a fixed order.

    Raises:
        TextError: this interpreter's library is not a folder of sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    if not folder.is_dir():
        raise TextError(f"{folder}: must be the standard library's folder of Python sources")
    return files_in(folder, (".py",))


def files_in(folder: Path, suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files in a folder and its subfolders, in a fixed order, optionally only those whose names
    end in one of the suffixes. Hidden ones and installed packages are skipped."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(filter(_is_searched, folders))
        for name in sorted(files):
            file = Path(path, name)
            if name[0] != "." and (not suffixes or name.endswith(suffixes)) and file.is_file():
                yield file


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without those that `files_in` skips."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_searched(path.name))


def _listed_files(
    paths: Sequence[str | os.PathLike[str]], suffixes: tuple[str, ...]
) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for file in files_in(path, suffixes) if not _is_binary(file))
        elif path.exists():
            yield path
        else:
            raise TextError(f"{path}: must be a file or a folder, there is none")


def _is_searched(folder: str) -> bool:
    return folder[0] != "." and folder not in _SKIPPED_FOLDERS


def _is_binary(file: Path) -> bool:
    return b"\0" in _read(file, _PROBE_SIZE)


def _join(files: Iterable[Path], limit: int | None) -> bytes:
    text = bytearray()
    for file in files:
        if text and text[-1:] != b"\n":
            text += b"\n"
        if limit is not None and len(text) >= limit:
            break
        text += _read(file, -1 if limit is None else limit - len(text))
    return bytes(text[:limit])


def _read(file: Path, size: int) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise TextError(f"{file}: cannot be read ({error.strerror or error})") from None
