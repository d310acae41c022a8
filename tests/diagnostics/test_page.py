"""Pages of measurements: valid, whole, escaped, and with what they promise."""

from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unrolled.diagnostics import (
    ColouredTexts,
    Picture,
    Section,
    Table,
    coloured_text,
    inspect_layer,
    inspect_model,
    write_page,
)
from unrolled.models import LanguageModel
from unrolled.nn import GRU, LSTM, RNN

VOID = {"meta", "img", "br", "link", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Tags in balance, texts by the tag around them, attributes of all tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        assert source.startswith("<!DOCTYPE html>\n")
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def attributes_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_page_is_self_contained(tmp_path: Path) -> None:
    marked = coloured_text("<&>", torch.tensor([1.0, 0.0, -1.0]))
    section = Section(
        "Loss & <gain>",
        [
            "a < b",
            Table(["name", "n"], [["<x>", "1,200"], ["y", "–"]], '<of> "x"'),
            Picture("one", PNG + b"1", "it's <this>"),
            ColouredTexts({"Unit 1 & 2": marked}, "colours"),
        ],
    )
    written = write_page(tmp_path / "p.html", "A <b> & c", [section])
    assert written == [tmp_path / "p.html", tmp_path / "p-one.png"]
    assert written[1].read_bytes() == PNG + b"1"
    page = Page(written[0].read_text("utf-8"))
    assert page.texts["title"] == page.texts["h1"] == ["A <b> & c"]
    assert page.texts["h2"] == ["Loss & <gain>"]
    assert page.texts["p"] == ["a < b"]
    assert page.texts["td"] == ["<x>", "1,200", "y", "–"]
    assert [a.get("class") for a in page.attributes_of("td")] == [None, "number", None, "number"]
    assert page.texts["figcaption"] == ['<of> "x"', "it's <this>", "colours"]
    assert page.texts["h3"] == ["Unit 1 & 2"]
    assert page.texts["span"] == ["<", ">"]
    (image,) = page.attributes_of("img")
    media_type, _, data = (image["src"] or "").partition(",")
    assert media_type == "data:image/png;base64"
    assert b64decode(data) == PNG + b"1"
    assert image["alt"] == "it's <this>"
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    source = written[0].read_text("utf-8")
    assert "http" not in source.replace("viewport", "")
    assert "@import" not in source
    assert not list(tmp_path.glob(".*"))


def test_pictures_need_distinct_names(tmp_path: Path) -> None:
    for names in (["a", "a"], ["../a"]):
        section = Section("s", [Picture(name, PNG, "c") for name in names])
        with pytest.raises(
            ValueError, match="write_page: sections must have pictures with unique names"
        ):
            write_page(tmp_path / "p.html", "t", [section])
    assert not list(tmp_path.iterdir())


def titles(sections: list[Section]) -> list[str]:
    return [section.title for section in sections]


def tables(sections: list[Section]) -> dict[str, Table]:
    return {s.title: part for s in sections for part in s.parts if isinstance(part, Table)}


def pictures(sections: list[Section]) -> list[str]:
    return [part.name for s in sections for part in s.parts if isinstance(part, Picture)]


def test_a_language_model_is_inspected(tmp_path: Path) -> None:
    model = LanguageModel(128, 6, cell="LSTM", num_layers=2, embedding_size=5, dropout=0.5)
    text = 'def f(a):\n\treturn a<1 & b or "$x$" \x00é'
    tokens = torch.tensor([[ord(c) % 128, 3] for c in text])
    previous = torch.get_rng_state()
    sections = inspect_model(model.train(), tokens, text)
    assert torch.equal(torch.get_rng_state(), previous)
    assert model.training
    assert titles(sections) == [
        "Parameters", "Gradient by lag", "Gate saturation", "Recurrent matrices", "Activations",
        "All parameters of the model",
    ]  # fmt: skip
    assert pictures(sections) == ["gradients", "saturation", "eigenvalues", "trajectory"]
    actual = tables(sections)
    assert [row[1] for row in actual["Gate saturation"].rows] == [
        "i",
        "f",
        "g",
        "o",
        "tanh(c)",
    ] * 2
    assert len(actual["All parameters of the model"].rows) == 11
    path, *copies = write_page(tmp_path / "m.html", "m", sections)
    page = Page(path.read_text("utf-8"))
    assert len(page.attributes_of("img")) == len(copies) == 4
    assert all(copy.read_bytes().startswith(PNG) for copy in copies)
    assert len(page.texts["h3"]) == 6
    # The coloured texts hold the text whole, six times.
    start = path.read_text("utf-8").split('<div class="text">')
    assert len(start) == 7
    for part in start[1:]:
        once = Page("<!DOCTYPE html>\n<div>" + part.partition("</div>")[0] + "</div>")
        printed = "".join(piece for pieces in once.texts.values() for piece in pieces)
        printed = printed.replace("↵\n", "\n").replace("␀", "\0")
        assert sorted(printed) == sorted(text)


def test_layers_of_every_kind_are_inspected(tmp_path: Path) -> None:
    x = torch.randn(7, 3, 4)
    plain = inspect_layer(RNN(4, 5, nonlinearity="relu"), x)
    assert "Gate saturation" not in titles(plain)
    assert pictures(plain) == ["gradients", "eigenvalues", "units", "trajectory"]
    single = inspect_layer(LSTM(4, 1, proj_size=0, dtype=torch.float64), x.double()[:, 0])
    assert "trajectory" not in pictures(single)
    projected = LSTM(4, 5, proj_size=2, bidirectional=True, batch_first=True)
    assert "eigenvalues" not in pictures(inspect_layer(projected, x.transpose(0, 1), units=2))
    assert write_page(tmp_path / "p.html", "p", plain)[0].exists()
    with pytest.raises(ValueError, match="inspect_layer: x must have at least 2 steps, got 1"):
        inspect_layer(RNN(4, 5), x[:1])
    with pytest.raises(ValueError, match="text must have one token for each of the 7 steps, got 2"):
        inspect_layer(RNN(4, 5), x, text="ab")
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        inspect_layer(RNN(4, 5), x, units=0)


def test_a_model_with_two_layers_names_them(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below = GRU(4, 5)
            self.above = nn.ModuleList([LSTM(5, 3), RNN(2, 2)])

        def forward(self, x: Tensor) -> Tensor:
            return self.above[0](self.below(x)[0][::2])[0]

    sections = inspect_model(Two(), torch.randn(8, 2, 4), "abcdefgh")
    assert titles(sections)[0] == "below: Parameters"
    assert titles(sections)[5] == "above.0: Parameters"
    assert len(sections) == 11
    names = pictures(sections)
    assert names[:2] == ["below-gradients", "below-saturation"]
    assert "above-0-units" in names
    assert "below-units" not in names
    write_page(tmp_path / "two.html", "two", sections)
    with pytest.raises(ValueError, match="model must call its recurrent layers"):
        inspect_model(nn.Sequential(nn.Identity(), _Deaf()), torch.randn(3, 4))


class _Deaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = GRU(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x
