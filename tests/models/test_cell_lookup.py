"""Cells by name: every published one, and classes in files of users, with what may be wrong."""

import sys
from pathlib import Path

import pytest
import torch

from tests.support.subjects import unpack
from unrolled import cells, nn
from unrolled.cells import Cell
from unrolled.models import CellNameError, SequenceModel, find_cell, make_stack, published_cells

CELL_FILE = """
from unrolled.cells import GRU, Cell, tanh

class Leaky(Cell):
    def step(self, x, h, state):
        return 0.5 * state.h + 0.5 * tanh(x + h)

class NoCell:
    pass

number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(CELL_FILE)
    return path


def test_published_are_the_cells_that_the_package_exports() -> None:
    actual = published_cells()
    assert {"GRU", "LSTM", "RNN", "CoRNN", "SLSTM"} < set(actual)
    assert not {"Cell", "BoundCell", "CellError", "Sizes"} & set(actual)
    declared = {
        name
        for name in dir(cells)
        if isinstance(getattr(cells, name), type) and issubclass(getattr(cells, name), Cell)
    }
    assert set(actual) == declared - {"Cell"}
    assert all(getattr(cells, name) is actual[name] for name in actual)


@pytest.mark.parametrize("name", published_cells())
def test_every_published_cell_builds_and_runs(name: str) -> None:
    for spelt in (name, name.lower(), name.upper(), name.swapcase()):
        assert find_cell(spelt) is published_cells()[name]
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    stack = make_stack(name.lower(), 4, 6, num_layers=2, bidirectional=True, dtype=x.dtype)
    torch.manual_seed(1)
    expected = nn.Recurrent(published_cells()[name], 4, 6, 2, bidirectional=True, dtype=x.dtype)
    expected.load_state_dict(stack.state_dict())
    actual, final = stack(x)
    reference, ends = expected(x)
    assert actual.shape == (5, 3, 12)
    torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-13)
    for a, b in zip(unpack(final), unpack(ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert actual.std() > 1e-3


@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_the_classic_ones_are_the_layers_of_their_name(name: str) -> None:
    stack = make_stack(name.lower(), 3, 4, num_layers=2)
    assert type(stack) is getattr(nn, name)
    getattr(torch.nn, name)(3, 4, num_layers=2).load_state_dict(stack.state_dict())


def test_an_unknown_name_raises() -> None:
    with pytest.raises(
        CellNameError, match=r"cell must be one of ATR, .*, got 'LSTN'; did you mean LSTM"
    ):
        find_cell("LSTN")
    for name in ("", "transformer", "Cell", "BoundCell", "sigmoid"):
        with pytest.raises(CellNameError, match=f"path/to/file.py:MyCell, got '{name}'"):
            find_cell(name)


def test_a_cell_of_a_file_is_its_equation(file: Path) -> None:
    stack = make_stack(f"{file}:Leaky", 3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    weights = dict(stack.named_parameters())
    h, outputs = torch.zeros(2, 4, dtype=torch.float64), []
    for x_t in x:
        z = x_t @ weights["weight_ih_l0"].t() + weights["bias_ih_l0"]
        z = z + h @ weights["weight_hh_l0"].t() + weights["bias_hh_l0"]
        h = 0.5 * h + 0.5 * torch.tanh(z)
        outputs.append(h)
    torch.testing.assert_close(stack(x)[0], torch.stack(outputs), rtol=1e-13, atol=1e-14)


def test_a_model_takes_a_cell_of_a_file(file: Path) -> None:
    model = SequenceModel(5, 2, cell=f"{file}:Leaky", hidden_size=3)
    assert type(model.recurrent.cell) is find_cell(f"{file}:Leaky")
    rebuilt = SequenceModel(**model.arguments)
    rebuilt.load_state_dict(model.state_dict())
    tokens = torch.randint(5, (4, 2))
    assert torch.equal(rebuilt(tokens)[0], model(tokens)[0])


def test_what_a_file_imports_is_found_there_too(file: Path) -> None:
    assert find_cell(f"{file}:GRU") is cells.GRU
    assert type(make_stack(f"{file}:GRU", 2, 3)) is nn.GRU


def test_a_file_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"print('ran')\n{CELL_FILE}")
    (tmp_path / "link.py").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    names = [f"{file}:Leaky", "own.py:Leaky", "./own.py:Leaky", "link.py:Leaky"]
    assert len({find_cell(name) for name in names}) == 1
    assert capsys.readouterr().out == "ran\n"


def test_files_of_one_name_are_apart(tmp_path: Path) -> None:
    results = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(CELL_FILE)
        results.append(find_cell(f"{tmp_path / folder}/own.py:Leaky"))
    assert results[0] is not results[1]
    assert "own" not in sys.modules


@pytest.mark.parametrize(
    "name", ["a:b.py", "two words.py", "naïve.py", "C:/deep:er/own.py", ".py.py"]
)
def test_odd_paths(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CELL_FILE)
    assert find_cell(f"{path}:Leaky").__name__ == "Leaky"


@pytest.mark.parametrize(
    "class_name", ["Leeky", "leaky", "NoCell", "number", "Cell", "", "__name__"]
)
def test_a_class_that_is_not_a_cell_raises(file: Path, class_name: str) -> None:
    message = (
        rf"own.py must have a subclass of unrolled.cells.Cell called '{class_name}', got Leaky$"
    )
    with pytest.raises(CellNameError, match=message):
        find_cell(f"{file}:{class_name}")


def test_a_file_without_cells_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("from unrolled.cells import GRU\n")
    with pytest.raises(CellNameError, match=r"empty.py must have .* called 'X', got none$"):
        find_cell(f"{tmp_path / 'empty.py'}:X")


@pytest.mark.parametrize("name", ["absent.py", "", "x" * 5000, "a\0b.py"])
def test_a_missing_file_raises(name: str) -> None:
    with pytest.raises(CellNameError, match=r"before the colon must be a Python file, there is no"):
        find_cell(f"{name}:MyCell")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(CellNameError, match="before the colon must be a Python file"):
        find_cell(f"{tmp_path}:MyCell")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.txt", CELL_FILE, "a Python file must end in .py, got .*own.txt"),
        ("own.py", "class (", r"own.py cannot be run \(SyntaxError: "),
        ("own.py", "\0\0", r"own.py cannot be run \((SyntaxError|ValueError): "),
        ("own.py", "caf\udce9 = 1", r"own.py cannot be run \(SyntaxError: "),
        ("own.so", "no library", r"own.so cannot be run \(ImportError: "),
        ("own.py", "import absent_module", r"\(ModuleNotFoundError: No module named 'absent_m"),
        (
            "own.py",
            f"{CELL_FILE}\n1 / 0",
            r"own.py cannot be run \(ZeroDivisionError: division by zero",
        ),
        ("own.py", f"{CELL_FILE}\nraise SystemExit(3)", r"own.py cannot be run \(SystemExit: 3\)"),
    ],
)
def test_a_file_that_cannot_be_run_raises(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape"))
    for _ in range(2):  # nothing half run is kept for the second time
        with pytest.raises(CellNameError, match=message):
            find_cell(f"{path}:Leaky")


def test_an_interrupt_goes_through_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"{CELL_FILE}\nraise KeyboardInterrupt")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            find_cell(f"{path}:Leaky")


def test_a_mended_file_runs(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("class (")
    with pytest.raises(CellNameError):
        find_cell(f"{path}:Leaky")
    path.write_text(CELL_FILE)
    assert find_cell(f"{path}:Leaky").__name__ == "Leaky"
