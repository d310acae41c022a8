"""Text for language models: a file, a folder of files, or the standard library's own sources.

Text is bytes here. What a token is, the vocabulary decides.
"""

import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from unrolled.tasks.data.source import DataError

__all__ = ["TextError", "files_in", "folders_in", "read_text", "standard_library"]

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_PROBE = 8192


class TextError(DataError):
    """The text cannot be read or is not usable; the message says what was wanted and what came."""


def read_text(
    paths: Sequence[str | os.PathLike[str]] = (),
    *,
    suffixes: Sequence[str] = (),
    limit: int | None = None,
) -> bytes:
    """Read files and folders into one text, the same on every run.

    Files of a folder come in the order of their relative paths; hidden files, hidden folders,
    binary files (with a zero byte near the beginning) and installed packages are passed over. Any
    encoding is accepted: the bytes are taken as they are. A newline is added between two files
    where the first lacks it.

    Args:
        paths: files and folders; none of them stands for the standard library's Python sources.
        suffixes: from folders, only files whose names end in one of these, such as ".txt".
        limit: stop after so many bytes.

    Raises:
        TextError: a path is missing or unreadable, or there is no text.
    """
    if paths:
        files: Iterable[Path] = _named(paths, tuple(suffixes))
    else:
        files = standard_library()
    text = _join(files, limit)
    if not text:
        named = ", ".join(str(path) for path in paths) or "the standard library"
        wanted = f" in files ending in {' or '.join(suffixes)}" if suffixes else ""
        raise TextError(f"{named}: wanted some text{wanted}, found none")
    return text


def standard_library() -> Iterator[Path]:
    """The Python sources of the standard library of the running interpreter, in a fixed order.

    Raises:
        TextError: this interpreter's library is not a folder of sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    if not folder.is_dir():
        raise TextError(f"{folder}: wanted the standard library's folder of Python sources")
    return files_in(folder, (".py",))


def _named(paths: Sequence[str | os.PathLike[str]], suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for file in files_in(path, suffixes) if not _binary(file))
        elif path.exists():
            yield path
        else:
            raise TextError(f"{path}: wanted a file or a folder, there is none")


def files_in(folder: Path, suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files of a folder and of all folders in it, in a fixed order, those whose names end in
    one of these if given. What is hidden is passed over, and so are installed packages."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(filter(_is_read, folders))
        for name in sorted(files):
            file = Path(place, name)
            if name[0] != "." and (not suffixes or name.endswith(suffixes)) and file.is_file():
                yield file


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, but for those that `files_in` passes over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_read(path.name))


def _is_read(folder: str) -> bool:
    return folder[0] != "." and folder not in _SKIPPED_FOLDERS


def _binary(file: Path) -> bool:
    return b"\0" in _read(file, _PROBE)


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
