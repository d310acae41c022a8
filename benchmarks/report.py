"""Results as tables, a picture, and the figures of README.md and docs/benchmarks.md.

    python benchmarks/report.py benchmarks/results/PROCESSOR.json [MORE.json ...]

Writes PROCESSOR.md and PROCESSOR.svg beside each file, prints the means, and puts the figures of
all files between the markers of both documents. Only a whole grid is put there: a quick run, or a
part of the grid, might leave out rows that we lose.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import picture
import results
import tables
from problems import grid
from unrolled.bench.machine import ROOT

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
DOCUMENTS = ("README.md", "docs/benchmarks.md")
FIGURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "stacks": ("Two layers, two directions", tables.timings),
    "ragged": ("A ragged batch, lengths 1..200", tables.ragged),
    "published": ("Published cells", tables.published),
    "latency": ("One call of one step without gradient", tables.latency),
    "streams": ("A step at a time, by the runtime's streams", tables.streams),
    "starting": ("From the start of a process to a step", tables.starting),
    "short": ("What short weights cost a trained model", tables.short),
    "floor": ("Training of one step, and a node of autograd that only clones", tables.floor),
    "half": ("bfloat16", tables.half),
    "several": ("Many networks at once, and gradients of each sample", tables.several),
    "memory": ("Memory of a training step", tables.memory),
}
RATIOS = "Fastest peer's time / ours, in brackets torch's time / ours; ▼: we lose."

Sections = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, help="files of results, JSON")
    files = parser.parse_args().results
    for path in files:
        render(path)
    loaded = {path: results.read(path) for path in files}
    for path, sections in loaded.items():
        why = incomplete(sections)
        if why:
            sys.exit(f"the documents are left as they are: {path} {why}")
    readme, page = (ROOT / name for name in DOCUMENTS)
    bodies = [whole(path, sections, page.parent) for path, sections in loaded.items()]
    for document, body in ((readme, brief(loaded)), (page, "\n\n".join(bodies))):
        document.write_text(insert(document.read_text(), body))
        print(f"wrote {document.relative_to(ROOT)}")


def render(path: Path) -> None:
    """Table and picture beside a file of results; prints the means of the grid."""
    sections = results.read(path)
    if "grid" in sections:
        found = sections["grid"]["environment"]
        title = f"{found['processor']} ({found['isa']}), {found['threads']} threads, float32"
        picture.draw(sections["grid"]["rows"], title, path.with_suffix(".svg"))
        print(f"\n{tables.summary(sections['grid']['rows'])}\n")
    path.with_suffix(".md").write_text(f"# {path.stem}\n\n{whole(path, sections, path.parent)}\n")
    print(f"wrote {path.with_suffix('.md')}")


def incomplete(sections: Sections) -> str | None:
    """None, or why results are no figures for the documents."""
    quick = [name for name, section in sections.items() if section["quick"]]
    if quick:
        return f"was measured with --quick: {', '.join(quick)}"
    names = {row["name"] for row in sections.get("grid", {"rows": []})["rows"]}
    missing = [problem.name for problem in grid() if problem.name not in names]
    return f"lacks {len(missing)} rows of the grid, {missing[0]} first" if missing else None


def brief(loaded: dict[Path, Sections]) -> str:
    """The means of all processors as one table, and what each was measured on."""
    grids = {path: sections["grid"] for path, sections in loaded.items()}
    names = {path: grid["environment"]["isa"].upper() for path, grid in grids.items()}
    table = tables.means({names[path]: grid["rows"] for path, grid in grids.items()})
    machines = [f"{names[path]}: {tables.heading(grid)}" for path, grid in grids.items()]
    return "\n\n".join([table, *machines])


def short(path: Path, sections: Sections, folder: Path) -> str:
    """The picture, the means and all ratios of the grid, with links as seen from a folder."""
    section = sections["grid"]
    parts = [tables.heading(section), _image(path, folder)]
    parts += [tables.summary(section["rows"]), RATIOS, tables.ratios(section["rows"])]
    return "\n\n".join(parts)


def whole(path: Path, sections: Sections, folder: Path) -> str:
    """Every median and spread of every section."""
    parts = []
    if "grid" in sections:
        parts.append(short(path, sections, folder))
        parts.append("All times in ms, with ± half the distance of the quartiles.")
        parts.append(tables.timings(sections["grid"]["rows"]))
    for name, (title, render_rows) in FIGURES.items():
        if name in sections:
            section = sections[name]
            parts += [f"### {title}", tables.heading(section), render_rows(section["rows"])]
    return "\n\n".join(parts)


def insert(text: str, block: str) -> str:
    """The text with a block between its markers, instead of what was there.

    Raises:
        ValueError: there is not one pair of markers.
    """
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"wanted one pair of markers {BEGIN} … {END}")
    return between.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)


def _image(path: Path, folder: Path) -> str:
    link = Path(os.path.relpath(path.with_suffix(".svg").resolve(), folder.resolve())).as_posix()
    return f"![Speed-up over the fastest peer and over torch, by shape and cell]({link})"


if __name__ == "__main__":
    main()
