"""`unrolled inspect`: the page of a small run of each task, and the error when there is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from unrolled.cli._app import run
from unrolled.config import CONFIGS
from unrolled.train import fit

pytestmark = pytest.mark.slow

FILES = {
    "lm": ("text.txt", "the quick brown fox jumps over the lazy dog\n" * 40),
    "classify": ("table.csv", "text,label\n" + "abcab,one\nbbca,two\n" * 10),
    "tag": ("tags.conll", "Anna B-PER\ngoes O\nto O\nRome B-LOC\n\n" * 10),
    "forecast": ("table.csv", "y\n" + "".join(f"{k % 7}\n" for k in range(80))),
    "seq2seq": ("pairs.tsv", "one two three\tabc\nthree one\tca\n" * 10),
    "problem": ("none", ""),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "lm": {"window": 8, "embedding_size": 3},
    "classify": {"text": "text", "num_layers": 2},
    "tag": {"min_count": 1, "cell": "MGU"},
    "forecast": {"window": 10, "horizon": 3, "cell": "LSTM"},
    "seq2seq": {"bidirectional": True},
    "problem": {"data": "dyck", "length": 12},
}


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task's name, and the folder of a run of two steps."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    file, text = FILES[name]
    (folder / file).write_text(text)
    data = {"paths": (str(folder / file),)} if text else {}
    config = CONFIGS[name](
        **data, hidden_size=4, batch_size=2, steps=2, accelerator="cpu",
        **OPTIONS[name],
    )  # fmt: skip
    return name, fit(config, folder / "run", progress=False).run


def test_a_page_is_self_contained(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name, folder = trained
    assert run(["inspect", str(folder), "--units", "2"]) == 0
    page = folder / "inspect" / "index.html"
    assert f"page      {page}\n" in capsys.readouterr().out
    html = page.read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:)", html) == []
    config_values = json.loads((folder / "config.json").read_text())
    assert (
        f"<h1>{name}: {config_values['cell']}, {config_values['num_layers']} × 4 units</h1>" in html
    )
    for title in ("Training", "Gradient by lag", "Gate saturation", "Recurrent matrices"):
        assert title in html
    assert ("Unit " in html) == (name != "forecast")
    pictures = [file.name for file in page.parent.glob("*.png")]
    assert len(pictures) == html.count('src="data:image/png')
    assert "index-curve.png" in pictures
    assert all((page.parent / p).read_bytes().startswith(b"\x89PNG\r\n") for p in pictures)


def test_a_text_of_the_user(trained: Any, tmp_path: Path, capsys: Any) -> None:
    name, folder = trained
    texts = {"lm": "the fox", "classify": "abc", "tag": "Anna goes", "seq2seq": "one three",
             "problem": "(()())"}  # fmt: skip
    output = ["--output", str(tmp_path / "out")]
    if name == "forecast":
        assert run(["inspect", str(folder), "--text", "1 2", *output]) == 2
        assert "text: must be omitted, a forecaster reads numbers" in capsys.readouterr().err
        return
    assert run(["inspect", str(folder), "--text", texts[name], *output]) == 0
    visible = re.sub(r"<[^>]+>", "", (tmp_path / "out" / "index.html").read_text())
    assert texts[name].split()[0] in visible.replace("\n", "")
    assert run(["inspect", str(folder), "--text", "", *output]) == 2
    assert "text: must" in capsys.readouterr().err


def test_what_cannot_be_inspected_is_reported(tmp_path: Path, capsys: Any) -> None:
    for arguments, message in (
        (["inspect", str(tmp_path / "absent")], "does not exist"),
        (["inspect", str(tmp_path)], "has no checkpoint"),
    ):
        assert run(arguments) == 2
        assert message in capsys.readouterr().err
