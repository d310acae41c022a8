"""A cell or its class is accepted wherever its name is; layers given for cells, and the reverse."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import subjects
from tests.support.subjects import Peephole
from tests.support.tolerances import assert_equal
from unrolled import cells, diagnostics, engines, nn
from unrolled.cells import Cell
from unrolled.cells._naming import cell_name
from unrolled.config import LanguageModelConfig, ProblemConfig
from unrolled.models import EncoderDecoder, SequenceModel, Tagger, find_cell, make_stack
from unrolled.program import make_program

FILE = """
import torch
from unrolled.cells import Cell, tanh

class Mine(Cell):
    def __init__(self, scale=torch.ones(4)):
        self.scale = scale

    def step(self, x, h, state):
        return tanh(x + h) * self.scale

TENS = Mine(torch.full((4,), 10.0))
"""
SHIFTED = cells.RNN(cells.relu)
MODELS = {
    "sequence": lambda cell: SequenceModel(5, 3, cell=cell),
    "tagger": lambda cell: Tagger(5, 3, 4, cell=cell),
    "translation": lambda cell: EncoderDecoder(5, 4, cell=cell),
}
CELLS: dict[str, Any] = {
    "class": Peephole,
    "object": Peephole(),
    "settings": cells.CoRNN(dt=0.25),
    "published": cells.MGU,
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layer_name", CELLS)
def test_models_take_cells(layer_name: str, model: str) -> None:
    cell = CELLS[layer_name]
    actual = MODELS[model](cell)
    stacks = [part for part in actual.modules() if isinstance(part, nn.Recurrent)]
    for stack in stacks:
        assert stack.cell is cell or type(stack.cell) is cell
    assert stacks
    assert type(make_stack(cells.LSTM, 3, 4)) is nn.LSTM
    assert find_cell(cell) is cell


def test_a_name_that_finds_it_again() -> None:
    assert cell_name(cells.MGU) == cell_name(cells.MGU()) == "MGU"
    assert cell_name(cells.CoRNN()) == "CoRNN"
    assert cell_name(Peephole) == cell_name(Peephole()) == f"{subjects.__name__}:Peephole"
    assert cell_name(SHIFTED) == f"{__name__}:SHIFTED"
    for cell in (cells.MGU, Peephole, SHIFTED):
        assert find_cell(cell_name(cell)) is cell
    config = LanguageModelConfig(cell=Peephole)  # type: ignore[arg-type]
    assert config.cell == f"{subjects.__name__}:Peephole"
    assert LanguageModelConfig(cell=cells.LSTM()).cell == "LSTM"  # type: ignore[arg-type]


def test_a_cell_of_a_file_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    for name in ("Mine", "TENS"):
        cell = find_cell(f"{path}:{name}")
        assert cell_name(cell) == f"{path}:{name}"
        assert find_cell(cell_name(cell)) is cell


def test_what_cannot_be_found_again() -> None:
    class Local(Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            return cells.tanh(x + h)

    with pytest.raises(ValueError, match="cell must be importable by another process, got Local"):
        ProblemConfig(cell=Local)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must have a name, got CoRNN\(dt=0.25, .*\), which has"):
        ProblemConfig(cell=cells.CoRNN(dt=0.25))  # type: ignore[arg-type]
    assert isinstance(SequenceModel(5, 3, cell=Local).recurrent.cell, Local)


PACKAGE = """
from unrolled.cells import GRU

class Shared(GRU):
    pass
"""
SCRIPT = """
import sys
from unrolled.cells import Cell, tanh
from unrolled.config import ProblemConfig
from unrolled.models import find_cell
print("runs")

class Mine(Cell):
    def step(self, x, h, state):
        return tanh(x + h)

assert find_cell(ProblemConfig(cell=Mine).cell) is Mine
import one.two
assert ProblemConfig(cell=one.two.Shared).cell == "one.two:Shared"
assert find_cell("one.two:Shared") is one.two.Shared
print(ProblemConfig(cell=Mine).cell)
"""


@pytest.mark.slow
def test_cells_of_scripts_and_packages(tmp_path: Path) -> None:
    """The running script is not run again; a module of a package is imported by its name."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "__init__.py").touch()
    (tmp_path / "one" / "two.py").write_text(PACKAGE)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    finished = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["runs", f"{script}:Mine"]


@pytest.mark.slow
def test_a_run_trains_evaluates_and_resumes_with_a_class(tmp_path: Path) -> None:
    from unrolled.tasks import find_task, load_trained
    from unrolled.train import fit, resume

    options: Any = {"hidden_size": 4, "steps": 2, "validate_every": 1, "accelerator": "cpu"}
    config = ProblemConfig(cell=Peephole, data="adding", **options)  # type: ignore[arg-type]
    run = fit(config, tmp_path, progress=False)
    repeated = resume(tmp_path, steps=3, progress=False)
    assert repeated.step == run.step + 1
    for cell in (Peephole, Peephole(), config.cell):
        model, _ = load_trained(repeated.last, find_task("problem"), cell=cell)
        assert isinstance(next(p for p in model.modules() if hasattr(p, "cell")).cell, Peephole)


