"""Some of the random calls that ``fuzz`` makes by the thousand; and it reports what fails."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import fuzz, random_calls, random_checks
from tests.support.random_calls import CELLS, DTYPES, FORMS, draw
from tests.support.random_cells import draw_cell
from tests.support.random_checks import check
from tests.support.random_paths import PATHS, check_paths, draw_subject
from unrolled import engines, nn

CALLS_EACH = 20


def batches(calls: int, short: int, size: int = CALLS_EACH) -> list[Any]:
    """Where batches of calls begin; those after the first ``short`` calls are long tests."""
    return [
        pytest.param(begin, marks=[pytest.mark.long] if begin >= short else [])
        for begin in range(0, calls, size)
    ]


pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("begin", batches(600, short=100))
def test_random_calls(begin: int) -> None:
    for seed in range(begin, begin + CALLS_EACH):
        check(draw(seed))


@pytest.fixture
def nan_in_core_memory() -> None:
    """The core's memory, which sweeps reuse, is full of NaN."""
    layer = nn.LSTM(33, 65, num_layers=2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    x = torch.full((4, 33, 33), torch.nan, dtype=torch.float64, requires_grad=True)
    layer(x, lengths=[4] * 33)[0].sum().backward()


@pytest.mark.usefixtures("nan_in_core_memory")
@pytest.mark.parametrize("begin", batches(120, short=40))
def test_random_cells(begin: int) -> None:
    for seed in range(begin, begin + CALLS_EACH):
        check(draw(seed, cells=True))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("begin", batches(36, short=12, size=4))
def test_random_cells_on_further_paths(begin: int) -> None:
    for seed in range(begin, begin + 4):
        subject = draw_subject(seed)
        if "compiled" not in subject.paths:
            check_paths(subject)


def test_the_cells_are_of_all_kinds_and_the_same_each_time() -> None:
    sources = [str(draw_cell(seed)) for seed in range(300)]
    features = (
        "recurrent = None", "source='I'", "width='I'", "vector('I'", "'u': 'I'", "'h': 'I'",
        "width='P'", "vector('P'", "width=17", "vector(1", "blocks=", "bias=False", "mean(",
        "where(", "('h', 'u', 'w')", "gates = ()", "def prepare",
    )  # fmt: skip
    assert [text for text in features if not any(text in source for source in sources)] == []
    for name in ("recurrent", "input", "p0"):
        assert any(re.search(f"{name} = .*blocks=", source) for source in sources)
    silent = [s for s in sources if "state." not in s and "h." not in s.split("def step")[1]]
    assert len(silent) > 10  # a step without memory
    draw_cell.cache_clear()
    assert [str(draw_cell(seed)) for seed in range(50)] == sources[:50]
    assert {path for seed in range(300) for path in draw_subject(seed).paths} == {*PATHS}


def test_the_calls_are_of_all_kinds_and_the_same_each_time() -> None:
    calls = [draw(seed) for seed in range(2000)]
    assert {call.cell_name for call in calls} == {*CELLS}
    assert {call.form for call in calls} == {*FORMS}
    assert {call.dtype for call in calls} == {*DTYPES}
    assert [draw(call.seed) for call in calls[:50]] == calls[:50]


@pytest.fixture
def is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], bool]:
    """Whether a valid call is reported as failed."""
    seed = next(seed for seed in range(1000) if _plain(draw(seed)))
    monkeypatch.setattr("sys.argv", ["fuzz", "--calls", "1", "--seed", str(seed)])

    def run() -> bool:
        failed = fuzz.main()
        assert failed == (f"failed: --only {seed}" in capsys.readouterr().out)
        return bool(failed)

    return run


def _plain(call: random_calls.Call) -> bool:
    """A call with gradients, in float32, that has results."""
    plain = (call.form, call.mode, call.frozen, call.lengths) == ("batched", "grad", 0.0, None)
    smooth = call.cell_name not in random_calls.KINKED
    return plain and smooth and call.recorded and call.dtype == torch.float32 and call.N > 0


def test_a_valid_call_is_not_reported(is_reported: Callable[[], bool]) -> None:
    assert not is_reported()


@pytest.mark.parametrize("quantity", ["result", "gradient"])
def test_numbers_that_are_a_thousandth_off_are_reported(
    quantity: str, is_reported: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = random_checks.outcome

    def faulty_outcome(call: Any, module: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        actual = original(call, module, dtype)
        if dtype == torch.float32:
            name = next(name for name in actual if name.startswith(quantity))
            actual[name] = actual[name] + 1e-3 * actual[name].abs().max().clamp(min=1)
        return actual

    monkeypatch.setattr(random_checks, "outcome", faulty_outcome)
    assert is_reported()


def test_another_engine_is_reported(
    is_reported: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "use", lambda name: nullcontext())
    monkeypatch.setattr(engines.ENGINES["native"], "supports", lambda sweep: "not today")
    assert is_reported()
