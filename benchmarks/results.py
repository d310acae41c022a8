"""Results as JSON: sections by name, each with its environment and its rows."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


def read(path: Path) -> dict[str, Any]:
    """All sections of a file; empty if it does not exist."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, section: str, content: dict[str, Any]) -> None:
    """Replace one section of a file, and keep the others."""
    sections = {**read(path), section: content}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sections, indent=1) + "\n")
