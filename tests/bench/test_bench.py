"""`unrolled bench`: rows of speed are of equal work, results of trials are measured and kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.paths import ROOT
from unrolled.bench import _comparisons as comparisons
from unrolled.bench import _speed as speed
from unrolled.bench._comparisons import COMPARISONS
from unrolled.bench._page import page
from unrolled.bench._timing import Plan
from unrolled.bench._trial import baselines_of, name_of
from unrolled.cli._app import run
from unrolled.tasks import find_task
from unrolled.tasks._baselines import xz_bits

PLAN = Plan(rounds=2, sample_ms=0.01)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("cell", "peer"), [("LSTM", speed.TORCH), ("MGU", speed.LOOP)])
def test_a_row_is_of_a_cell_and_its_peer(cell: str, peer: str, training: bool) -> None:
    row = speed.compare(cell, (5, 2, 3, 4), training, PLAN)
    assert (row.peer, row.training, row.shape) == (peer, training, (5, 2, 3, 4))
    assert row.ratio == row.theirs.median_ms / row.ours.median_ms > 0
    head, line = speed.table([row]).splitlines()
    assert line.split()[:3] == [cell, "5,2,3,4", "training" if training else "inference"]
    assert line.endswith(f"{row.ratio:.2f}")
    assert head.index("peer, ms") == line.index(f"{row.theirs.median_ms:.3g} ±")


def test_a_peer_with_other_numbers_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.GRU):
        def forward(self, *args: Any) -> Any:
            output, state = super().forward(*args)
            return output * 1.01, state

    monkeypatch.setitem(speed._TORCH_CLASSES, "GRU", Scaled)
    with pytest.raises(
        speed.WrongError, match=r"GRU: results must agree with the peer's, but differ by 0\.0"
    ):
        speed.compare("GRU", (5, 2, 3, 4), False, PLAN)


def test_the_command_prints_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    arguments = ["--cell", "gru", "--cell", "JANET", "--shape", "4,1,3,5", "--rounds", "1"]
    try:
        assert run(["bench", *arguments, "--threads", "1"]) == 0
        machine, spread, _, head, *lines = capsys.readouterr().out.splitlines()
    finally:
        torch.set_num_threads(threads)
    assert machine.endswith("1 thread")
    assert spread.startswith("median ±")
    assert head.split()[:2] == ["cell", "T,N,I,H"]
    assert [line.split()[0] for line in lines] == ["gru", "JANET"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "1,2,3"], "--shape must be four numbers T,N,I,H of at least 1, got '1,2,3'"),
        (["--shape", "1,0,3,4"], "--shape must be four numbers"),
        (["--cell", "GUR"], "did you mean"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--tasks", "--only", "("], "--only must be a regular expression, got '('"),
        (
            ["--tasks", "--only", "chess"],
            "--only must match the name of a trial, got 'chess'; trials are adding GRU",
        ),
        (
            ["--tasks", "--results", "bad.json"],
            "--results must be a file that this command wrote, got bad.json",
        ),
        (["--only", "adding"], "--only requires --tasks"),
        (["--page", "a.md"], "--page requires --tasks"),
        (["--tasks", "--cell", "GRU"], "--cell cannot be combined with --tasks"),
    ],
)
def test_faults_are_reported(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('{"rows": 3}')
    assert run(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


# Comparisons


def test_trials_have_distinct_names_and_existing_scores() -> None:
    names = [name_of(name, config) for name, c in COMPARISONS.items() for config in c.trials]
    assert len(set(names)) == len(names)
    for comparison in COMPARISONS.values():
        assert comparison.measure in find_task(comparison.task).metric_names
        assert all(config.seed == 0 for config in comparison.trials)
        # No length that was learned is left out of the table.
        lengths = {getattr(config, "length", None) for config in comparison.trials}
        assert not comparison.lengths or lengths <= set(comparison.lengths)


@pytest.mark.slow
def test_a_trial_is_trained_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    small: dict[str, Any] = {"hidden_size": 8, "steps": 120, "validate_every": 120}
    small |= {"learning_rate": 0.02, "accelerator": "cpu"}
    parity = COMPARISONS["parity"]
    trials = tuple(replace(c, length=5, **small) for c in parity.trials)
    monkeypatch.setitem(COMPARISONS, "parity", replace(parity, trials=trials, lengths=(5, 8)))
    arguments = ["bench", "--tasks", "--results", "out/found.json"]
    assert run([*arguments, "--only", "parity (RNN|GRU)"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("parity RNN 8\n  solved 5 ")
    results = json.loads(Path("out/found.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["parity RNN 8", "parity GRU 8"]
    row = results["rows"][0]
    assert set(row["results"]) == {"5", "8"}
    assert 0 <= row["results"]["8"] <= row["results"]["5"] <= 1
    assert (row["steps"], row["seed"], row["parameters"]) == (120, 0, 8 * (2 + 8 + 2) + 2 * 9)
    assert row["seconds"] > 0
    previous = results["rows"]
    # Another run puts its row in the place of the one of its name, and leaves the others.
    assert run([*arguments, "--only", "parity RNN", "--page", "docs/here.md"]) == 0
    results = json.loads(Path("out/found.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["parity RNN 8", "parity GRU 8"]
    assert results["rows"][1] == previous[1]
    assert results["rows"][0]["results"] == previous[0]["results"]
    assert Path("docs/here.md").read_text() == page(results)
    assert Path("out/found.md").read_text() == page({**results, "rows": previous})
    assert Path("out/bench/parity-RNN-8/last.safetensors").is_file()


def test_the_bytes_are_held_against_xz_on_the_very_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bytes(range(97, 123)) * 60
    (tmp_path / "text").write_bytes(text)
    comparison = COMPARISONS["bytes"]
    config = replace(
        comparison.trials[0], paths=(str(tmp_path / "text"),), window=8, batch_size=2,
        validation_fraction=0.25,
    )  # fmt: skip
    actual = baselines_of(replace(comparison, trials=(config,)))
    # Two streams of 194: the first byte of the last quarter is only read, the last does not fit.
    single, conditional = xz_bits(text[:1171], text[1171 : 1171 + 2 * 194])
    assert actual["xz -9, the held-out text alone"] == {"": single}
    assert actual["xz -9, after the training text"] == {"": conditional}


def test_the_page_holds_every_row_with_its_figures() -> None:
    environment = {
        "processor": "P", "cores": 2, "isa": "avx2", "python": "3", "packages": {"torch": "2"},
        "commit": "abcdef012", "dirty": False, "threads": 2, "date": "2026-01-02T",
    }  # fmt: skip
    row = {
        "name": "adding GRU 128 chrono", "comparison": "adding", "cell": "GRU",
        "hidden_size": 128, "parameters": 50049, "settings": "chrono 600", "seed": 0,
        "steps": 3000, "batch_size": 32, "learning_rate": 0.002, "seconds": 300.0,
        "results": {"600": 0.00012345}, "environment": environment,
    }  # fmt: skip
    failed = {**row, "cell": "LSTM", "results": {"600": 0.1671}, "settings": "", "seconds": 90.0}
    baselines = {"adding": {"always 1": {"600": 1 / 6}}}
    text = page({"rows": [row, failed], "baselines": baselines})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0].count("|") == lines[1].count("|") == lines[-1].count("|")
    assert (
        "| GRU | **1.23e-04** | chrono 600 | 128 | 50,049 | 0 | 3000 × 32 | 0.002 | 5.0 min |"
        in text
    )
    assert "| LSTM | **0.1671** |  | 128 | 50,049 | 0 | 3000 × 32 | 0.002 | 90 s |" in text
    assert "| always 1 | 0.1667 |" in text
    assert f"| published: GRU | 5.3e-5 | {comparisons._BAI} |" in text
    assert "P (2 cores, avx2), Python 3, torch 2, commit abcdef0; 2 threads" in text
    assert "2026-01-02. One run for each row." in text
    assert "Copy memory" not in text


def test_the_page_of_the_docs_is_that_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/comparisons.json").read_text())
    assert (ROOT / "docs/comparisons.md").read_text() == page(results)
    measured = {row["name"] for row in results["rows"]}
    expected = {name_of(name, config) for name, c in COMPARISONS.items() for config in c.trials}
    assert measured == expected
