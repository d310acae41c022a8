"""convert's report: which modules test for torch's classes, found in their source."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unrolled import nn

SOURCE = """
import collections, torch, torch.nn as tnn
from torch.nn import LSTM as Memory, GRU, Module
from torch.nn.modules import rnn
from typing import Union
from unrolled import nn

KINDS = (torch.nn.LSTM, GRU)
EITHER = torch.nn.RNN | GRU
UNION = Union[GRU, None]

def outside(layer):
    return isinstance(layer, GRU)

class Mixin:
    def mixed(self, layer):
        return isinstance(layer, GRU)  # asks

class Base(Mixin, Module):
    own = (tnn.LSTMCell,)
    ours = (nn.GRU,)

    def __init__(self):
        super().__init__()
        self.layer = GRU(2, 3)

    def plain(self, x):
        a = isinstance(x, torch.nn.LSTM)  # asks
        a = isinstance(x, tnn.GRU)  # asks
        a = isinstance(x, Memory)  # asks
        a = isinstance(x, rnn.RNNBase)  # asks
        a = isinstance(x, tnn.modules.rnn.RNNBase)  # asks
        a = isinstance(x, (tnn.Linear, (GRU, str)))  # asks
        a = isinstance(x, tnn.Linear | tnn.RNNCell)  # asks
        a = isinstance(x, KINDS)  # asks
        a = isinstance(x, (*KINDS, str))  # asks
        a = isinstance(x, EITHER) or isinstance(x, int)  # asks
        a = isinstance(x, UNION)  # asks
        a = isinstance(x, self.own)  # asks
        a = issubclass(type(x), torch.nn.RNNCellBase)  # asks
        return a

    @property
    def exactly(self):
        a = type(self.layer) is GRU  # exact
        a = GRU == type(self.layer)  # exact
        a = self.layer.__class__ is not tnn.LSTM  # exact
        return type(self.layer) in KINDS  # exact

    @staticmethod
    def within(x):
        from torch.nn import LSTM
        import torch.nn as neural
        def inner():
            return isinstance(x, LSTM)  # asks
        match x:
            case GRU():  # asks
                pass
            case nn.GRU() | str():
                pass
        return lambda y: isinstance(y, neural.GRU)  # asks

    def innocent(self, x):
        a = isinstance(x, nn.GRU)
        a = isinstance(x, self.ours)
        a = isinstance(x, (tnn.Linear, Module))
        a = isinstance(x, unknown) or isinstance(x, self.layer.unknown)
        a = type(x) is tnn.Linear or type(x) == type(a) or x is GRU
        a = type(x).__name__ == "GRU"
        a = isinstance(x, tnn.nothing) or isinstance(x, lazy.thing)
        return isinstance(x, collections.OrderedDict) and "isinstance(x, GRU)"

class Derived(Base):
    text = '''
not indented
'''

    def more(self, x):
        return isinstance(x, GRU)  # asks

def make():
    class Local(Module):
        text = '''
not indented
'''
        def more(self, x):
            return isinstance(x, GRU)  # asks
    return Local()

class Lazy(type(torch)):
    def __getattr__(self, name):
        raise RuntimeError("cannot be imported")

lazy = Lazy("lazy")
"""
PARTS = {"Mixin": "class Mixin", "Base": "class Base", "Derived": "class Derived", "make": "def m"}


@pytest.fixture
def models(tmp_path: Path) -> Iterator[ModuleType]:
    """The source as an imported module."""
    (tmp_path / "models.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("scanned_models", tmp_path / "models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def marked(part: str) -> list[tuple[int, bool]]:
    """Lines with a mark, in a named part of the source, and whether the mark is 'exact'."""
    marks, file = [], ""
    for number, line in enumerate(SOURCE.splitlines(), start=1):
        file = next((name for name, start in PARTS.items() if line.startswith(start)), file)
        mark = re.search("# (asks|exact)$", line)
        if mark and file == part:
            marks.append((number, mark[1] == "exact"))
    return marks


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda models: models.Base(), ("Base", "Mixin")),
        (lambda models: models.Derived(), ("Derived", "Base", "Mixin")),
        (lambda models: models.make(), ("make",)),
    ],
    ids=["base", "derived", "local"],
)
def test_each_type_check_is_found_and_nothing_else(
    models: ModuleType, make: Callable[[ModuleType], torch.nn.Module], parts: tuple[str, ...]
) -> None:
    converted = nn.convert(make(models)).type_checks
    assert list(converted) == [""]
    expected = [line for part in parts for line in marked(part)]
    assert [(check.line, check.exact) for check in converted[""]] == expected
    assert {check.file for check in converted[""]} == {"models.py"}


def test_what_the_report_says(models: ModuleType) -> None:
    model = torch.nn.ModuleDict({"one": models.make(), "other": torch.nn.LSTM(2, 3)})
    line = marked("make")[0][0]
    converted = nn.convert(model)
    check = nn.TypeCheck("models.py", line, "isinstance(x, GRU)", False)
    assert converted.type_checks == {"one": (check,)}
    expected = (
        f"replaced other\none tests for torch's class at models.py:{line}: isinstance(x, GRU)"
    )
    advice = "\nsubclass=True makes layers that are instances of torch's classes, too"
    assert str(converted) == expected + advice
    assert str(nn.convert(model, subclass=True)) == expected
    back = nn.convert(model, to="torch")
    assert back.type_checks == {}
    assert str(back) == "replaced other"
    assert str(nn.convert(model, to="torch")) == "nothing to replace"
    printed = str(nn.convert(models.Base()))
    assert "case GRU()" in printed
    assert "type(self.layer) is GRU, which only torch's own layer satisfies" in printed


class Exactly(torch.nn.Module):
    def forward(self, layer: object) -> bool:
        return type(layer) is torch.nn.LSTM


def test_subclasses_are_no_answer_to_an_exact_question() -> None:
    model = torch.nn.ModuleList([Exactly(), torch.nn.LSTM(2, 3)])
    converted = nn.convert(model)
    assert [check.exact for check in converted.type_checks["0"]] == [True]
    assert "subclass=True" not in str(converted)
    nn.convert(model, subclass=True)
    assert not model[0](model[1])


def test_classes_without_source_are_passed_over(models: ModuleType, tmp_path: Path) -> None:
    for place in ("nowhere", "scanned_models", "builtins"):
        module_class = type("Made", (torch.nn.Module,), {"__module__": place})
        assert nn.convert(module_class()).type_checks == {}
    # A file that is being edited.
    (tmp_path / "models.py").write_text("class Base(:\n    '''")
    assert nn.convert(models.Base()).type_checks == {}
