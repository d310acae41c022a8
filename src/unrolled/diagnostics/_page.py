"""A self-contained HTML page: sections of text, tables and pictures.

`_inspection` decides what is on it.
"""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from unrolled.diagnostics._activity import TEXT_STYLE
from unrolled.io import write

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?%?|–")


@dataclass(frozen=True)
class Picture:
    """A PNG, the name (without .png) of its copy beside the page, and its caption."""

    name: str
    png: bytes
    caption: str

    def html(self) -> str:
        data = b64encode(self.png).decode()
        text = escape(self.caption)
        return (
            f'<figure>\n<img src="data:image/png;base64,{data}" alt="{text}">\n'
            f"<figcaption>{text}</figcaption>\n</figure>"
        )


@dataclass(frozen=True)
class Table:
    """Rows under headings, and a caption; columns of numbers are right-aligned."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def html(self) -> str:
        attributes = [
            ' class="number"' if all(map(_NUMBER.fullmatch, column)) else ""
            for column in zip(*self.rows, strict=True)
        ] or [""] * len(self.headings)
        head = _cells("th", attributes, self.headings)
        body = "\n".join(_cells("td", attributes, row) for row in self.rows)
        return (
            f"<figure>\n<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table>\n<figcaption>{escape(self.caption)}</figcaption>\n</figure>"
        )


def _cells(tag: str, attributes: Sequence[str], row: Sequence[str]) -> str:
    """A table row; `attributes` has the HTML attributes of each column's cells."""
    cells = "".join(
        f"<{tag}{attribute}>{escape(text)}</{tag}>"
        for attribute, text in zip(attributes, row, strict=True)
    )
    return f"<tr>{cells}</tr>"


@dataclass(frozen=True)
class ColouredTexts:
    """Results of `coloured_text` by heading, side by side on wide screens, and a caption."""

    texts: Mapping[str, str]
    caption: str

    def html(self) -> str:
        columns = "\n".join(
            f"<div><h3>{escape(heading)}</h3>\n{markup}</div>"
            for heading, markup in self.texts.items()
        )
        return (
            f'<figure>\n<div class="texts">\n{columns}\n</div>\n'
            f"<figcaption>{escape(self.caption)}</figcaption>\n</figure>"
        )


Part = str | Picture | Table | ColouredTexts


@dataclass(frozen=True)
class Section:
    """A heading and the parts under it; a string is a paragraph."""

    title: str
    parts: Sequence[Part]

    def html(self) -> str:
        parts = [
            f"<p>{escape(part)}</p>" if isinstance(part, str) else part.html()
            for part in self.parts
        ]
        return "\n".join(["<section>", f"<h2>{escape(self.title)}</h2>", *parts, "</section>"])


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, 'DejaVu Sans', sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1100px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin-bottom: 0.2em; }
h2 { font-size: 1.25em; margin: 2em 0 0.5em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1em; margin: 1.2em 0 0.3em; }
figure { margin: 1em 0; }
figcaption { color: #444; font-size: 0.92em; max-width: 52em; }
img { max-width: 100%; height: auto; display: block; margin-bottom: 0.4em; }
table { border-collapse: collapse; margin-bottom: 0.4em; font-size: 0.92em; }
th, td { padding: 0.25em 1.4em 0.25em 0; text-align: left; border-bottom: 1px solid #ddd; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(30em, 1fr)); gap: 0 1em; }
.texts div { min-width: 0; }
"""


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> list[Path]:
    """Write a self-contained HTML page, and each of its pictures as a PNG file beside it.

    The page embeds its pictures, and uses no scripts and no external styles or fonts. The file of a
    picture is `<page>-<name>.png`. Each file is replaced atomically.

    Returns:
        The paths of the files: the page, then the pictures.

    Raises:
        ValueError: two pictures have the same name, or a name has characters other than letters,
            digits, - and _.
    """
    path = Path(path)
    pictures = [part for s in sections for part in s.parts if isinstance(part, Picture)]
    names = [picture.name for picture in pictures]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name) or names.count(name) > 1:
            raise ValueError(
                "write_page: sections must have pictures with unique names of letters, digits, - "
                f"and _, got {name!r} {names.count(name)} times"
            )
    page = "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}{TEXT_STYLE}\n</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            *(section.html() for section in sections),
            "</body>",
            "</html>",
            "",
        ]
    )
    files = [path.with_name(f"{path.stem}-{picture.name}.png") for picture in pictures]
    for file, picture in zip(files, pictures, strict=True):
        write(file, picture.png)
    write(path, page.encode("utf-8", "replace"))
    return [path, *files]
