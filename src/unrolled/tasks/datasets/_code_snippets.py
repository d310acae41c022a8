"""Classification of texts without a download: the programming language of a snippet.

The files are those of the Python installation, of its packages, and of the system.
"""

import hashlib
import os
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unrolled.tasks.data._source import DataError

_SUFFIXES = {
    "C and C++": (".c", ".h", ".cc", ".cpp", ".hpp", ".cuh"),
    "CMake": (".cmake",),
    "CSS": (".css",),
    "Cython": (".pyx", ".pxd"),
    "Fortran": (".f", ".f90"),
    "HTML": (".html", ".htm"),
    "JSON": (".json",),
    "Java": (".java",),
    "JavaScript": (".js", ".mjs"),
    "Lua": (".lua",),
    "Markdown": (".md",),
    "PHP": (".php",),
    "Perl": (".pl", ".pm"),
    "Python": (".py",),
    "Ruby": (".rb",),
    "SQL": (".sql",),
    "Tcl": (".tcl",),
    "TeX": (".tex",),
    "Vim": (".vim",),
    "XML": (".xml", ".svg"),
    "YAML": (".yaml", ".yml"),
    "plain text": (".txt",),
    "reStructuredText": (".rst",),
    "shell": (".sh", ".bash"),
}
_LANGUAGE = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_MAX_PER_FILE = 8
_MAX_BYTES = 1 << 18
_VALIDATION_PERIOD = 5
"""One in this many files is for validation."""


Parts = tuple[list[str], list[str]]
"""Training and validation snippets of a language."""


@dataclass(frozen=True)
class Snippets:
    """Pairs of a snippet and its language, equally many of each; no file is in both parts."""

    languages: tuple[str, ...]
    training: list[tuple[str, str]]
    validation: list[tuple[str, str]]

    def __str__(self) -> str:
        count = len(self.languages)
        return (
            f"{count} languages ({', '.join(self.languages)}), of each "
            f"{len(self.training) // count} snippets for training and "
            f"{len(self.validation) // count} for validation"
        )


def languages(
    training: int = 400,
    validation: int = 100,
    length: int = 200,
    folders: Iterable[str | os.PathLike[str]] | None = None,
) -> Snippets:
    """Snippets of code and text, with the language of each, known from the suffix of its file.

    Source: the files on this machine under the Python installation, its packages, and the system's
    /usr/include, /usr/lib and /usr/share. Of two dozen languages the result has those with enough
    snippets. Debian with Python, a compiler and this project's packages has C and C++, Cython,
    Perl, plain text and Python at least.

    A snippet begins at a line and has at most `length` characters, of which at least half are not
    blank and a quarter are letters; a file gives at most eight, spread over it, and each text is
    used once. One file in five is for validation, chosen by its content, so that copies are in the
    same part. The result is the same on every run, while nothing is installed or removed.

    Args:
        training: snippets of each language for training.
        validation: snippets of each language for validation.
        length: characters of a snippet.
        folders: to search instead.

    Raises:
        DataError: fewer than two languages have enough snippets; the message has their numbers.
    """
    sizes = (training, validation)
    snippets: dict[str, Parts] = {}
    used: set[str] = set()
    searched = _default_folders() if folders is None else map(Path, folders)
    for name, files in sorted(_files_by_language(searched).items()):
        snippets[name] = _collect(files, sizes, length, used)
    names = tuple(name for name, parts in snippets.items() if _is_complete(parts, sizes))
    if len(names) < 2:
        counts = ", ".join(f"{n} {len(a)} + {len(b)}" for n, (a, b) in snippets.items())
        raise DataError(
            f"languages: at least two must have {training} + {validation} snippets on this "
            f"machine, got {counts or 'no files'}; use fewer snippets or more folders"
        )
    return Snippets(
        names,
        [(text, name) for name in names for text in snippets[name][0]],
        [(text, name) for name in names for text in snippets[name][1]],
    )


def _is_complete(parts: Parts, sizes: tuple[int, int]) -> bool:
    return all(len(part) >= size for part, size in zip(parts, sizes, strict=True))


def _default_folders() -> list[Path]:
    packages = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("include")]
    return [Path(p) for p in (*python, *packages, "/usr/include", "/usr/lib", "/usr/share")]


def _files_by_language(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each language, shuffled by a hash of their paths."""
    files: dict[str, set[Path]] = defaultdict(set)
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                language = _LANGUAGE.get(os.path.splitext(name)[1])
                if language is not None:
                    cmake = name == "CMakeLists.txt"
                    files["CMake" if cmake else language].add(Path(path, name))
    return {
        language: sorted(paths, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())
        for language, paths in files.items()
    }


def _collect(files: Iterable[Path], sizes: tuple[int, int], length: int, used: set[str]) -> Parts:
    """Snippets for training and for validation; `used` has the texts and files used before."""
    parts: Parts = ([], [])
    for file in files:
        text = _read(file)
        content = hashlib.sha256(text.encode()).hexdigest()
        part = int(content, 16) % _VALIDATION_PERIOD == 0
        missing = sizes[part] - len(parts[part])
        if missing > 0 and content not in used:
            used.add(content)
            new = [s for s in dict.fromkeys(_split(text, length)) if s not in used]
            chosen = new[:: max(1, -(-len(new) // _MAX_PER_FILE))][:missing]
            used.update(chosen)
            parts[part].extend(chosen)
        elif _is_complete(parts, sizes):
            break
    return parts


def _read(file: Path) -> str:
    """The text of a file, up to a limit; empty if it is a link, binary, or not UTF-8."""
    if file.is_symlink() or not file.is_file():
        return ""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_MAX_BYTES)
        text = data[: data.rfind(b"\n") + 1].decode()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


def _split(text: str, length: int) -> Iterator[str]:
    """Snippets that do not overlap; each begins at a line, or within a long line."""
    start = 0
    while start < len(text):
        snippet = text[start : start + length].strip("\r\n")
        if 2 * len("".join(snippet.split())) >= length <= 4 * sum(map(str.isalpha, snippet)):
            yield snippet
        end = text.find("\n", start + length - 1) + 1 or len(text)
        start = end if end - start < 2 * length else start + length
