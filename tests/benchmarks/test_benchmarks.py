"""Benchmarks refuse wrong results, include rows in which a peer is faster, and count correctly."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import checks
import harness
import peers
import picture
import report
import results
import tables
from checks import CheckError
from peers import Peer
from problems import Problem, grid, make_case
from unrolled.bench import _timing as timing

SMALL = {"T": 5, "N": 3, "I": 4, "H": 6}
PLAN = timing.Plan(rounds=2, sample_ms=0.01)


def _peer(change: Callable[[Tensor], Tensor]) -> tuple[Peer, dict[str, Tensor]]:
    """A peer whose output is changed, and the truth."""
    expected = {"output": torch.randn(3, 2)}
    return Peer(lambda: change(expected["output"]), lambda output: {"output": output}), expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + 1e-3, "output must be within"),
        (
            lambda y: y * float("nan"),
            "output must be within 1e-05 of its size, got an error of nan",
        ),
        (lambda y: y[:2], r"output must have shape \[3, 2\], got \[2, 2\]"),
        (lambda y: y.no_such_thing, "failed, AttributeError"),
    ],
)
def test_a_wrong_result_is_not_timed(change: Callable[[Tensor], Tensor], message: str) -> None:
    peer, expected = _peer(change)
    with pytest.raises(CheckError, match=f"row, someone: {message}"):
        harness.measure("row", {"someone": peer}, {"someone": expected}, False, PLAN)


def test_a_missing_gradient_fails_the_check() -> None:
    results = {"input": torch.ones(2)}
    with pytest.raises(
        CheckError, match="results must be \\['bias', 'input'\\], got \\['input'\\]"
    ):
        checks.check("someone", results, {**results, "bias": torch.ones(2)})


def test_gradients_have_their_own_tolerance() -> None:
    expected = {"weight": torch.tensor([100.0, 1.0])}
    near = {"weight": torch.tensor([100.0, 1.001])}
    assert checks.check("someone", near, expected) == pytest.approx(1e-5, rel=1e-2)
    with pytest.raises(CheckError, match="weight must be within"):
        checks.check("someone", {"weight": torch.tensor([100.0, 1.1])}, expected)


def test_a_failed_check_exits_with_code_1_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(settings: harness.Settings) -> list[harness.Row]:
        peer, expected = _peer(lambda y: -y)
        return [harness.measure("row", {"ours": peer}, {"ours": expected}, False, settings.plan)]

    monkeypatch.setattr(harness, "limit", lambda threads: None)
    output = tmp_path / "results.json"
    arguments = ["--quick", "--skip-tests", "--output", str(output)]
    with pytest.raises(SystemExit, match="not reported: row, ours") as exit_info:
        harness.main("a benchmark", {"some": rows}, arguments)
    assert isinstance(exit_info.value.code, str)  # a message, which Python ends with code 1
    assert not output.exists()


@pytest.mark.slow
def test_failing_tests_fail_the_check(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it():\n    assert False\n")
    with pytest.raises(CheckError, match="tests of this project fail"):
        checks.run_tests((str(failing),))


@pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
@pytest.mark.parametrize("stacked", [False, True], ids=["single", "stacked"])
@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("name", peers.MAKERS)
def test_peers_agree_with_torch_in_float64(
    name: str, cell: str, stacked: bool, training: bool
) -> None:
    module, function = peers.MAKERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = getattr(pytest.importorskip(module, exc_type=ImportError), function)
        case = make_case(Problem(cell, **SMALL, training=training, layers=2, bidirectional=True))
        if not stacked:
            case = make_case(Problem(cell, **SMALL, training=training))
        peer = make(case, 1)
        if peer is None:
            pytest.skip(f"{name} does not train")
        harness.checked(name, peer, case.truth())


def test_a_missing_peer_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.MAKERS, "absent", ("peers.no_such_thing", "make"))
    makers, skipped = peers.available()
    assert "absent" not in makers
    assert skipped["absent"] == "No module named 'peers.no_such_thing'"


def test_rounds_rotate() -> None:
    assert [timing.rotated(["a", "b", "c"], k)[0] for k in range(4)] == ["a", "b", "c", "a"]
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    timings = timing.interleave(calls, PLAN)
    assert {measured.rounds for measured in timings.values()} == {2}
    assert set(called) == {"a", "b"}


def test_median_and_spread() -> None:
    assert timing.median_and_spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 1.0)
    assert timing.median_and_spread([2.0]) == (2.0, 0.0)


def _row(cell: str, mode: str, ours: float, **peer_times: float) -> dict[str, Any]:
    timed = {
        who: {"median_ms": time, "spread_ms": 0.1, "rounds": 15, "repeats": 1, "error": 0.0}
        for who, time in {"unrolled": ours, **peer_times}.items()
    }
    timed["unrolled"]["engines"] = ["native"]
    return {"name": f"{cell} small {mode}", "cell": cell, "kind": mode, "peers": timed, **SMALL}


LOST = _row("RNN", "infer", 4.0, torch=8.0, jax=1.0)
WON = _row("GRU", "infer", 1.0, torch=8.0, openvino=4.0)
CLOSE = _row("LSTM", "train", 1.0, torch=0.98)


def test_geometric_means_and_counts() -> None:
    assert tables.geometric_mean([0.25, 4.0, 8.0]) == pytest.approx(2.0)
    lines = tables.summary([LOST, WON, CLOSE]).splitlines()
    assert "| inference, all | 2 | 1.00 | 4.00 | 1 | 1 |" in lines
    assert "| inference, RNN | 1 | 0.25 ▼ | 2.00 | 0 | 0 |" in lines
    assert "| training, all | 1 | 0.98 ▼ | 0.98 ▼ | 0 | 1 |" in lines


def test_ratios_are_never_rounded_up() -> None:
    assert tables.cut(0.9999) == "0.99 ▼"
    assert tables.cut(1.0) == "1.00"
    assert tables.cut(0.29) == "0.29 ▼"


def test_rows_with_a_faster_peer_are_shown() -> None:
    assert "0.25 ▼ (2.0)" in tables.ratios([LOST, WON])
    markdown = tables.timings([LOST, WON])
    assert (
        "| RNN small infer | 8 ± 0.1 |  | 1 ± 0.1 | 4 ± 0.1 | native | 0.25 ▼ | 2.00 |" in markdown
    )
    assert "| GRU small infer | 8 ± 0.1 | 4 ± 0.1 |  | 1 ± 0.1 | native | 4.00 | 8.00 |" in markdown


def test_a_block_goes_between_its_markers() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter"
    assert report.insert(text, r"new \1") == f"before\n{report.BEGIN}\nnew \\1\n{report.END}\nafter"
    with pytest.raises(ValueError, match="exactly one pair of markers"):
        report.insert("nothing", "new")


def test_documents_have_markers() -> None:
    for name in report.DOCUMENTS:
        report.insert((report.ROOT / name).read_text(), "new")


def test_only_a_complete_grid_is_inserted_into_the_documents() -> None:
    complete = {"quick": False, "rows": [{"name": problem.name} for problem in grid()]}
    assert len(complete["rows"]) == 72
    assert report.incomplete({"grid": complete}) is None
    part = {**complete, "rows": complete["rows"][1:]}
    assert report.incomplete({"grid": part}) == (
        "lacks 1 rows of the grid, RNN 1,1,64,64 infer first"
    )
    assert "--quick: memory" in (
        report.incomplete({"grid": complete, "memory": {"quick": True}}) or ""
    )


def test_a_file_keeps_its_other_sections(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, "grid", {"rows": [1]})
    results.write(path, "memory", {"rows": [2]})
    results.write(path, "grid", {"rows": [3]})
    assert results.read(path) == {"grid": {"rows": [3]}, "memory": {"rows": [2]}}


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in paths:
        picture.draw([LOST, WON, CLOSE], "a machine", path)
    assert paths[0].read_text() == paths[1].read_text()


@pytest.mark.parametrize(
    "script",
    [
        "grid",
        "stacks",
        "ragged",
        "published",
        "heads",
        "latency",
        "autograd_bound",
        "training_step",
        "busy",
        "rested",
        "half",
        "half_errors",
        "repeated",
        "transforms",
        "memory",
        "quantized",
        "startup",
        "streams",
        "run_all",
    ],
)
def test_scripts_load(script: str) -> None:
    assert importlib.import_module(script).__doc__
