"""One page of HTML that stands alone: sections of text, tables and pictures, and how it is written.

What goes on it is decided in `inspection`; nothing here knows a layer.
"""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from unrolled.diagnostics.activity import TEXT_STYLE
from unrolled.io import write

__all__ = ["ColouredTexts", "Part", "Picture", "Section", "Table", "write_page"]


_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?%?|–")


@dataclass(frozen=True)
class Picture:
    """A PNG, the file name (without .png) of its copy beside the page, and the line under it."""

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
    """Rows under headings, and the line under them; columns of numbers stand right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def html(self) -> str:
        kinds = [
            ' class="number"' if all(map(_NUMBER.fullmatch, column)) else ""
            for column in zip(*self.rows, strict=True)
        ] or [""] * len(self.headings)
        head = _cells("th", kinds, self.headings)
        body = "\n".join(_cells("td", kinds, row) for row in self.rows)
        return (
            f"<figure>\n<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table>\n<figcaption>{escape(self.caption)}</figcaption>\n</figure>"
        )


def _cells(tag: str, kinds: Sequence[str], row: Sequence[str]) -> str:
    cells = zip(kinds, row, strict=True)
    return f"<tr>{''.join(f'<{tag}{kind}>{escape(text)}</{tag}>' for kind, text in cells)}</tr>"


@dataclass(frozen=True)
class ColouredTexts:
    """What `coloured_text` made, by heading: side by side where there is room."""

    texts: Mapping[str, str]
    caption: str

    def html(self) -> str:
        shown = "\n".join(
            f"<div><h3>{escape(heading)}</h3>\n{markup}</div>"
            for heading, markup in self.texts.items()
        )
        return (
            f'<figure>\n<div class="texts">\n{shown}\n</div>\n'
            f"<figcaption>{escape(self.caption)}</figcaption>\n</figure>"
        )


Part = str | Picture | Table | ColouredTexts


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a string is a paragraph."""

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
    """Write one page of HTML that needs no other file, and each of its pictures as a PNG beside it.

    Pictures are in the page as data URIs; it has no script, and no style or font from elsewhere.
    The file of a picture is `<page>-<name>.png`. Each file is replaced as a whole.

    Returns:
        The files written, the page first.

    Raises:
        ValueError: two pictures have one name, or a name is not made of letters, digits, - and _.
    """
    path = Path(path)
    pictures = [part for s in sections for part in s.parts if isinstance(part, Picture)]
    names = [picture.name for picture in pictures]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name) or names.count(name) > 1:
            raise ValueError(
                f"sections: wanted pictures with names of their own, of letters, digits, - and _, "
                f"got {name!r} {names.count(name)} times"
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
