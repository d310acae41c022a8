"""Classification of texts without a download: which language a snippet is in.

The files are those of the Python installation, of its packages, and of the system.
"""

import hashlib
import os
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unrolled.tasks.data.source import DataError

__all__ = ["Snippets", "languages"]

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
_OF_A_FILE = 8
_MOST_BYTES = 1 << 18
_VALIDATION = 5  # one file in so many


@dataclass(frozen=True)
class Snippets:
    """Pairs of a snippet and its language, as many of each language; no file is in both parts."""

    languages: tuple[str, ...]
    training: list[tuple[str, str]]
    validation: list[tuple[str, str]]

    def __str__(self) -> str:
        of_each = [len(part) // len(self.languages) for part in (self.training, self.validation)]
        return (
            f"{len(self.languages)} languages ({', '.join(self.languages)}), of each "
            f"{of_each[0]} snippets for training and {of_each[1]} for validation"
        )


def languages(
    training: int = 400,
    validation: int = 100,
    length: int = 200,
    folders: Iterable[str | os.PathLike[str]] | None = None,
) -> Snippets:
    """Snippets of source and text, and the language each is in, told by its file's suffix.

    Source: what lies on this machine under the Python installation, its packages, and the system's
    /usr/include, /usr/lib and /usr/shard. Of two dozen languages those are taken that have enough;
    the result names them. Debian with Python, a compiler and this project's packages has C and C++,
    Cython, Perl, plain text and Python at least.

    A snippet begins at a line and holds at most `length` characters, at least half of them no
    blanks and a quarter letters; a file gives at most eight, spread over it, and each text is taken
    once. One file in five is for validation, told by its content, so that copies are on one side.
    The result is the same on every run, while nothing is installed or removed.

    Args:
        training: snippets of each language to train on.
        validation: snippets of each language to measure on.
        length: characters of a snippet.
        folders: where to look instead.

    Raises:
        DataError: fewer than two languages have enough; the message says how many each has.
    """
    wanted = (training, validation)
    found: dict[str, tuple[list[str], list[str]]] = {}
    seen: set[str] = set()
    for name, files in sorted(_files(_places() if folders is None else map(Path, folders)).items()):
        found[name] = _collect(files, wanted, length, seen)
    enough = tuple(n for n, parts in found.items() if all(map(_at_least, parts, wanted)))
    if len(enough) < 2:
        counts = ", ".join(f"{n} {len(parts[0])} + {len(parts[1])}" for n, parts in found.items())
        raise DataError(
            f"languages: wanted two or more with {training} + {validation} snippets on this "
            f"machine, got {counts or 'no files'}; ask for fewer snippets or name more folders"
        )
    sides = [[(text, name) for name in enough for text in found[name][i]] for i in range(2)]
    return Snippets(enough, *sides)


def _at_least(part: Sequence[str], wanted: int) -> bool:
    return len(part) >= wanted


def _places() -> list[Path]:
    packages = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("include")]
    return [Path(p) for p in (*python, *packages, "/usr/include", "/usr/lib", "/usr/share")]


def _files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each language, mixed, in an order that depends on their paths alone."""
    found: dict[str, set[Path]] = defaultdict(set)
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                language = _LANGUAGE.get(os.path.splitext(name)[1])
                if language is not None:
                    cmake = name == "CMakeLists.txt"
                    found["CMake" if cmake else language].add(Path(place, name))
    return {
        language: sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())
        for language, files in found.items()
    }


def _collect(
    files: Iterable[Path], wanted: tuple[int, int], length: int, seen: set[str]
) -> tuple[list[str], list[str]]:
    """Snippets for training and for validation; `seen` holds texts and files already taken."""
    parts: tuple[list[str], list[str]] = ([], [])
    for file in files:
        data = _text(file)
        content = hashlib.sha256(data.encode()).hexdigest()
        side = int(content, 16) % _VALIDATION == 0
        if len(parts[side]) < wanted[side] and content not in seen:
            seen.add(content)
            new = [s for s in dict.fromkeys(_cut(data, length)) if s not in seen]
            some = new[:: max(1, -(-len(new) // _OF_A_FILE))][: wanted[side] - len(parts[side])]
            seen.update(some)
            parts[side].extend(some)
        elif all(map(_at_least, parts, wanted)):
            break
    return parts


def _text(file: Path) -> str:
    """A file's text, up to a limit; nothing where it is a link, binary, or not UTF-8."""
    if file.is_symlink() or not file.is_file():
        return ""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_MOST_BYTES)
        text = data[: data.rfind(b"\n") + 1].decode()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


def _cut(text: str, length: int) -> Iterator[str]:
    """Snippets that do not overlap; each begins at a line, but within a line that is longer."""
    start = 0
    while start < len(text):
        snippet = text[start : start + length].strip("\r\n")
        if 2 * len("".join(snippet.split())) >= length <= 4 * sum(map(str.isalpha, snippet)):
            yield snippet
        end = text.find("\n", start + length - 1) + 1 or len(text)
        start = end if end - start < 2 * length else start + length
