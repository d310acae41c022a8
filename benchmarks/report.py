"""Write results as tables and a picture, and into README.md and docs/benchmarks.md.

    python benchmarks/report.py benchmarks/results/PROCESSOR.json [MORE.json ...]

Writes PROCESSOR.md and PROCESSOR.svg beside each file, prints the means, and inserts the results of
all files between the markers in both documents. Only complete grids are inserted: a quick run, or a
part of the grid, might omit rows where we are slower.
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
from highlights import highlights
from problems import grid
from unrolled.bench._machine import ROOT

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
DOCUMENTS = ("README.md", "docs/benchmarks.md")
FIGURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "stacks": ("Two layers, two directions", tables.timings),
    "ragged": ("Sequences of different lengths, 1 to 200", tables.ragged),
    "published": ("Published cells", tables.published),
    "heads": ("Block-diagonal recurrent products", tables.heads),
    "latency": ("Latency of a single step without gradient", tables.latency),
    "streams": ("Streaming in the runtime, one step at a time", tables.streams),
    "startup": ("Startup time until the first step", tables.startup),
    "quantized": ("Accuracy of a trained model with low-precision weights", tables.quantized),
    "autograd_bound": (
        "Training on a single step, and an autograd function that only clones",
        tables.autograd_bound,
    ),
    "training_step": ("A training step of a language model", tables.training_step),
    "half": ("bfloat16", tables.half),
    "repeated": ("Calls that follow one another", tables.repeated),
    "busy": (
        "A busy machine: mean (median, 90 % below) beside spinning processes for each core",
        tables.busy,
    ),
    "rested": (
        "Calls after a rest of 20 ms: mean (median, 90 % below)",
        tables.busy,
    ),
    "functorch": ("Ensembles and per-sample gradients with torch.func", tables.functorch),
    "memory": ("Memory of a training step", tables.memory),
}
RATIOS = "Time of the fastest peer / ours, and in brackets torch / ours; ▼ where a peer is faster."

Sections = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, help="files of results, JSON")
    files = parser.parse_args().results
    for path in files:
        render(path)
    loaded = {path: results.read(path) for path in files}
    for path, sections in loaded.items():
        problem = incomplete(sections)
        if problem:
            sys.exit(f"the documents are unchanged: {path} {problem}")
    readme, page = (ROOT / name for name in DOCUMENTS)
    bodies = [full_report(path, sections, page.parent) for path, sections in loaded.items()]
    for document, body in ((readme, brief(loaded)), (page, "\n\n".join(bodies))):
        document.write_text(insert(document.read_text(), body))
        print(f"wrote {document.relative_to(ROOT)}")


def render(path: Path) -> None:
    """Write the table and the picture beside a file of results; print the means of the grid."""
    sections = results.read(path)
    if "grid" in sections:
        machine = sections["grid"]["environment"]
        title = f"{machine['processor']} ({machine['isa']}), {machine['threads']} threads, float32"
        picture.draw(sections["grid"]["rows"], title, path.with_suffix(".svg"))
        print(f"\n{tables.summary(sections['grid']['rows'])}\n")
    path.with_suffix(".md").write_text(
        f"# {path.stem}\n\n{full_report(path, sections, path.parent)}\n"
    )
    print(f"wrote {path.with_suffix('.md')}")


def incomplete(sections: Sections) -> str | None:
    """Why results cannot be inserted into the documents; None if they can."""
    quick = [name for name, section in sections.items() if section["quick"]]
    if quick:
        return f"was measured with --quick: {', '.join(quick)}"
    names = {row["name"] for row in sections.get("grid", {"rows": []})["rows"]}
    missing = [problem.name for problem in grid() if problem.name not in names]
    return f"lacks {len(missing)} rows of the grid, {missing[0]} first" if missing else None


def brief(loaded: dict[Path, Sections]) -> str:
    """The means of all processors as one table, and their environments."""
    grids = {path: sections["grid"] for path, sections in loaded.items()}
    names = {path: grid["environment"]["isa"].upper() for path, grid in grids.items()}
    table = tables.means({names[path]: grid["rows"] for path, grid in grids.items()})
    machines = [f"{names[path]}: {tables.heading(grid)}" for path, grid in grids.items()]
    others = {names[path]: highlights(sections) for path, sections in loaded.items()}
    return "\n\n".join(
        [table, *machines, *(f"{name}:\n\n{text}" for name, text in others.items() if text)]
    )


def grid_summary(path: Path, sections: Sections, folder: Path) -> str:
    """The picture, the means and all ratios of the grid; links are relative to the folder."""
    section = sections["grid"]
    parts = [tables.heading(section), _image(path, folder)]
    parts += [tables.summary(section["rows"]), RATIOS, tables.ratios(section["rows"])]
    return "\n\n".join(parts)


def full_report(path: Path, sections: Sections, folder: Path) -> str:
    """The medians and spreads of all sections."""
    parts = []
    if "grid" in sections:
        parts.append(grid_summary(path, sections, folder))
        parts.append("All times in ms, ± half the interquartile range.")
        parts.append(tables.timings(sections["grid"]["rows"]))
    for name, (title, render_rows) in FIGURES.items():
        if name in sections:
            section = sections[name]
            parts += [f"### {title}", tables.heading(section), render_rows(section["rows"])]
    return "\n\n".join(parts)


def insert(text: str, block: str) -> str:
    """The text with a block in place of the text between its markers.

    Raises:
        ValueError: the text does not have exactly one pair of markers.
    """
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"insert: text must have exactly one pair of markers {BEGIN} … {END}")
    return between.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)


def _image(path: Path, folder: Path) -> str:
    link = Path(os.path.relpath(path.with_suffix(".svg").resolve(), folder.resolve())).as_posix()
    return f"![Speed-up over the fastest peer and over torch, by shape and cell]({link})"


if __name__ == "__main__":
    main()