MIXED: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: nn.Recurrent(torch.nn.LSTM, 3, 4),  # type: ignore[arg-type]
        TypeError,
        "got the module torch.nn.LSTM, whose cell is unrolled.cells.LSTM",
    ),
    (lambda: nn.Recurrent(nn.GRU, 3, 4), TypeError, "module unrolled.nn.GRU, whose cell is"),  # type: ignore[arg-type]
    (
        lambda: nn.RecurrentCell(torch.nn.GRUCell(3, 4), 3, 4),  # type: ignore[arg-type]
        TypeError,
        "got the module torch.nn.GRUCell, whose cell is unrolled.cells.GRU",
    ),
    (lambda: nn.Recurrent("LSTM", 3, 4), TypeError, "name 'LSTM', whose cell is unrolled.cells.L"),  # type: ignore[arg-type]
    (lambda: nn.Recurrent(torch.nn.Linear, 3, 4), TypeError, "got the module torch.nn.*Linear;"),  # type: ignore[arg-type]
    (lambda: SequenceModel(5, 3, cell=torch.nn.LSTM), TypeError, "unrolled.cells.LSTM"),  # type: ignore[arg-type]
    (lambda: SequenceModel(5, 3, cell=nn.LSTM(3, 4)), TypeError, "unrolled.cells.LSTM"),  # type: ignore[arg-type]
    (lambda: find_cell(None), TypeError, "cell must be a Cell .* got None"),  # type: ignore[arg-type]
    (lambda: make_stack(7, 3, 4), TypeError, "cell must be a Cell .* got 7"),  # type: ignore[arg-type]
    (lambda: cells.LSTM(10, 20), TypeError, r"unrolled.nn.Recurrent\(unrolled.cells.LSTM, input_"),
    (lambda: cells.GRU(10, 20, num_layers=2), TypeError, "the cell GRU does not take these"),
    (lambda: cells.RNN(10, 20), TypeError, "the cell RNN does not take .*layers have sizes"),  # type: ignore[call-arg,arg-type]
    (lambda: Peephole(10, 20), TypeError, r"unrolled\.nn\.Recurrent\(Peephole, input_size"),
    (lambda: cells.MGU(hidden_size=3), TypeError, "the cell MGU does not take .*\\(it takes none"),
    (
        lambda: engines.explain(torch.nn.LSTM(3, 4), torch.zeros(5, 2, 3)),
        TypeError,
        "layer must be .* of unrolled.nn, got torch.nn.LSTM; unrolled.nn.convert",
    ),
    (
        lambda: diagnostics.gate_values(torch.nn.LSTM(3, 4), torch.zeros(5, 2, 3)),
        TypeError,
        "layer must be an unrolled.nn.Recurrent, got LSTM; convert torch.nn's layers",
    ),
    (
        lambda: diagnostics.gradient_by_lag(torch.nn.LSTM(3, 4), torch.zeros(5, 2, 3)),
        TypeError,
        "layer must be an unrolled.nn.Recurrent",
    ),
    (
        lambda: diagnostics.inspect_layer(cells.LSTM, torch.zeros(5, 2, 3)),
        TypeError,
        "layer must be an unrolled.nn.Recurrent, got CellType",
    ),
    (
        lambda: diagnostics.recurrent_matrices(torch.nn.LSTM(3, 4)),
        TypeError,
        "layer must be an unrolled.nn.Recurrent",
    ),
    (lambda: make_program(nn.LSTM(3, 4)), TypeError, "a layer has one: layer.cell"),
    (lambda: make_program("LSTM"), TypeError, "make_program: cell must be a Cell .* got 'LSTM'"),
    (lambda: engines.explain(cells.LSTM, torch.zeros(5, 2, 3)), TypeError, "got the class unr"),
]


@pytest.mark.parametrize(("action", "error", "pattern"), MIXED)
def test_layers_and_cells_that_are_mixed_up(
    action: Any, error: type[Exception], pattern: str
) -> None:
    with pytest.raises(error, match=pattern):
        action()


def test_a_program_of_a_class() -> None:
    assert str(make_program(cells.MGU)) == str(make_program(cells.MGU()))


def test_cells_with_settings_are_made_as_before() -> None:
    assert cells.CoRNN(0.5, gamma=2.0).gamma == 2.0
    x = torch.ones(3, 2, 3)
    torch.manual_seed(0)
    by_instance = nn.Recurrent(Peephole(), 3, 4)
    torch.manual_seed(0)
    assert_equal(by_instance(x)[0], nn.Recurrent(Peephole, 3, 4)(x)[0])
