"""Results as JSON: sections by name, each with the environment it was measured in, and its rows."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


def read(path: Path) -> dict[str, Any]:
    """All sections of a file; none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, section: str, content: dict[str, Any]) -> None:
    """Replace one section of a file, leave the others."""
    sections = {**read(path), section: content}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sections, indent=1) + "\n")
